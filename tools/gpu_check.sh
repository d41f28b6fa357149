#!/bin/sh
# Everything that only a GPU can show, in two calls of some minutes on a machine that is lent:
# with a GPU and the CUDA toolkit, perhaps with PyTorch, without a package manager or CMake.
#
#     gpu_check.sh -c [-b BUILD] [-a ARCHIVE]           where it was built: the archive
#     gpu_check.sh right [-a ARCHIVE | -b BUILD] ...    where the GPU is: is it right?
#     gpu_check.sh fast [-a ARCHIVE | -b BUILD] ...     is it fast?
#
#     -a  the archive (BUILD/gpu_check.tar.gz): programs and tests without debug information,
#         the libraries they need but for libc's and CUDA's own, and this script; at most 40 MiB
#     -b  the build folder, of the presets cuda or release (build/cuda, else build/release)
#     -o  where the results go (bench/results): gpu_CALL.jsonl, and the logs in gpu_CALL.tar.gz
#     -w  a folder on a drive for stores, some GiB of them (a temporary one)
#     -t  seconds (S) for the whole call (right 270, fast 300); with more, each check has more
#     -m  seconds that no check may take longer than (each has its own)
#     -r  rehearse: the same checks with the host device and small models, where there is no
#         GPU; says nothing about one, and what needs a GPU is not run
#
# Each check has a limit of time and a log of its own, and its verdict is written at once: one
# that hangs loses itself and nothing else. ok, FAIL or "not run"; the last two make the call
# fail, but "not run" not a rehearsal. gpu_CALL.jsonl has a document a line: the verdicts, and
# what the programs measured.
#
# cuBLASLt and cuDNN are looked for in the toolkit and in the packages of PyTorch.
#
# Exit: 0 nothing made it fail; 1 something did; 2 usage, or nothing built; 3 no GPU.
set -u

here=$(cd "$(dirname "$0")" && pwd) || exit 2
root=$(dirname "$here")
usage="usage: gpu_check.sh -c|right|fast [-a ARCHIVE] [-b BUILD] [-o DIR] [-w DIR]
    [-t S] [-m S] [-r]"
archive_most_mib=40
call=
build=
archive=
out=$root/bench/results
work=
limit=
check_most=
device=cuda
case ${1:-} in
right | fast)
    call=$1
    shift
    ;;
esac
while getopts ca:b:o:w:t:m:r letter; do
    case $letter in
    c) call=carry ;;
    a) archive=$OPTARG ;;
    b) build=$OPTARG ;;
    o) out=$OPTARG ;;
    w) work=$OPTARG ;;
    t) limit=$OPTARG ;;
    m) check_most=$OPTARG ;;
    r) device=host ;;
    *) call= && break ;;
    esac
