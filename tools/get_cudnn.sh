#!/bin/sh
# Gets cuDNN and the headers of its frontend, which attention on a GPU is built on and run by,
# from two Python packages: nvidia-cudnn-frontend (headers only) and nvidia-cudnn-cu13 (the
# library, 0.9 GiB). Nothing is installed into the system: they are put into a folder.
#
#     tools/get_cudnn.sh [-n] [DIR]      DIR: build/cudnn, where CMake looks
#
#     -n  only say what would be done
#
# Exit: 0 done, or there already; 1 it could not be had; 2 usage.
set -u
root=$(cd "$(dirname "$0")/.." && pwd) || exit 1
packages="nvidia-cudnn-frontend>=1.32 nvidia-cudnn-cu13>=9.19"
usage="usage: get_cudnn.sh [-n] [DIR]"
only_say=
while getopts n letter; do
    case $letter in
    n) only_say=yes ;;
    *)
        echo "$usage" >&2
        exit 2
        ;;
    esac
done
shift $((OPTIND - 1))
[ $# -le 1 ] || {
    echo "$usage" >&2
    exit 2
}
dir=${1:-$root/build/cudnn}
library=$dir/nvidia/cudnn/lib

# The library's own dependencies, cuBLAS and the run-time compiler, are in the CUDA toolkit.
set -- -m pip install --no-deps --target "$dir"
say_next() {
    echo "next: cmake --preset cuda -DSTRATA_CUDNN_FRONTEND=$dir/include" \
        "-DSTRATA_CUDNN_INCLUDE=$dir/nvidia/cudnn/include"
    echo "      LD_LIBRARY_PATH=$library for the programs"
}
if [ -f "$dir/include/cudnn_frontend.h" ] && [ -f "$library/libcudnn.so.9" ]; then
    echo "cuDNN and its frontend are in $dir"
elif [ -n "$only_say" ]; then
    echo "python3 $* $packages"
else
    # shellcheck disable=SC2086
    python3 "$@" $packages || {
        echo "get_cudnn: pip could not: get the packages $packages elsewhere, unpack them in" \
            "$dir, and run this again" >&2
        exit 1
    }
fi
say_next
