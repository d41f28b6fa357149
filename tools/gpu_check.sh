#!/bin/sh
# Everything that only a GPU can show, on a machine with one and nothing but the CUDA toolkit
# and this folder with what was built in it: no CMake, no package manager, no Python.
#
#     gpu_check.sh -c [-b BUILD]                        where it was built, before it travels
#     gpu_check.sh [-b BUILD] [-o DIR] [-w DIR] [-r]    where the GPU is
#
#     -c  carry: copy the shared libraries that the programs and tests need, but for libc's and
#         CUDA's own, to BUILD/lib, where a later call finds them
#     -b  the build folder, of the presets cuda or release (build/cuda, else build/release)
#     -o  where the JSON goes, one document a check and gpu_check.json (bench/results)
#     -w  a folder on a drive for stores, some GiB of them (a temporary one)
#     -r  rehearse: the same lines with the host device and a small model, to try this script
#         where there is no GPU; says nothing about one, and what needs a GPU is not run
#
# Each line is ok, FAIL or "not run"; the last two make it fail, but "not run" not a rehearsal.
# io_uring may be forbidden: then stores go without, which a line says. Memory may be short of
# the largest model: the line says which one was taken.
#
# Exit: 0 no line made it fail; 1 one did; 2 usage, or nothing built; 3 no GPU.
set -u

root=$(cd "$(dirname "$0")/.." && pwd) || exit 2
usage="usage: gpu_check.sh [-b BUILD] [-o DIR] [-w DIR] [-r], or gpu_check.sh -c [-b BUILD]"
build=
out=$root/bench/results
work=
carry=
device=cuda
while getopts cb:o:w:r letter; do
    case $letter in
    c) carry=yes ;;
    b) build=$OPTARG ;;
    o) out=$OPTARG ;;
    w) work=$OPTARG ;;
    r) device=host ;;
    *)
        echo "$usage" >&2
        exit 2
        ;;
    esac
done
[ "$OPTIND" -gt $# ] || {
    echo "$usage" >&2
    exit 2
}
if [ -z "$build" ]; then
    build=$root/build/cuda
    [ -d "$build" ] || build=$root/build/release
fi
train=$build/bin/offload-train
bench=$build/bin/offload-bench
if [ ! -x "$train" ] || [ ! -x "$bench" ]; then
    echo "gpu_check: no programs in $build: build the preset cuda, or give -b BUILD" >&2
    exit 2
fi

# The tests that have cases for a GPU, as the build folder names them.
labelled=$(sed -n 's/^set_tests_properties(\[=\[\([^]]*\)\]=\].* LABELS "\([^"]*\)".*/\1 \2/p' \
    "$build/tests/CTestTestfile.cmake" 2>/dev/null |
    awk '(";" $2 ";") ~ /;cuda;/ { print $1 }')

if [ -n "$carry" ]; then
    set -- "$train" "$bench"
    for test in $labelled; do
        set -- "$@" "$build/tests/$test"
    done
    mkdir -p "$build/lib" || exit 2
    # libc is the one thing that cannot come along: it belongs to the loader and the kernel.
    ldd "$@" | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
        grep -vE '/(libc|libm|libdl|librt|libpthread|libresolv)\.so' |
        while read -r library; do
            cp -L "$library" "$build/lib/" || exit 1
        done || exit 1
    echo "gpu_check: $(find "$build/lib" -name '*.so*' | wc -l) libraries in $build/lib"
    exit 0
fi

# What was carried, and what the toolkit has: cuBLAS is opened by name.
toolkit=${CUDA_HOME:-/usr/local/cuda}
[ ! -d "$build/lib" ] || LD_LIBRARY_PATH=$build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$toolkit/lib64
PATH=$PATH:$toolkit/bin
export LD_LIBRARY_PATH PATH

