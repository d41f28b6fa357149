#!/bin/sh
# One namespace: every symbol with external linkage that a static library of ours defines begins
# with strata_.
#
#     check_symbols.sh LIBRARY.a...
set -u
export LC_ALL=C
wrong=$(nm -g --defined-only -o "$@" | awk '
    NF >= 3 && $NF !~ /^strata_/ && !($(NF - 1) ~ /^[VW]$/ && $NF ~ /^(_Z|DW\.ref\.)/)')
count=$(nm -g --defined-only "$@" | awk 'NF == 3' | wc -l)
if [ -n "$wrong" ]; then
    echo "symbols without the prefix strata_:"
    echo "$wrong"
    exit 1
fi
echo "$count symbols, all with the prefix"
[ "$count" -gt 0 ]
