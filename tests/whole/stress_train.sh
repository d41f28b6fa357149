#!/bin/sh
# The whole program under TSan, which Criterion does not start under: a small model trained in
# several placements, with every thread the engine has, commits included. Each run ends without
# a report, and all with the same state.
#
#     stress_train.sh PROGRAM
set -u
program=$1
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT

awk 'BEGIN { for (i = 0; i < 4000; i++) printf "%d bottles, ", (i * i) % 997 }' >"$work/text"
cat >"$work/config.json" <<'CONFIG'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
 "hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4,
 "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 256,
 "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "initializer_range": 0.02,
 "tie_word_embeddings": true}
CONFIG

expected=
train() { # OPTION...
    "$program" --data "$work/text" --model "$work/config.json" --seq 32 --batch 2 \
        --allow threads-io,buffered-io \
        --steps 8 --tile 16384 --hash-state "$@" >"$work/out" 2>"$work/err" || {
        cat "$work/out" "$work/err"
        echo "failed: $*"
        exit 1
    }
}

same() { # what was run
    state=$(sed -n 's/^state *//p' "$work/out")
    [ -n "$state" ] && [ "${expected:-$state}" = "$state" ] || {
        echo "failed: $*: state '$state', but '$expected' before"
        exit 1
    }
    expected=$state
    echo "ok: $*"
}

run() { # OPTION...
    rm -rf "$work/store"
    mkdir "$work/store"
    train "$@"
    same "$@"
}

run --device-mem 64M --host-mem 64M
run --device-mem 3M --host-mem 48M --params host --grads host --states host --threads 1
run --device-mem 3M --host-mem 24M --params nvme --grads host --states nvme \
    --store "$work/store" --threads 2
run --device-mem 3M --host-mem 24M --params nvme --grads nvme --states nvme \
    --store "$work/store" --io threads --threads 2
run --device-mem 3M --host-mem 24M --params nvme --grads host --states nvme \
    --store "$work/store" --no-overlap

# In two parts: the states come back from a commit, to other homes.
run_in_parts() { # OPTION...
    rm -rf "$work/store"
    mkdir "$work/store"
    train --device-mem 3M --host-mem 24M --params nvme --grads host --states nvme \
        --store "$work/store" --steps 3 "$@"
    train --device-mem 64M --host-mem 64M --store "$work/store" --resume "$@"
    same in two parts "$@"
}

run --device-mem 3M --host-mem 24M --params nvme --grads host --states nvme \
    --store "$work/store" --durability none
run_in_parts
run_in_parts --commit-every 2 --durability process --keep 2 --keep-every 2