done
if [ -z "$call" ] || [ "$OPTIND" -le $# ]; then
    echo "$usage" >&2
    exit 2
fi
if [ -z "$build" ]; then
    build=$root/build/cuda
    [ -d "$build" ] || build=$root/build/release
fi

# The tests that have cases for a GPU, as a build folder names them.
labelled() {
    sed -n 's/^set_tests_properties(\[=\[\([^]]*\)\]=\].* LABELS "\([^"]*\)".*/\1 \2/p' \
        "$1/tests/CTestTestfile.cmake" 2>/dev/null |
        awk '(";" $2 ";") ~ /;cuda;/ { print $1 }'
}

built() {
    [ -x "$1/bin/offload-train" ] && [ -x "$1/bin/offload-bench" ] && return
    echo "gpu_check: no programs in $1: build the preset cuda, or give -b BUILD" >&2
    exit 2
}

# The archive: a build folder in small.
if [ "$call" = carry ]; then
    built "$build"
    archive=${archive:-$build/gpu_check.tar.gz}
    small=$(mktemp -d) || exit 2
    trap 'rm -rf "$small"' EXIT
    mkdir "$small/bin" "$small/tests" "$small/lib" "$small/tools" || exit 2
    for name in bin/offload-train bin/offload-bench $(labelled "$build" | sed 's,^,tests/,'); do
        strip -o "$small/$name" "$build/$name" || exit 2
    done
    cp "$build/tests/CTestTestfile.cmake" "$small/tests/" || exit 2
    cp "$here"/gpu_* "$small/tools/" || exit 2
    # libc is the one thing that cannot come along: it belongs to the loader and the kernel.
    ldd "$small"/bin/* "$small"/tests/[!C]* | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' |
        sort -u | grep -vE '/(libc|libm|libdl|librt|libpthread|libresolv)\.so' |
        while read -r library; do
            strip -o "$small/lib/$(basename "$library")" "$library" || exit 1
        done || exit 2
    tar -czf "$archive" -C "$small" . || exit 2
    bytes=$(wc -c <"$archive")
    echo "gpu_check: $archive: $((bytes >> 20)) MiB, $(find "$small/lib" -type f | wc -l)" \
        "libraries, $(labelled "$small" | wc -l) tests"
    [ "$bytes" -le $((archive_most_mib << 20)) ] || {
        echo "gpu_check: more than $archive_most_mib MiB" >&2
        exit 1
    }
    exit 0
fi

began=$(date +%s)
usual=270
[ "$call" = right ] || usual=300
limit=${limit:-$usual}
made=
[ -n "$work" ] || { work=$(mktemp -d) && made=$work; } || exit 2
scratch=$work/gpu_check
rm -rf "$scratch"
mkdir -p "$out" "$scratch/logs" || exit 2
out=$(cd "$out" && pwd) || exit 2
results=$out/gpu_$call.jsonl
lines=0
bad=0
finish() {
    tar -czf "$out/gpu_$call.tar.gz" -C "$scratch" logs 2>/dev/null
    rm -rf "$scratch"
    [ -z "$made" ] || rmdir "$made"
}
trap finish EXIT
trap 'exit 1' INT TERM

if [ -n "$archive" ]; then
    build=$scratch/build
    mkdir "$build" && tar -xzf "$archive" -C "$build" || exit 2
fi
built "$build"
train=$build/bin/offload-train
bench=$build/bin/offload-bench
toolkit=${CUDA_HOME:-/usr/local/cuda}
PATH=$PATH:$toolkit/bin
python=$(command -v python3 || echo false)

# Folders with libraries that are opened by name. Only our own programs get them: a profiler and
# a sanitizer have libraries of their own.
packages=$("$python" -c 'import site, sys
print("\n".join(site.getsitepackages() + [p for p in sys.path if p.endswith("-packages")]))' \
    2>/dev/null | sort -u)
libraries=$build/lib:$toolkit/lib64
for package in $packages; do
    for folder in "$package"/nvidia/*/lib; do
        [ ! -d "$folder" ] || libraries=$libraries:$folder
    done
done
ours() {
    LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} "$@"
}

# note NAME STATUS SECONDS DETAIL: a line here, a document in the results.
note() {
    echo "$2 $1 ($3 s): $4"
    lines=$((lines + 1))
    case $2 in
    ok) ;;
    "not run") [ $device = host ] || bad=$((bad + 1)) ;;
    *) bad=$((bad + 1)) ;;
    esac
    detail=$(printf '%s' "$4" | tr '"\\\n\t' "'/  " | tr -d '\000-\037')
    printf '{"check":"%s","status":"%s","seconds":%s,"detail":"%s"}\n' "$1" "$2" "$3" \
        "$detail" >>"$results"
}

# verdict NAME DETAIL CONDITION: ok if awk finds that the condition holds. To awk a nan would be
# a variable without a value.
verdict() {
    if [ "${3#*nan}" = "$3" ] && awk "BEGIN { exit !($3) }" 2>/dev/null; then
        note "$1" ok 0 "$2"
    else
        note "$1" FAIL 0 "$2; wanted: $3"
    fi
}

# last_line LOG: what a check ended with; of a training run's document, its losses.
last_line() {
    case $(tail -n 1 "$1") in
    '{'*first_loss*) echo "loss $(number "$1" first_loss) to $(number "$1" last_loss)" ;;
    *) tail -n 1 "$1" | cut -c1-300 ;;
    esac
}

