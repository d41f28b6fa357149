#!/bin/sh
# Everything that can be tested without a GPU: three builds (release; dev with ASan and UBSan;
# tsan), their tests in one run of ctest, whose closing lines are the last of the output.
#
#     tools/test.sh          what make test runs
#     tools/test.sh long     the long forms too
#
# STRATA_WERROR=ON: warnings are errors, as in CI.
set -eu
cd "$(dirname "$0")/.."
presets="release dev tsan"
jobs=$(nproc)
# More tests at once than cores: a fifth of their time they wait for drives and deadlines.
tests=$((jobs + (jobs + 1) / 2))
mkdir -p build

for preset in $presets; do
    echo "== building $preset"
    cmake --preset "$preset" -DSTRATA_WERROR="${STRATA_WERROR:-OFF}"
    cmake --build --preset "$preset" -j "$jobs"
done

# One run over the three trees: ctest takes a folder whose test file names others.
for preset in $presets; do
    echo "subdirs($preset)"
done >build/CTestTestfile.cmake

echo "== testing"
if [ "${1:-}" = long ]; then
    exec ctest --test-dir build -j "$tests" --output-on-failure
fi
exec ctest --test-dir build -j "$tests" --output-on-failure -LE long
