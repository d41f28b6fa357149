#!/bin/sh
# What a user of the library does: install it into a prefix of its own, static and shared, and
# build a program against it by find_package and by pkg-config. The program is
# examples/first_step.c and has to run. The shared one is also held to its exports.
#
#     check_package.sh ROOT BUILD KIND
#
# BUILD is a build folder whose library is of this KIND, static or shared: it is installed from
# there, programs included. The other kind is built here, as the library alone, and hardly
# optimised: that changes nothing of what is installed. C++ gets -O1, for without it templates
# of the toolkit's headers would be exported.
set -u
root=$1
built=$2
built_kind=$3
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
unset CFLAGS LDFLAGS

step() { # NAME COMMAND...
    name=$1
    shift
    "$@" >"$work/log" 2>&1 || {
        cat "$work/log"
        echo "failed: $name"
        exit 1
    }
    echo "ok: $name"
}

with_pkg_config() { # PREFIX PROGRAM
    PKG_CONFIG_PATH=$(dirname "$(find "$1" -name strata.pc)")
    export PKG_CONFIG_PATH
    # shellcheck disable=SC2046
    cc -std=c17 -Wall -Werror "$root/examples/first_step.c" -o "$2" \
        $(pkg-config --cflags --libs strata)
}

for kind in static shared; do
    shared=OFF
    [ $kind = shared ] && shared=ON
    build=$work/$kind
    prefix=$work/prefix-$kind
    if [ $kind = "$built_kind" ]; then
        build=$built
    else
        step "$kind: configure" cmake -G Ninja -S "$root" -B "$build" \
            -DBUILD_SHARED_LIBS=$shared -DCMAKE_BUILD_TYPE=Debug -DSTRATA_TESTS=OFF \
            -DSTRATA_BENCH=OFF -DSTRATA_TRAIN=OFF -DCMAKE_CUDA_ARCHITECTURES=80 \
            -DCMAKE_CUDA_FLAGS=-O1
        step "$kind: build" cmake --build "$build"
    fi
    step "$kind: install" cmake --install "$build" --prefix "$prefix"
    library=$(dirname "$(find "$prefix" -name 'libstrata.*' | head -n 1)")
    export LD_LIBRARY_PATH="$library"

    step "$kind: consumer by find_package" cmake -G Ninja -S "$root/tests/style/consumer" \
        -B "$work/consumer-$kind" -DCMAKE_PREFIX_PATH="$prefix" \
        -DSOURCE="$root/examples/first_step.c"
    step "$kind: its build" cmake --build "$work/consumer-$kind"
    step "$kind: its run" "$work/consumer-$kind/consumer"
    step "$kind: consumer by pkg-config" with_pkg_config "$prefix" "$work/program-$kind"
    step "$kind: its run" "$work/program-$kind"
    if [ $kind = shared ]; then
        sh "$root/tests/style/check_exports.sh" "$root" "$library/libstrata.so" || exit 1
    fi
done