# check NAME SECONDS COMMAND...: ok if the command is, within its limit and the call's.
check() {
    name=$1
    most=$2
    shift 2
    log=$scratch/logs/$name
    start=$(date +%s)
    left=$((began + limit - start))
    if [ $left -lt 5 ]; then
        note "$name" "not run" 0 "the call's $limit s are over"
        return 1
    fi
    [ "$limit" -le $usual ] || most=$((most * limit / usual))
    [ -z "$check_most" ] || [ "$most" -le "$check_most" ] || most=$check_most
    [ "$most" -le $left ] || most=$left
    LD_LIBRARY_PATH=$libraries timeout -k 5 "$most" "$@" >"$log" 2>"$log.err"
    code=$?
    seconds=$(($(date +%s) - start))
    case $code in
    0) note "$name" ok $seconds "$(last_line "$log")" ;;
    124 | 137) note "$name" FAIL $seconds "no end within $most s" ;;
    *) note "$name" FAIL $seconds "exit $code: $(tail -q -n 3 "$log.err" "$log" | tr '\n' ' ' |
        cut -c1-500)" ;;
    esac
    return $code
}

# only_gpu NAME SECONDS COMMAND...: check, where there is a GPU.
only_gpu() {
    if [ $device = cuda ]; then
        check "$@"
    else
        note "$1" "not run" 0 "a rehearsal has no GPU"
    fi
}

# Without the libraries of `ours` around the tool itself. with_tool TOOL... -- PROGRAM...
with_tool() {
    tool=
    while [ "$1" != -- ]; do
        tool="$tool $1"
        shift
    done
    shift
    # shellcheck disable=SC2086
    env -u LD_LIBRARY_PATH $tool env LD_LIBRARY_PATH="$libraries" "$@"
}

# measure NAME SECONDS SUBCOMMAND...: an offload-bench command, its document to the results.
measure() {
    name=$1
    most=$2
    shift 2
    check "$name" "$most" "$bench" "$@" -o "$scratch/$name.json" || return
    tr -d '\n' <"$scratch/$name.json" >>"$results"
    echo >>"$results"
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

# A program that does not start is no missing GPU; the device's own words say why there is none,
# and 3 is what programs answer then.
ours "$bench" --version >/dev/null || {
    echo "gpu_check: $bench does not start here: run gpu_check.sh -c where it was built" >&2
    exit 2
}
why=$(ours "$bench" matrix --device $device --size 64 --repetitions 1 2>&1 >/dev/null)
if [ $? -eq 3 ]; then
    echo "gpu_check: no GPU: $why"
    exit 3
fi
gpu=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader \
    2>/dev/null | head -n 1)
ram_gib=$(awk '/MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo)
printf '{"program":"gpu_check","call":"%s","device":"%s","gpu":"%s","kernel":"%s",' \
    "$call" $device "$gpu" "$(uname -r)" >"$results"
printf '"cores":%d,"ram_gib":%d,"date":"%s"}\n' "$(nproc)" "$ram_gib" \
    "$(date -u +%Y-%m-%dT%H:%M:%SZ)" >>"$results"

# A text in which there is something to learn; a small model, a deeper one, and 7B's first eight
# layers.
text=$scratch/text
awk 'BEGIN { for (i = 0; i < 4000; i++)
    print "line " i " of " i * i % 97 " lines, and " i % 13 " more" }' >"$text" || exit 2
# config NAME VOCABULARY HIDDEN LAYERS HEADS KEY_HEADS FFN POSITIONS
config() {
    cat >"$scratch/$1.json" <<CONFIG
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": $2,
 "hidden_size": $3, "num_hidden_layers": $4, "num_attention_heads": $5,
 "num_key_value_heads": $6, "intermediate_size": $7, "max_position_embeddings": $8,
 "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": false,
 "initializer_range": 0.02, "rope_theta": 10000.0}
CONFIG
}
config small 256 256 4 4 2 688 2048
config deep 256 256 24 4 2 688 2048
config eight 32000 4096 8 32 32 11008 4096

# Where io_uring is forbidden, stores go without.
allow=
if ours "$bench" io --store "$work" --size 32M --repetitions 1 >"$scratch/logs/io" 2>&1; then
    note io_uring ok 0 "$(tail -n 1 "$scratch/logs/io")"
else
    allow="--allow threads-io --io threads"
    note io_uring ok 0 "not to be had here, stores use threads: $(tail -n 1 "$scratch/logs/io")"
fi

# run NAME SECONDS OPTION...: a short training run; its log is $scratch/NAME.jsonl, its document
# $scratch/NAME.json and in the results.
run() {
    name=$1
    most=$2
    shift 2
    # shellcheck disable=SC2086
    check "$name" "$most" "$train" --json --data "$text" --quiet $allow \
        --log "$scratch/$name.jsonl" "$@" || return
    cp "$scratch/logs/$name" "$scratch/$name.json"
    cat "$scratch/$name.json" >>"$results"
}