# A program that does not start is no missing GPU.
"$bench" --version >/dev/null || {
    echo "gpu_check: $bench does not start here: run gpu_check.sh -c where it was built" >&2
    exit 2
}
# The device's own words say why there is none; 3 is what programs answer then.
why=$("$bench" matrix --device $device --size 64 --repetitions 1 2>&1 >/dev/null)
if [ $? -eq 3 ]; then
    echo "gpu_check: no GPU: $why"
    exit 3
fi

made=
[ -n "$work" ] || { work=$(mktemp -d) && made=$work; } || exit 2
mkdir -p "$out" "$work/gpu_check" || exit 2
trap 'rm -rf "$work/gpu_check"; [ -z "$made" ] || rmdir "$made"' EXIT
trap 'exit 1' INT TERM
here=$work/gpu_check
text=$here/text
log=$here/log
lines=0
bad=0
results=

# note NAME STATUS DETAIL: one line here, one member in gpu_check.json.
note() {
    echo "$2 $1: $3"
    lines=$((lines + 1))
    case $2 in
    ok) ;;
    "not run") [ $device = host ] || bad=$((bad + 1)) ;;
    *) bad=$((bad + 1)) ;;
    esac
    detail=$(printf '%s' "$3" | tr '"\\\n\t' "'/  ")
    results="$results${results:+,
}    \"$1\": {\"status\": \"$2\", \"detail\": \"$detail\"}"
}

# verdict NAME DETAIL CONDITION: ok if awk finds that the condition holds.
verdict() {
    if awk "BEGIN { exit !($3) }" 2>"$log"; then
        note "$1" ok "$2"
    else
        note "$1" FAIL "$2; wanted: $3"
    fi
}

# check NAME COMMAND...: green if the command is.
check() {
    name=$1
    shift
    "$@" >"$log" 2>&1
    code=$?
    if [ $code -eq 0 ]; then
        note "$name" ok "$(tail -n 1 "$log")"
    else
        note "$name" FAIL "exit $code: $(tail -n 3 "$log" | tr '\n' ' ')"
    fi
    return $code
}

# only_gpu NAME COMMAND...: check, where there is a GPU.
only_gpu() {
    if [ $device = cuda ]; then
        check "$@"
    else
        note "$1" "not run" "a rehearsal has no GPU"
    fi
}

# number FILE KEY: of the first member of that name; nan where there is none. Documents of the
# programs are one line without blanks.
number() {
    value=$(grep -o "\"$2\":[-+.0-9eE]*" "$1" 2>/dev/null | head -n 1 | cut -d: -f2)
    echo "${value:-nan}"
}

# median FILE OBJECT: of the object's first member "median".
median() {
    value=$(grep -o "\"$2\":{\"median\":[-+.0-9eE]*" "$1" 2>/dev/null | head -n 1 |
        sed 's/.*://')
    echo "${value:-nan}"
}

# A text in which there is something to learn.
awk 'BEGIN { for (i = 0; i < 4000; i++)
    print "line " i " of " i * i % 97 " lines, and " i % 13 " more" }' >"$text" || exit 2

# Where io_uring is forbidden, stores go without.
allow=
if "$bench" io --store "$work" --size 32M --repetitions 1 >"$log" 2>&1; then
    note io_uring ok "$(tail -n 1 "$log")"
else
    allow="--allow threads-io --io threads"
    note io_uring ok "not to be had here, stores use threads: $(tail -n 1 "$log")"
fi

# Tests. Skipping is failing.
export STRATA_TEST_FAIL_ON_SKIP=1
[ -n "$labelled" ] ||
    note tests FAIL "no test labelled cuda in $build/tests/CTestTestfile.cmake"
for test in $labelled; do
    only_gpu "$test" "$build/tests/$test"
done
for test in $labelled; do
    if ! command -v compute-sanitizer >/dev/null; then
        note "sanitizer_$test" "not run" "no compute-sanitizer in PATH or $toolkit/bin"
    else
        only_gpu "sanitizer_$test" compute-sanitizer --error-exitcode 9 --target-processes all \
            "$build/tests/$test"
    fi
