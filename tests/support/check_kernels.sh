#!/bin/sh
# Kernels as compiled. PTX: memory is never touched by bytes, nothing is atomic,
# no array lies in local memory, and there is no 64-bit division; a kernel for whole chunks
# loads 16 bytes, and stores them, unless what it gives is sums. Machine code of every GPU we
# build for: no spills, 64 registers at most. And where there is cuobjdump, that machine code
# has no byte access and no atomic either.
#
#     check_kernels.sh PTXAS FILE.ptx...
set -u
ptxas=$1
shift
dir=$(mktemp -d) || exit 2
trap 'rm -rf "$dir"' EXIT
failures=0

for file in "$@"; do
    [ -s "$file" ] || {
        echo "$file: no PTX"
        exit 1
    }
    awk '
    function bad(why) {
        printf "%s:%d: %s: %s: %s\n", FILENAME, FNR, kernel, why, $0
        failures++
    }
    # elem_t and WIDE as they are mangled: <float, true>, <__nv_bfloat16, true>, <__half, true>.
    function finish() {
        if (kernel ~ /I(f|13__nv_bfloat16|6__half)Lb1E/ &&
            (!loads || (!stores && kernel !~ /bias_grad|entropy_scan/)))
            bad("has no access of 16 bytes")
        loads = stores = 0
    }
    /^[ \t]*\/\// { next }
    /\.entry/ {
        finish()
        kernel = $0
        sub(/.*\.entry */, "", kernel)
        sub(/\(.*/, "", kernel)
        kernels++
    }
    /^[ \t]*(@%?!?p?[0-9]*[ \t]*)?(ld|st)[a-z.]*\.global[a-z0-9.]*\.[bsu]8/ { bad("a byte") }
    /(^|[ \t])(atom|red)\./ { bad("atomic") }
    /(ld|st)\.local|\.local / { bad("local memory") }
    /(div|rem)\.[su]64/ { bad("a 64-bit division") }
    /ld\.global[a-z0-9.]*\.v4\.[a-z]32/ { loads++ }
    /st\.global[a-z0-9.]*\.v4\.[a-z]32/ { stores++ }
    END {
        finish()
        printf "%s: %d kernels, %d faults\n", FILENAME, kernels, failures
        exit failures > 0 || kernels == 0
    }
    ' "$file" || failures=$((failures + 1))
done

# Of each kernel the most registers on any of the GPUs.
for file in "$@"; do
    for arch in 80 90 100 120; do
        "$ptxas" -v --gpu-name "sm_$arch" -o "$dir/cubin" "$file" 2>"$dir/log" || {
            cat "$dir/log"
            echo "$file: sm_$arch: ptxas failed"
            failures=$((failures + 1))
        }
        awk '
        /Function properties for/ { kernel = $NF }
        /[1-9][0-9]* bytes spill/ { print kernel, "spills" }
        /Used [0-9]+ registers/ {
            sub(/.*Used /, "")
            print kernel, $1
        }
        ' "$dir/log" >>"$dir/registers"
        command -v cuobjdump >/dev/null || continue
        cuobjdump -sass "$dir/cubin" >"$dir/sass"
        grep -q 'LDG' "$dir/sass" || {
            echo "$file: sm_$arch: no machine code to look at"
            failures=$((failures + 1))
        }
        if grep -E '(LDG|STG)[A-Z0-9.]*\.[US]8|ATOM|RED[.G]|LDL|STL' "$dir/sass"; then
            echo "$file: sm_$arch: a byte, an atomic or local memory in machine code"
            failures=$((failures + 1))
        fi
    done
done
awk '
$2 == "spills" { print $1 ": spills"; failures++; next }
{ most[$1] = $2 > most[$1] ? $2 : most[$1] }
END {
    for (kernel in most) {
        print most[kernel], kernel
        kernels++
        failures += most[kernel] > 64
    }
    printf "%d kernels, %d with spills or more than 64 registers\n", kernels, failures
    exit failures > 0 || kernels == 0
}
' "$dir/registers" || failures=$((failures + 1))
[ "$failures" -eq 0 ]
