#!/bin/sh
# The main job, shown: train a transformer whose weights, gradients and optimizer states are
# many times larger than the device's memory, on text that every Debian machine has, paged
# through a store on disk. Called by `make demo` once everything is built; takes about two
# minutes on two cores. Leaves nothing behind.
#
#     demo.sh [PROGRAM]
set -eu
cd "$(dirname "$0")/.."
program=${1:-build/release/bin/offload-train}
texts=/usr/share/common-licenses

fail() {
    echo "demo: $1" >&2
    exit 1
}

[ -x "$program" ] || fail "$program is not there: run 'make demo', which builds it"
[ -d "$texts" ] || fail "$texts is not there: it has the text to train on, on Debian"

# The store must lie on a drive: /tmp is RAM on many machines, the build folder hardly ever is.
mkdir -p build
work=$(mktemp -d -p build)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -m 700 "$work/store"

# The regular files only: the rest are links to some of them.
find "$texts" -maxdepth 1 -type f | LC_ALL=C sort | xargs cat >"$work/text"

cat >"$work/config.json" <<'CONFIG'
{
  "architectures": ["LlamaForCausalLM"],
  "model_type": "llama",
  "hidden_act": "silu",
  "hidden_size": 256,
  "num_hidden_layers": 30,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "intermediate_size": 704,
  "vocab_size": 256,
  "max_position_embeddings": 2048,
  "rms_norm_eps": 1e-5,
  "rope_theta": 10000.0,
  "initializer_range": 0.02,
  "attention_bias": false,
  "mlp_bias": false,
  "tie_word_embeddings": false
}
CONFIG

set -- --data "$work/text" --model "$work/config.json" --store "$work/store" \
    --device host --device-mem 16M --host-mem 96M --params nvme --grads host --states nvme \
    --seq 128 --batch 4 --steps 80 --lr 1e-3 --warmup 10

file_system=$(stat -f -c %T "$work/store")
echo "demo: $(wc -c <"$work/text") bytes of licence texts; the store lies on $file_system"
case $file_system in
tmpfs | ramfs) echo "demo: that is RAM, not a drive: the numbers below say little" ;;
esac
echo "demo: $program $*"
echo

# Weights, gradients and states, as the plan counts them. A refusal shows in the run itself.
"$program" "$@" --dry-run --json >"$work/plan.json" 2>"$work/plan.text" || true
state=$(sed -n 's/.*"param_count":[0-9]*,"state_bytes":\([0-9]*\).*/\1/p' "$work/plan.json")

code=0
"$program" "$@" || code=$?
[ "$code" -eq 0 ] || exit "$code"

awk -v state="$state" 'BEGIN {
    mib = 1048576
    printf "\ndemo: weights, gradients and states are %.1f MiB: %.1f times the device,", \
        state / mib, state / mib / 16
    printf " %.1f times device and host together\n", state / mib / (16 + 96)
}'