done

# Copies beside a bare pinned copy, each way. The host device's copy is memcpy: no share of it
# is asked for.
size=1G
least=0.9
[ $device = cuda ] || size=8M least=0
check copy "$bench" copy --device $device --size $size --least $least --store "$work" \
    -o "$out/copy.json"

# The matrix rate, of which steps have a share.
check matrix_rate "$bench" matrix --device $device -o "$out/matrix.json"
rate=$(median "$out/matrix.json" bf16_flops_per_s)
# A share of more says that one of the two was measured wrongly; cores that others use, too.
most=1.05
[ $device = cuda ] || most=1000

# run NAME OPTION...: a short training run; its JSON goes to $out/NAME.json, its log to
# $here/NAME.jsonl.
run() {
    name=$1
    shift
    # shellcheck disable=SC2086
    check "$name" train_to "$out/$name.json" --data "$text" --quiet $allow \
        --log "$here/$name.jsonl" "$@"
}

train_to() {
    document=$1
    shift
    "$train" --json "$@" >"$document" && echo "$(wc -l <"$here/$name.jsonl") steps, loss" \
        "$(number "$document" first_loss) to $(number "$document" last_loss)"
}

cat >"$here/small.json" <<'CONFIG'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 256,
 "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8,
 "num_key_value_heads": 4, "intermediate_size": 688, "rms_norm_eps": 1e-5,
 "max_position_embeddings": 2048, "hidden_act": "silu", "tie_word_embeddings": false,
 "initializer_range": 0.02, "rope_theta": 10000.0}
CONFIG
sed 's/"num_hidden_layers": 4/"num_hidden_layers": 24/' "$here/small.json" >"$here/deep.json"

# small_steps NAME OPTION...: some steps of the small model.
steps=20
[ $device = cuda ] || steps=4
small_steps() {
    name=$1
    shift
    run "$name" --model "$here/small.json" --seq 128 --batch 8 --steps $steps --lr 1e-3 "$@"
}

# Host against GPU, fp32: the loss of each step.
small_steps parity_host --compute-dtype fp32 --device host
small_steps parity_cuda --compute-dtype fp32 --device $device
for side in host cuda; do
    sed -n 's/.*"loss": *\([-0-9.e+]*\).*/\1/p' "$here/parity_$side.jsonl" >"$here/losses_$side"
