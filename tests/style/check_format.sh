#!/bin/sh
# The sources are as clang-format 14 with .clang-format leaves them. Other versions decide some
# line breaks otherwise, so only that one is asked.
#
#     check_format.sh ROOT [fix]
set -u
cd "$1" || exit 2
program=
for name in clang-format-14 clang-format; do
    if $name --version 2>/dev/null | grep -q 'version 14\.'; then
        program=$name
        break
    fi
done
if [ -z "$program" ]; then
    echo "skipped: clang-format 14 is not installed (sudo apt-get install clang-format-14)"
    exit 77
fi
files=$(find include base io optim offload engine train bench examples tests tools \
    \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' \) 2>/dev/null)
# shellcheck disable=SC2086
if [ "${2:-}" = fix ]; then
    $program -i $files
else
    $program --dry-run -Werror $files
fi
