#!/bin/sh
# Kills offload-train with SIGKILL at random moments and resumes it at once, until N kills have
# hit. A run that was killed must end with the very state of an undisturbed one, must never
# begin before a step that was committed, and must leave a log with every step. Runs differ in
# where states rest, how often they commit and what they retain, one after the other.
#
#     kill_loop.sh N [-p PROGRAM] [-s SEED] [-d DIR] [OPTION...]
#
# DIR must lie on a drive for the kills to hit I/O that is under way (default: the build
# folder). OPTIONs are offload-train's own, such as --clip 0, none about commits or homes. The
# seed is printed; it repeats the moments, as far as a machine repeats itself.
#
# A run is killed up to three times and then left to end. The first kill falls while the store
# is being made, at the first commit or in the first step; with the others, on a model this
# small, half of the time goes to commits.
set -u
usage() {
    echo "usage: kill_loop.sh N [-p PROGRAM] [-s SEED] [-d DIR] [OPTION...]" >&2
    exit 2
}

root=$(cd "$(dirname "$0")/.." && pwd) || exit 2
program=$root/build/release/bin/offload-train
seed=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
dir=$root/build
[ $# -ge 1 ] && [ "$1" -ge 1 ] 2>/dev/null || usage
wanted=$1
shift
while [ $# -ge 2 ]; do
    case $1 in
    -p) program=$2 ;;
    -s) seed=$2 ;;
    -d) dir=$2 ;;
    *) break ;;
    esac
    shift 2
done
[ -x "$program" ] || {
    echo "kill_loop: $program is not there: build it, or give -p PROGRAM" >&2
    exit 2
}
# A relative name would not be found from elsewhere.
program=$(cd "$(dirname "$program")" && pwd)/$(basename "$program")

steps=60
early_of_a_run=1
kills_of_a_run=3
mkdir -p "$dir"
work=$(mktemp -d -p "$dir" kill_loop.XXXXXX) || exit 2
process=
clean_up() {
    [ -z "$process" ] || kill -KILL "$process" 2>/dev/null
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    echo "kill_loop: seed $seed, after $kills kills: $1" >&2
    tail -n 5 "$work/err" "$work/out" >&2
    exit 1
}

awk 'BEGIN { for (i = 0; i < 4000; i++) printf "%d bottles, ", (i * i) % 997 }' >"$work/text"
cat >"$work/config.json" <<'CONFIG'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
 "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
 "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 256,
 "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "initializer_range": 0.02,
 "tie_word_embeddings": false}
CONFIG

# From here on "$@" is the run.
set -- --data "$work/text" --model "$work/config.json" --seq 32 --batch 2 --tile 16384 \
    --device host --device-mem 16M --host-mem 64M --grads host --stash host --threads 1 \
    --allow threads-io,buffered-io --store "$work/store" --log "$work/log" \
    --steps "$steps" --hash-state "$@"

# Options of the N-th run, into $kind, and how often it commits, into $every.
choose_kind() {
    case $(($1 % 4)) in
    0) kind="--params nvme --states nvme" every=1 ;;
    1) kind="--params nvme --states host" every=1 ;;
    2) kind="--params nvme --states nvme --keep 2 --keep-every 6" every=3 ;;
    3) kind="--params host --states host --keep 1 --keep-every 8" every=4 ;;
    esac
    kind="$kind --commit-every $every"
}

fresh() {
    rm -rf "$work/store" "$work/log"
    mkdir "$work/store"
    choose_kind "$runs"
}

now_us() {
    echo $(($(date +%s%N) / 1000))
}

# A number from $1 to $2, into $random. Uniform enough for moments.
state=$((seed % 2147483648))
pick() {
    state=$(((state * 1103515245 + 12345) % 2147483648))
    random=$(($1 + state / 256 % ($2 - $1 + 1)))
}

# The runs' command: kinds are several words.
run() {
    # shellcheck disable=SC2086
    "$program" $kind "$@" >"$work/out" 2>"$work/err"
}

logged_hash() {
    sed -n '$s/.*"state_hash":"\([0-9a-f]*\)".*/\1/p' "$work/log"
}

