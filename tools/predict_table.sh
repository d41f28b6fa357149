#!/bin/sh
# Predicted against measured: eight training runs on this machine, each by offload-bench run,
# which first probes the machine with the run's own working set. Prints the table for
# docs/performance.md, with the median error of the step time. Takes about six minutes on two
# idle cores; other work on the machine shows as error. Leaves nothing behind.
#
#     predict_table.sh [BUILD [ROW...]]     BUILD: build/release; ROW: 1 to 8, all of them
set -eu
cd "$(dirname "$0")/.."
build=${1:-build/release}
[ $# -eq 0 ] || shift
rows=" ${*:-1 2 3 4 5 6 7 8} "
bench=$build/bin/offload-bench
unset OPENBLAS_CORETYPE

[ -x "$bench" ] || {
    echo "predict_table: $bench is not there: build first" >&2
    exit 1
}

# The store must lie on a drive, as the build does.
work=$(mktemp -d -p "$build")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# hidden layers ffn
config() {
    cat <<CONFIG
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
 "hidden_size": $1, "num_hidden_layers": $2, "num_attention_heads": $(($1 / 64)),
 "num_key_value_heads": $(($1 / 64)), "intermediate_size": $3, "vocab_size": 4096,
 "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "initializer_range": 0.02,
 "tie_word_embeddings": true, "max_position_embeddings": 512}
CONFIG
}

# The value of a number in the run's document, by its key: the first, or the one after a word.
number() {
    tr ',{' '\n\n' <"$work/run.json" |
        sed -n "/\"${2:-$1}\"/,\$s/.*\"$1\": *\([-0-9.e+]*\).*/\1/p" |
        head -n 1
}

median() {
    sort -g | awk '{ v[NR] = $1 } END { print (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }'
}

# row hidden layers ffn batch steps device-mem host-mem states
measure() {
    case $rows in
    *" $1 "*) shift ;;
    *) return 0 ;;
    esac
    config "$1" "$2" "$3" >"$work/config.json"
    "$bench" run --model "$work/config.json" --seq 128 --batch "$4" --steps "$5" \
        --device-mem "$6" --host-mem "$7" --states "$8" --store "$work" --quiet \
        -o "$work/run.json" 2>"$work/notes" || {
        cat "$work/notes" >&2
        exit 1
    }
    name="$2 x $1"
    what="batch $4, device $6, host $7, states $8"
    params=$(number param_count)
    predicted=$(number step_s predicted)
    measured=$(number step_s measured)
    echo "$name $params $predicted $measured $what" | awk '{
        error = 100 * ($5 - $6) / $6
        printf "| %s x %s, %.0f M |", $1, $3, $4 / 1e6
        for (i = 7; i <= NF; i++) printf " %s", $i
        printf " | %.2f s | %.2f s | %+.0f %% |\n", $5, $6, error
    }'
    awk "BEGIN { e = ($predicted - $measured) / $measured; print e < 0 ? -e : e }" \
        >>"$work/errors"
}

echo "| layers x hidden, parameters | run | predicted | measured | error |"
echo "|---|---|---:|---:|---:|"
measure 1 256 8 704 2 8 32M 128M nvme
measure 2 256 30 704 4 6 32M 128M nvme
measure 3 512 12 1408 1 8 64M 384M auto
measure 4 512 12 1408 8 5 128M 384M nvme
measure 5 512 24 1408 2 6 128M 2G host
measure 6 768 16 2048 1 6 128M 1G auto
measure 7 1024 12 2816 1 6 192M 1G nvme
measure 8 1024 22 2816 1 5 192M 8G host
awk '{ print 100 * $1 }' "$work/errors" | median |
    awk '{ printf "\nmedian error of the step time: %.0f %%\n", $1 }'
