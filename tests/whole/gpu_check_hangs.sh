#!/bin/sh
# A check of tools/gpu_check.sh that hangs, and one that fails, lose themselves and nothing
# else: every other check is run, has its verdict, and the results say which were lost.
#
#     gpu_check_hangs.sh GPU_CHECK
#
# The programs are scripts: they end at once, but `copy` hangs and `check` fails.
set -eu
script=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/build/bin" "$work/build/tests" "$work/out"
cat >"$work/build/bin/offload-bench" <<'BENCH'
#!/bin/sh
case $1 in
check) echo "a cause" >&2 && exit 4 ;;
copy) sleep 1000 ;;
esac
BENCH
cat >"$work/build/bin/offload-train" <<'TRAIN'
#!/bin/sh
while [ "$1" != --log ]; do shift; done
echo '{"loss":1,"state_hash":"0f","tokens_per_s":1}' >"$2"
echo '{"first_loss":1,"last_loss":1}'
TRAIN
chmod +x "$work"/build/bin/*
touch "$work/build/tests/CTestTestfile.cmake"

code=0
sh "$script" right -r -m 2 -b "$work/build" -o "$work/out" >"$work/said" || code=$?
results=$work/out/gpu_right.jsonl
fail() {
    echo "gpu_check_hangs: $1" >&2
    cat "$work/said" "$results" >&2
    exit 1
}
has() {
    grep -q "^{\"check\":\"$1\",\"status\":\"$2\".*$3" "$results" || fail "no $2 of $1 with $3"
}
[ $code -eq 1 ] || fail "exit $code, wanted 1"
has machine FAIL "exit 4: a cause"
has copy FAIL "no end within 2 s"
has parity_fp32 FAIL nan # of the losses there is one
has place_mixed ok "loss 1 to 1"
has placement ok 0f
tar -tzf "$work/out/gpu_right.tar.gz" | grep -q logs/copy || fail "no log of copy"
! grep -v '^{.*}$' "$results" || fail "a line that is no document"

# The call's own limit: what is left is not run, and says so.
sh "$script" right -r -t 4 -b "$work/build" -o "$work/out" >"$work/said" || true
has copy "not run" "the call's 4 s are over"
has placement FAIL none
