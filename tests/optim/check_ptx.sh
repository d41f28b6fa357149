#!/bin/sh
# The optimizer's kernels as compiled: every float operation rounds to nearest, none flushes
# denormals or approximates, and a fused multiply-add stands only where the definition has one:
# four times in Adam, and once more for L2 decay. A thread has four elements, and the compiler
# may make them once with that decay and once without.
#
#     check_ptx.sh FILE.ptx
set -u
[ -s "$1" ] || {
    echo "$1: no PTX"
    exit 1
}
awk '
function bad(why) {
    printf "%s:%d: %s: %s\n", FILENAME, FNR, why, $0
    failures++
}
/^[ \t]*\/\// { next }
/\.ftz/ { bad("flushes denormals") }
/\.approx|\.full/ { bad("approximates") }
/\.(rz|rm|rp)\.f(32|64)/ { bad("rounds otherwise") }
/^[ \t]*(add|sub|mul|div|sqrt|fma|rcp|rsqrt)\.[a-z0-9.]*f(32|64)/ {
    operations++
    if ($1 !~ /\.rn\./)
        bad("may be contracted or approximated")
}
/^[ \t]*fma\./ {
    fused++
    if ($1 != "fma.rn.f32")
        bad("fused where the definition has none")
}
/^[ \t]*mad\.[a-z0-9.]*f(32|64)/ { bad("fused where the definition has none") }
END {
    printf "%d float operations, %d fused, %d faults\n", operations, fused, failures
    exit failures > 0 || operations == 0 || (fused != 4 * 5 && fused != 4 * 5 + 4 * 4)
}
' "$1"