# small_steps NAME STEPS OPTION...: some steps of the small model.
batch=8
[ $device = cuda ] || batch=1
small_steps() {
    name=$1
    steps=$2
    shift 2
    run "$name" 40 --model "$scratch/small.json" --seq 128 --batch $batch --steps "$steps" \
        --lr 1e-3 "$@"
}

# worst_of NAME NAME STEPS: the largest difference of the losses of the first steps.
worst_of() {
    for side in "$1" "$2"; do
        sed -n 's/.*"loss": *\([-0-9.e+]*\).*/\1/p' "$scratch/$side.jsonl" 2>/dev/null |
            head -n "$3" >"$scratch/losses_$side"
    done
    paste "$scratch/losses_$1" "$scratch/losses_$2" |
        awk '{ d = $1 - $2; d = d < 0 ? -d : d; if (d > m) m = d; n += NF == 2 }
             END { print n == '"$3"' ? m + 0 : "nan" }'
}

# Losses of host and GPU. In fp32 sums of another order are 5e-7 apart at step 10; the
# difference grows, to some 4e-5 at step 18.
parity() {
    steps=20
    [ $device = cuda ] || steps=10
    small_steps parity_host "$steps" --compute-dtype fp32 --device host
    small_steps parity_gpu "$steps" --compute-dtype fp32 --device $device
    worst=$(worst_of parity_host parity_gpu 10)
    verdict parity_fp32 "losses of 10 steps differ by at most $worst" "$worst <= 1e-5"
    if [ $device = cuda ]; then
        worst=$(worst_of parity_host parity_gpu "$steps")
        verdict parity_fp32_long "of $steps steps by $worst" "$worst <= 1e-3"
    fi
    small_steps parity_host_bf16 10 --device host
    small_steps parity_gpu_bf16 10 --device $device
    worst=$(worst_of parity_host_bf16 parity_gpu_bf16 10)
    verdict parity_bf16 "losses of 10 steps differ by at most $worst" "$worst <= 1e-2"
}

# One state, wherever things rest: all in the device, in host RAM, on NVMe, and each apart; with
# and without overlap; whatever the tile's size; and a second time.
hashes() {
    name=place_$1
    shift
    small_steps "$name" 4 --device $device --hash-state "$@"
    hash=$(sed -n 's/.*"state_hash": *"\([0-9a-f]*\)".*/\1/p' "$scratch/$name.jsonl" \
        2>/dev/null | tail -n 1)
    same="$same ${hash:-none}"
}
rest() {
    echo "--params $1 --grads $2 --states $3 --stash $4"
}
placement() {
    same=
    mkdir -p "$scratch/store_a" "$scratch/store_b" || exit 1
    # shellcheck disable=SC2046
    {
        hashes device $(rest device device device device)
        hashes again $(rest device device device device)
        hashes host $(rest host host host host)
        hashes in_order $(rest host host host host) --no-overlap --tile 32768
        hashes nvme $(rest nvme nvme nvme nvme) --store "$scratch/store_a" --durability none
        hashes mixed $(rest device host nvme host) --store "$scratch/store_b" \
            --durability process
    }
    different=$(echo "$same" | tr ' ' '\n' | sed '/^$/d' | sort -u)
    verdict placement "state hashes of 6 runs: $(echo "$different" | tr '\n' ' ')" \
        "\"$different\" ~ /^[0-9a-f]+\$/"
}

# Skipping is failing.
tests() {
    STRATA_TEST_FAIL_ON_SKIP=1
    export STRATA_TEST_FAIL_ON_SKIP
    names=$(labelled "$build")
    [ -n "$names" ] || note tests FAIL 0 "no test labelled cuda in $build"
    for test in $names; do
        only_gpu "$test" 60 "$build/tests/$test"
    done
}

sanitizer() {
    for test in $(labelled "$build"); do
        if ! command -v compute-sanitizer >/dev/null; then
            note "sanitizer_$test" "not run" 0 "no compute-sanitizer in PATH or $toolkit/bin"
        else
            only_gpu "sanitizer_$test" 60 with_tool compute-sanitizer --error-exitcode 9 \
                --target-processes all -- "$build/tests/$test"
        fi
    done
}

