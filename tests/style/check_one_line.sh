#!/bin/sh
# The library and the main program build without CMake, by one line of cc; without CUDA, for
# which it takes nvcc. Not optimised, for what it does here is to build and to start.
#
#     check_one_line.sh ROOT
set -u
cd "$1" || exit 2
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT

optional='offload/device/device_cuda.c|train/products_cuda.c'
# shellcheck disable=SC2046
cc -std=c17 -O0 -ffp-contract=off -Iinclude -I. \
    base/*.c optim/*.c optim/absent/*.c io/*.c offload/device/absent/*.c engine/*.c \
    train/absent/*.c \
    $(printf '%s\n' offload/*/*.c train/*.c | grep -vE "$optional") -o "$work/offload-train" \
    $(pkg-config --cflags --libs openblas) -lgomp -lhwloc -ljansson -lxxhash -luring -lm \
    -pthread || exit 1
"$work/offload-train" --version
