#!/bin/sh
# Lines of at most 96 columns, functions of at most 70 lines, no left-over marks, no blanks at a
# line's end: what the formatter does not see to.
#
#     check_lines.sh ROOT
set -u
cd "$1" || exit 2
export LC_ALL=C
files=$(find CMakeLists.txt Makefile include base io optim offload engine train bench examples \
    tests tools cmake \
    \( -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' -o -name '*.cpp' -o -name '*.sh' \
    -o -name '*.py' -o -name CMakeLists.txt -o -name Makefile \) 2>/dev/null)
# shellcheck disable=SC2086
awk '
function bad(line, why) {
    printf "%s:%d: %s\n", FILENAME, line, why
    failures++
}
# awk of a minimal system counts bytes; what continues a UTF-8 character is no column.
function columns(text) {
    gsub(/[\200-\277]/, "", text)
    return length(text)
}
FNR == 1 { begin = 0 }
columns($0) > 96 { bad(FNR, columns($0) " columns") }
/[ \t]$/ { bad(FNR, "a blank at the end of the line") }
/(^|[^A-Za-z])(TO(DO)|FIX(ME)|X(XX))([^A-Za-z]|$)/ {
    bad(FNR, "left-over work belongs in an issue")
}
FILENAME == "examples/first_step.c" && FNR == 121 {
    bad(FNR, "an example of more than 120 lines")
}
/^\{$/ && FILENAME ~ /\.(c|cu|cuh|cpp)$/ { begin = FNR; note = 0 }
/switch \(/ { note = 1 }
/^\}/ && begin {
    # A switch over states may be longer.
    if (FNR - begin > 70 && !note)
        bad(begin, "a function of " (FNR - begin - 1) " lines")
    begin = 0
}
END { printf "%d files, %d faults\n", ARGC - 1, failures; exit failures > 0 }
' $files
