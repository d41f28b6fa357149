#!/bin/sh
# Everything that only a GPU can show, on a machine with one and nothing but the CUDA toolkit
# and this folder with what was built in it: no CMake, no package manager.
#
#     gpu_check.sh [-b BUILD] [-o DIR] [-w DIR]
#
#     -b  the build folder, of the presets cuda or release (build/cuda, else build/release)
#     -o  where the JSON goes, one document a check and gpu_check.json (bench/results)
#     -w  a folder on a drive for stores, some GiB of them (a temporary one)
#
# Exit: 0 all green; 1 a check failed; 2 usage; 3 no GPU. io_uring may be forbidden and memory
# short: then it goes on without, and with smaller models, and says so.
set -u

root=$(cd "$(dirname "$0")/.." && pwd) || exit 2
build=
out=$root/bench/results
work=
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || {
        echo "usage: gpu_check.sh [-b BUILD] [-o DIR] [-w DIR]" >&2
        exit 2
    }
    case $1 in
    -b) build=$2 ;;
    -o) out=$2 ;;
    -w) work=$2 ;;
    *)
        echo "usage: gpu_check.sh [-b BUILD] [-o DIR] [-w DIR]" >&2
        exit 2
        ;;
    esac
    shift 2
done
if [ -z "$build" ]; then
    build=$root/build/cuda
    [ -d "$build" ] || build=$root/build/release
fi
train=$build/bin/offload-train
bench=$build/bin/offload-bench
[ -x "$train" ] && [ -x "$bench" ] || {
    echo "gpu_check: no programs in $build: build the preset cuda, or give -b BUILD" >&2
    exit 2
}

# The device's own words say why there is none; 3 is what programs answer then.
why=$("$bench" copy --device cuda --size 1M --repetitions 1 --store /tmp 2>&1 >/dev/null)
code=$?
if [ $code -eq 3 ]; then
    echo "gpu_check: no GPU: $why"
    exit 3
fi

[ -n "$work" ] || work=$(mktemp -d) || exit 2
mkdir -p "$out" "$work" || exit 2
trap 'rm -rf "$work/gpu_check"' EXIT
mkdir -p "$work/gpu_check"
text=$work/gpu_check/text
failures=0
results=

# note NAME STATUS DETAIL: one line here, one member in gpu_check.json.
note() {
    echo "$2 $1: $3"
    [ "$2" != FAIL ] || failures=$((failures + 1))
    detail=$(printf '%s' "$3" | tr '"\\\n' "'/ ")
    results="$results${results:+,
}  \"$1\": {\"status\": \"$2\", \"detail\": \"$detail\"}"
}

# check NAME COMMAND...: green if the command is.
check() {
    name=$1
    shift
    if "$@" >"$work/gpu_check/log" 2>&1; then
        note "$name" ok "$(tail -n 1 "$work/gpu_check/log")"
    else
        code=$?
        note "$name" FAIL "exit $code: $(tail -n 3 "$work/gpu_check/log" | tr '\n' ' ')"
    fi
}

# A text in which there is something to learn.
i=0
while [ $i -lt 4000 ]; do
    echo "line $i of $((i * i % 97)) lines, and $((i % 13)) more"
    i=$((i + 1))
done >"$text"

# Where io_uring is forbidden, stores go without; the log says so.
allow=
"$bench" io --store "$work" --size 32M --repetitions 1 >/dev/null 2>&1 ||
    allow="--allow threads-io --io threads"
[ -z "$allow" ] || note io_uring ok "not to be had here: stores use threads"

# Tests. Skipping is failing.
export STRATA_TEST_FAIL_ON_SKIP=1
for test in offload_test_device_cuda optim_test_cuda; do
    check "$test" "$build/tests/$test"
done
if command -v compute-sanitizer >/dev/null; then
    check sanitizer compute-sanitizer --error-exitcode 9 --target-processes all \
        "$build/tests/optim_test_cuda"
