#!/bin/sh
# Two steps of a model of a billion parameters, 16 GiB of training state, with 1 GiB of device,
# 2 GiB of host RAM and 27 GiB of disk: they end, are finite, and keep within the budgets. 77:
# the disk has no room for it.
#
#     one_billion.sh PROGRAM DIR     DIR: where the store is made, and removed
set -eu
program=$1
work=$(mktemp -d -p "$2")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

free=$(df -Pk "$work" | awk 'NR == 2 { print int($4 / 1048576) }')
[ "$free" -ge 32 ] || {
    echo "skipped: $free GiB of disk are free in $2, it takes 32"
    exit 77
}
mkdir "$work/store"
head -c 1000000 /dev/urandom >"$work/data"
cat >"$work/config.json" <<'CONFIG'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
 "hidden_size": 2048, "num_hidden_layers": 13, "num_attention_heads": 32,
 "num_key_value_heads": 8, "intermediate_size": 8192, "vocab_size": 128256,
 "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "initializer_range": 0.02,
 "tie_word_embeddings": true}
CONFIG

"$program" --data "$work/data" --model "$work/config.json" --store "$work/store" \
    --device-mem 1G --host-mem 2G --nvme-mem 30G --seq 64 --batch 1 --steps 2 \
    --commit-every 1 --log "$work/log.jsonl"
[ "$(wc -l <"$work/log.jsonl")" -eq 2 ]

# within KEY BYTES: the last line's figure is above nothing and not above the budget.
within() {
    bytes=$(tail -n 1 "$work/log.jsonl" | tr ',{' '\n\n' |
        sed -n "s/^\"$1\": *\([0-9]*\).*/\1/p")
    [ "$bytes" -gt 0 ] && [ "$bytes" -le "$2" ] || {
        echo "failed: $1 $bytes, the budget is $2"
        exit 1
    }
}
within device_peak_bytes 1073741824
within host_peak_bytes 2147483648
within nvme_bytes 32212254720