# share NAME: the trainer's model FLOPs, six a weight and token, over the matrix rate.
share() {
    params=$(number "$scratch/$1.json" param_count)
    speed=$(tail -n 1 "$scratch/$1.jsonl" 2>/dev/null | grep -o '"tokens_per_s":[0-9.]*' |
        cut -d: -f2)
    part=$(awk "BEGIN { print 6 * $params * ${speed:-0} / $rate }" 2>/dev/null)
    verdict "${1}_share" \
        "${speed:-no} tokens/s at the last step, ${part:-no} of the matrix rate" \
        "${part:-0} > 0 && ${part:-0} <= $share_most"
}

# Operators of a layer, beside the roofline; of PyTorch, beside ours.
operators() {
    if [ $device = cuda ]; then
        measure ops 60 ops --device cuda --model llama-7b --seq 4096 --tokens 16384
        if "$python" -c 'import torch' 2>/dev/null; then
            check torch 60 "$python" "$here/gpu_torch.py" &&
                cat "$scratch/logs/torch" >>"$results"
        else
            note torch "not run" 0 "no PyTorch here"
        fi
    else
        measure ops 30 ops --device host --model "$scratch/small.json" --seq 128 --tokens 256
        note torch "not run" 0 "a rehearsal has no GPU"
    fi
}

profile() {
    if ! command -v ncu >/dev/null; then
        note profile "not run" 0 "no ncu in PATH or $toolkit/bin"
        return
    fi
    only_gpu profile 60 with_tool ncu --launch-count 300 --section SpeedOfLight -- \
        "$bench" ops --device cuda --model llama-7b --seq 4096 --tokens 4096
}

case $call in
right)
    check machine 20 "$bench" check
    tests
    size=1G least=0.9
    [ $device = cuda ] || size=8M least=0
    measure copy 30 copy --device $device --size $size --least $least --store "$work"
    parity
    placement
    sanitizer
    ;;
fast)
    # With a larger share one of the two was measured wrongly, or others use the cores.
    share_most=1.05
    [ $device = cuda ] || share_most=1000
    size=8192 repetitions=7
    [ $device = cuda ] || size=256 repetitions=1
    measure matrix 30 matrix --device $device --size $size --repetitions $repetitions
    rate=$(median "$scratch/matrix.json" bf16_flops_per_s)
    operators
    if [ $device = cuda ]; then
        run step_8_layers 90 --device cuda --model "$scratch/eight.json" --seq 4096 --batch 32 \
            --micro-batch 4 --steps 3 --host-mem "$((ram_gib - 8))G"
        share step_8_layers
        run step_1b 60 --device cuda --model llama-1b --seq 1024 --batch 64 --micro-batch 16 \
            --steps 4 --trace "$scratch/logs/step_1b.trace.json"
        share step_1b
        # Ten times what the device may hold.
        run small_device 60 --device cuda --device-mem 1700M --model llama-1b --seq 512 \
            --batch 4 --micro-batch 1 --steps 3
        if [ "$ram_gib" -ge 104 ]; then
            run largest_7b 120 --device cuda --device-mem 100G --model llama-7b --seq 4096 \
                --batch 32 --micro-batch 4 --steps 2 --states-dtype bf16 \
                --host-mem "$((ram_gib - 8))G"
            share largest_7b
        else
            note largest_7b "not run" 0 "host RAM has $ram_gib GiB, 104 are needed"
        fi
    else
        run step_small 30 --device host --model "$scratch/small.json" --seq 128 --batch 4 \
            --steps 4 --trace "$scratch/logs/step_small.trace.json"
        share step_small
        run small_device 30 --device host --device-mem 24M --model "$scratch/deep.json" \
            --seq 64 --batch 2 --micro-batch 1 --steps 3
    fi
    state=$(number "$scratch/small_device.json" state_bytes)
    peak=$(number "$scratch/small_device.json" device_peak_bytes)
    verdict tenfold "training state $state bytes, the device held $peak" \
        "$peak > 0 && $state >= 9.5 * $peak"
    profile
    ;;
esac
echo "$lines lines, $bad of them fail it, in $(($(date +%s) - began)) s; results in $results"
[ "$bad" -eq 0 ]