done
worst=$(paste "$here/losses_host" "$here/losses_cuda" |
    awk '{ d = $1 - $2; d = d < 0 ? -d : d; if (d > m) m = d; n += NF == 2 }
         END { print n == '$steps' ? m + 0 : "nan" }')
verdict parity "losses of $steps steps differ by at most $worst" "$worst <= 1e-5"

# One state, wherever things rest: all in the device, in host RAM, on NVMe, and each apart; with
# and without overlap; whatever the tile's size.
same=
hashes() {
    name=place_$1
    shift
    small_steps "$name" --device $device --hash-state "$@"
    hash=$(sed -n 's/.*"state_hash": *"\([0-9a-f]*\)".*/\1/p' "$here/$name.jsonl" | tail -n 1)
    same="$same ${hash:-none}"
}
rest() {
    echo "--params $1 --grads $2 --states $3 --stash $4"
}
mkdir -p "$here/store_a" "$here/store_b" || exit 1
# shellcheck disable=SC2046
{
    hashes device $(rest device device device device)
    hashes host $(rest host host host host)
    hashes host_in_order $(rest host host host host) --no-overlap --tile 32768
    hashes nvme $(rest nvme nvme nvme nvme) --store "$here/store_a" --durability none
    hashes mixed $(rest device host nvme host) --store "$here/store_b" --durability process
}
different=$(echo "$same" | tr ' ' '\n' | sed '/^$/d' | sort -u)
verdict placement "state hashes of 5 placements: $(echo "$different" | tr '\n' ' ')" \
    "\"$different\" ~ /^[0-9a-f]+\$/"

# step NAME OPTION...: the trainer's step, its share of the matrix rate. A step is 8 operations
# a parameter and token (docs/performance.md); attention's own come on top and are left out.
step() {
    name=$1
    shift
    run "$name" --device $device "$@" || return
    params=$(number "$out/$name.json" param_count)
    tail -n 1 "$here/$name.jsonl" >"$here/last"
    speed=$(number "$here/last" tokens_per_s)
    share=$(awk "BEGIN { print 8 * $params * $speed / $rate }")
    verdict "${name}_share" "$speed tokens/s at the last step, $share of the matrix rate" \
        "$share > 0 && $share <= $most"
}

# A step of a real model, with its trace.
if [ $device = cuda ]; then
    step step_1b --model llama-1b --seq 1024 --batch 16 --micro-batch 4 --steps 4 \
        --trace "$out/step_1b.trace.json"
else
    step step_1b --model "$here/small.json" --seq 128 --batch 4 --steps 4 \
        --trace "$out/step_1b.trace.json"
fi
spans=$(grep -c '"ph":"X".*"step":3' "$out/step_1b.trace.json" 2>/dev/null)
verdict trace "${spans:-0} spans of the last step in $out/step_1b.trace.json" "${spans:-0} > 10"

# tenfold NAME DEVICE_MEM OPTION...: a training state of at least 10 times what the device may
# hold, and what it held at most.
tenfold() {
    name=$1
    limit=$2
    shift 2
    step "$name" --device-mem "$limit" "$@" || return
    state=$(number "$out/$name.json" state_bytes)
    peak=$(number "$out/$name.json" device_peak_bytes)
    verdict "${name}_tenfold" "training state $state bytes, device held $peak of $limit" \
        "$limit > 0 && $peak <= $limit && $state >= 10 * $limit"
}

# bytes MIB: what a size in MiB is.
bytes() {
    echo $(($1 * 1048576))
}

# The largest model that host RAM holds, and one that is 10 times a device of 8 GiB only where
# that is the 7B one; so a 1B model with a small device shows the same on any machine.
ram_gib=$(awk '/MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
if [ $device = cuda ]; then
    tenfold small_device "$(bytes 1700)" --model llama-1b --seq 512 --batch 4 --micro-batch 1 \
        --steps 3
    if [ "$ram_gib" -ge 104 ]; then
        tenfold largest_7b "$(bytes 8192)" --model llama-7b --seq 1024 --batch 8 \
            --micro-batch 2 --steps 3
    else
        note largest_7b ok "host RAM has $ram_gib GiB, 104 are needed: llama-3b is taken"
        step largest_3b --device-mem 8G --model llama-3b --seq 1024 --batch 16 \
            --micro-batch 2 --steps 3
    fi
else
    tenfold small_device "$(bytes 24)" --model "$here/deep.json" --seq 64 --batch 2 \
        --micro-batch 1 --steps 3
    note largest_7b "not run" "a rehearsal has no GPU"
fi

{
    printf '{\n  "program": "gpu_check",\n  "device": "%s",\n' $device
    printf '  "gpu": "%s",\n' "$(nvidia-smi --query-gpu=name,driver_version,memory.total \
        --format=csv,noheader 2>/dev/null | head -n 1)"
    printf '  "kernel": "%s",\n  "ram_gib": %d,\n' "$(uname -r)" "$ram_gib"
    printf '  "date": "%s",\n  "lines": %d,\n  "failures": %d,\n' \
        "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$lines" "$bad"
    printf '  "results": {\n%s\n  }\n}\n' "$results"
} >"$out/gpu_check.json" || exit 1
echo "$lines lines, $bad of them fail it; documents in $out"
[ "$bad" -eq 0 ]
