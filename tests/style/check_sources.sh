#!/bin/sh
# CMake lists its sources by name. A file that nobody lists is neither built nor tested, which
# is what this finds. (A listed file that does not exist is an error of CMake's.)
#
#     check_sources.sh ROOT
set -u
cd "$1" || exit 2
failures=0
count=0

listed() { # FILE NAME LIST
    count=$((count + 1))
    grep -qE "(^|[ ,(])$2([] ,)>]|\$)" "$3" || {
        echo "$1: not in $3"
        failures=$((failures + 1))
    }
}

for file in $(find base io optim offload engine train bench \
    \( -name '*.c' -o -name '*.cu' -o -name '*.cpp' \) 2>/dev/null); do
    listed "$file" "$file" CMakeLists.txt
done
for file in tests/*/*.c; do
    case $file in tests/style/*) continue ;; esac
    listed "$file" "${file#tests/}" tests/CMakeLists.txt
done
for file in tests/style/*.sh; do
    name=${file#tests/style/}
    listed "$file" "${name%.sh}" tests/CMakeLists.txt
done
echo "$count files, $failures not listed"
[ "$failures" -eq 0 ]
