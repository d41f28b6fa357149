#!/bin/sh
# A shared library exports what include/strata/ declares with STRATA_API, all of it and no more.
#
#     check_exports.sh ROOT LIBRARY.so
set -u
export LC_ALL=C
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT

# A declaration may span lines; the name stands before its first parenthesis.
cat "$1"/include/strata/*.h | awk '
/^#/ { next }
/^STRATA_API/ { text = ""; inside = 1 }
inside { text = text " " $0 }
inside && /;/ {
    inside = 0
    sub(/\(.*/, "", text)
    n = split(text, words, /[ *]+/)
    print words[n]
}' | sort -u >"$work/declared"
nm -D --defined-only "$2" | awk 'NF == 3 { sub(/@.*/, "", $3); print $3 }' |
    sort -u >"$work/exported"

missing=$(comm -23 "$work/declared" "$work/exported")
hidden=$(comm -13 "$work/declared" "$work/exported")
[ -n "$missing" ] && printf 'declared but not exported:\n%s\n' "$missing"
[ -n "$hidden" ] && printf 'exported but not declared:\n%s\n' "$hidden"
echo "$(wc -l <"$work/declared") declared, $(wc -l <"$work/exported") exported"
[ -s "$work/declared" ] && [ -z "$missing$hidden" ]
