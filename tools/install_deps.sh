#!/bin/sh
# Installs what building and testing needs and is not there yet, by apt, and says what. Names
# are those of Debian 12 and Ubuntu 24.04. With everything in place it does nothing and needs no
# network.
#
#     tools/install_deps.sh
set -eu

# The compiler and the build; g++ only shows that the public headers are C++ as well.
packages="gcc g++ libc6-dev make cmake ninja-build pkg-config"
# One library each for: NVMe, topology, JSON, hashes, matrix products, tests.
packages="$packages liburing-dev libhwloc-dev libjansson-dev libxxhash-dev"
packages="$packages libopenblas-openmp-dev libcriterion-dev"
# The fuzz targets: clang, and its libFuzzer, whose package has the compiler's version in its
# name.
packages="$packages clang"
case $(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release 2>/dev/null) in
bookworm) packages="$packages libclang-rt-14-dev" ;;
noble) packages="$packages libclang-rt-18-dev" ;;
*) packages="$packages libclang-rt-dev" ;;
esac

if ! command -v dpkg-query >/dev/null; then
    echo "install_deps: this is no Debian or Ubuntu; needed by their names there: $packages" >&2
    exit 3
fi

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null || true)" = installed ]
}

missing=
for package in $packages; do
    installed "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

root=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "install_deps: neither root nor sudo; as root: apt-get install -y$missing" >&2
        exit 3
    }
    root=sudo
fi

echo "installing with apt-get:$missing"
# An image may come without package lists, or with lists that name what is no longer there.
install() {
    # shellcheck disable=SC2086
    $root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends $missing
}
if ! apt-cache policy libcriterion-dev 2>/dev/null | grep -q 'Candidate: [0-9]'; then
    $root apt-get update -q
    install
else
    install || {
        $root apt-get update -q
        install
    }
fi