# What the log proves to be durable. The line of step n is written once its norm is known; by
# then the update of n - 1 has begun, which waits for all records of n - 2 to be written. Those
# of a commit wait for the commit before to be durable. A hash means that all is.
proven() {
    [ -s "$work/log" ] || {
        echo 0
        return
    }
    if [ -n "$(logged_hash)" ]; then
        echo "$steps"
        return
    fi
    last=$(sed -n 's/^{"step":\([0-9]*\),.*}$/\1/p' "$work/log" | tail -n 1)
    last=$(((${last:-0} - 2) / every * every - every))
    echo $((last > 0 ? last : 0))
}

# Where the latest run says it began. Empty: it did not come to that.
begun() {
    sed -n -e 's/^resume goes on from the commit of step \([0-9]*\)$/\1/p' \
        -e 's/^resume starts at step \(0\):.*/\1/p' "$work/out"
}

# The run has to begin at $floor or later; what it did proves the next floor.
raise_floor() {
    first=$(begun)
    [ -n "$first" ] || unbegun=$((unbegun + 1))
    if [ -n "$first" ] && [ "$first" -lt "$floor" ]; then
        fail "step $floor was committed, but the run began at $first"
    fi
    for step in ${first:-0} $(proven); do
        [ "$step" -le "$floor" ] || floor=$step
    done
}

check_end() {
    [ "$(logged_hash)" = "$expected" ] ||
        fail "state '$(logged_hash)' instead of '$expected' of the undisturbed run"
    # The last line may be there twice: killed after it was written, resumed with no step left.
    sed -n 's/^{"step":\([0-9]*\),.*}$/\1/p' "$work/log" | awk -v steps="$steps" '
        $1 != before + 1 && !($1 == steps && before == steps) { bad = 1 }
        { before = $1 }
        END { exit bad || before != steps }' || fail "the log lacks steps"
    runs=$((runs + 1))
}

kills=0
runs=0
unbegun=0
: >"$work/out"
: >"$work/err"

fresh
begin=$(now_us)
run "$@" --steps 1 || fail "a run of one step failed"
first_step_us=$(($(now_us) - begin))
fresh
begin=$(now_us)
run "$@" || fail "the undisturbed run failed"
run_us=$(($(now_us) - begin))
expected=$(logged_hash)
[ -n "$expected" ] || fail "the undisturbed run has no state_hash"
echo "kill_loop: seed $seed, $wanted kills; undisturbed: one step in" \
    "$((first_step_us / 1000)) ms, $steps in $((run_us / 1000)) ms, state $expected;" \
    "$work on $(stat -f -c %T "$work")"

fresh
floor=0
kills_here=0
early=0
while :; do
    if [ "$kills" -eq "$wanted" ] || [ "$kills_here" -eq "$kills_of_a_run" ]; then
        wait_us=
    elif [ "$kills_here" -lt "$early_of_a_run" ]; then
        pick 0 "$first_step_us"
        wait_us=$random
    else
        pick "$((first_step_us / 2))" "$((first_step_us + run_us / 4))"
        wait_us=$random
    fi
    # shellcheck disable=SC2086
    "$program" $kind "$@" --resume >"$work/out" 2>"$work/err" &
    process=$!
    if [ -n "$wait_us" ]; then
        sleep "$((wait_us / 1000000)).$(printf %06d $((wait_us % 1000000)))"
        kill -KILL "$process" 2>/dev/null
    fi
    wait "$process" 2>/dev/null
    code=$?
    process=
    raise_floor
    case $code in
    137)
        kills=$((kills + 1))
        kills_here=$((kills_here + 1))
        [ "$kills_here" -gt "$early_of_a_run" ] || early=$((early + 1))
        ;;
    0)
        check_end
        [ "$kills" -lt "$wanted" ] || break
        fresh
        floor=0
        kills_here=0
        ;;
    *) fail "exit $code" ;;
    esac
done
echo "kill_loop: $kills kills, $early of them early, in $runs runs, each with the undisturbed" \
    "run's state; $unbegun hit before the store was made or recovered"