else
    note sanitizer absent "compute-sanitizer is not in PATH"
fi

# Copies beside a bare pinned copy.
check copy "$bench" copy --device cuda --size 1G --store "$work" -o "$out/copy.json"

# run NAME OPTION...: a short training run; its JSON goes to $out/NAME.json.
run() {
    name=$1
    shift
    # shellcheck disable=SC2086
    check "$name" train_to "$out/$name.json" --data "$text" --quiet $allow \
        --log "$work/gpu_check/$name.jsonl" "$@"
}

train_to() {
    document=$1
    shift
    "$train" --json "$@" >"$document"
}

cat >"$work/gpu_check/small.json" <<'CONFIG'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 256,
 "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8,
 "num_key_value_heads": 4, "intermediate_size": 688, "rms_norm_eps": 1e-5,
 "max_position_embeddings": 2048, "hidden_act": "silu", "tie_word_embeddings": false,
 "initializer_range": 0.02, "rope_theta": 10000.0}
CONFIG
small="--model $work/gpu_check/small.json --seq 128 --batch 8 --steps 20 --lr 1e-3"

loss_of() {
    sed -n 's/.*"loss": *\([-0-9.e+]*\).*/\1/p' "$1"
}

# Host against GPU, fp32: the loss of each of 20 steps.
run parity_host $small --compute-dtype fp32 --device host
run parity_cuda $small --compute-dtype fp32 --device cuda
loss_of "$work/gpu_check/parity_host.jsonl" >"$work/gpu_check/a"
loss_of "$work/gpu_check/parity_cuda.jsonl" >"$work/gpu_check/b"
worst=$(paste "$work/gpu_check/a" "$work/gpu_check/b" |
    awk '{ d = $1 - $2; d = d < 0 ? -d : d; if (d > m) m = d; n++ }
         END { if (n == 20) print m + 0; else print "lines: " n + 0 }')
case $worst in
lines*) note parity FAIL "a log is short: $worst" ;;
*) if awk "BEGIN { exit !($worst <= 1e-5) }"; then
    note parity ok "losses of 20 steps differ by at most $worst"
else
    note parity FAIL "losses of 20 steps differ by up to $worst, 1e-5 is allowed"
fi ;;
esac

# One state, wherever things rest.
hash_of() {
    sed -n 's/.*"state_hash": *"\([0-9a-f]*\)".*/\1/p' "$1" | tail -n 1
}
first=
equal=yes
for place in device host nvme; do
    store=
    [ $place != nvme ] || store="--store $work/gpu_check/store --durability none"
    # shellcheck disable=SC2086
    run "place_$place" $small --device cuda --states $place --params $place --grads $place \
        $store --hash-state
    hash=$(hash_of "$work/gpu_check/place_$place.jsonl")
    [ -n "$first" ] || first=$hash
    [ -n "$hash" ] && [ "$hash" = "$first" ] || equal=no
done
if [ $equal = yes ]; then
    note placement ok "one state hash: $first"
else
    note placement FAIL "states in device, host and nvme end with different hashes"
fi

# A step of a real model, and of the largest that host RAM holds; 8 GiB of the device.
run step_1b --model llama-1b --device cuda --seq 1024 --batch 16 --micro-batch 4 --steps 4
ram_gib=$(awk '/MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
largest=llama-3b
[ "$ram_gib" -lt 104 ] || largest=llama-7b
run largest --model $largest --device cuda --device-mem 8G --seq 1024 --batch 16 \
    --micro-batch 2 --steps 3

{
    printf '{\n  "program": "gpu_check",\n  "build": "%s",\n' "$build"
    printf '  "gpu": "%s",\n' "$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null |
        head -n 1)"
    printf '  "date": "%s",\n%s\n}\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$results"
} >"$out/gpu_check.json"
echo "$failures failures; documents in $out"
[ $failures -eq 0 ]
