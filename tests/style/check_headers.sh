#!/bin/sh
# Every header can be included first and alone: the public ones as C17 and as C++17 without a
# warning, the internal ones as C17.
#
#     check_headers.sh ROOT
set -u
cd "$1" || exit 2
flags="-Wall -Wextra -Wpedantic -Werror -fsyntax-only -Iinclude"
failures=0
count=0

try() { # COMPILER LANGUAGE STANDARD HEADER MORE-FLAGS
    count=$((count + 1))
    # shellcheck disable=SC2086
    echo "#include \"$4\"" | $1 -x "$2" -std="$3" $flags $5 - || {
        echo "$4: not alone as $3 with $1"
        failures=$((failures + 1))
    }
}

command -v g++ >/dev/null || {
    echo "skipped: g++ is not installed"
    exit 77
}
for path in include/strata/*.h; do
    header=${path#include/}
    try gcc c c17 "$header" ""
    try g++ c++ c++17 "$header" ""
done
for header in base/*.h io/*.h optim/*.h offload/*/*.h engine/*.h train/*.h bench/*.h \
    bench/*/*.h; do
    # A template is a body, included by kernels that define its parameters first.
    case $header in *_template.h | optim/simd_*.h | */\*.h) continue ;; esac
    try gcc c c17 "$header" "-I. -Wno-pedantic"
done
echo "$count compilations, $failures failed"
[ "$failures" -eq 0 ]
