#!/usr/bin/env python3
"""Golden values of tiny models of every family, by PyTorch: loss, gradients, ten AdamW steps.

    python3 tools/make_golden_families.py tests/train

writes golden_NAME.bin for each entry of MODELS. It needs PyTorch, transformers and the text of
the GPL in /usr/share/common-licenses; the tests need none of them, all is in the files.

The models are the transformers library's own classes, in fp32, with attention written out
("eager"), trained by torch.optim.AdamW. A file holds the config.json that the library wrote,
so the test reads what a user would give. The first generation of keys stands beside the
second: where OLDER is set, the text is in the keys that most published files still have.

Weights come from a small integer hash that the test repeats (weight() in make_golden.py), by
the tensor's number in the file, so the files hold none.

A file, little-endian, without gaps:

    uint32  0x324c4753 ("SGL2"), 1 (version)
    uint32  seq, batch, steps, tensors, bytes of config.json
    float64 lr, beta1, beta2, eps, weight_decay, clip
    config.json
    uint32  tokens[steps * batch * seq + 1]
    float64 loss[steps], grad_norm[steps]        before clipping
    then for every tensor, in the order of the library's named_parameters():
        char[64] name, uint64 elements, float32 gradient of the first step, before clipping
    and for every tensor, in the same order: float32 weights after all steps
"""

import json
import struct
import sys

import numpy
import torch
import transformers

from make_golden import ADAM, TEXT, weight

MAGIC = 0x324C4753
SEQ, BATCH, STEPS, VOCAB = 24, 3, 10, 48

SIZES = dict(vocab_size=VOCAB, hidden_size=16, intermediate_size=40, num_hidden_layers=3)
SIZES |= dict(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128)
SIZES |= dict(pad_token_id=None, bos_token_id=1, eos_token_id=2)

LLAMA3 = dict(rope_type="llama3", rope_theta=100.0, factor=8.0, low_freq_factor=1.0)
LLAMA3 |= dict(high_freq_factor=4.0, original_max_position_embeddings=64)
YARN = dict(rope_type="yarn", rope_theta=100.0, factor=4.0)
YARN |= dict(original_max_position_embeddings=32)
# Blends between pairs 2 and 4, and between fractions of pairs.
LATE_YARN = dict(original_max_position_embeddings=128, beta_fast=2.0)
FRACTIONAL_YARN = dict(attention_factor=1.25, truncate=False)

# name: class, what differs from SIZES, whether the file has the older keys
MODELS = {
    "llama_linear_gelu": (
        transformers.LlamaForCausalLM,
        dict(rope_parameters=dict(rope_type="linear", rope_theta=500.0, factor=2.5))
        | dict(hidden_act="gelu"),
        True,
    ),
    "llama_llama3_tied": (
        transformers.LlamaForCausalLM,
        dict(rope_parameters=LLAMA3, tie_word_embeddings=True, rms_norm_eps=1e-3),
        False,
    ),
    "mistral": (
        transformers.MistralForCausalLM,
        dict(sliding_window=7, head_dim=6, rope_parameters=dict(rope_theta=1000.0)),
        True,
    ),
    "mistral_whole_tied": (
        transformers.MistralForCausalLM,
        dict(sliding_window=None, head_dim=8, tie_word_embeddings=True)
        | dict(hidden_act="gelu_pytorch_tanh"),
        False,
    ),
    "qwen2_tied": (
        transformers.Qwen2ForCausalLM,
        dict(tie_word_embeddings=True, rope_parameters=dict(rope_theta=1000.0)),
        True,
    ),
    "qwen2_window_yarn": (
        transformers.Qwen2ForCausalLM,
        dict(use_sliding_window=True, sliding_window=5, max_window_layers=1, head_dim=10)
        | dict(rope_parameters=YARN | LATE_YARN),
        False,
    ),
    "qwen3": (
        transformers.Qwen3ForCausalLM,
        dict(head_dim=10, rope_parameters=dict(rope_theta=1000.0)),
        False,
    ),
    "qwen3_window_tied": (
        transformers.Qwen3ForCausalLM,
        dict(use_sliding_window=True, sliding_window=9, max_window_layers=2, head_dim=6)
        | dict(tie_word_embeddings=True, rope_parameters=YARN | FRACTIONAL_YARN),
        True,
    ),
}

# What the library writes and no reader needs; without them the files are small and plain.
NOISE = ("transformers_version", "use_cache", "pad_token_id", "bos_token_id", "eos_token_id")


def config_text(model, older):
    keys = json.loads(model.config.to_json_string(use_diff=False))
    wanted = set(SIZES) | {"architectures", "model_type", "hidden_act", "rms_norm_eps"}
    wanted |= {"head_dim", "tie_word_embeddings", "rope_parameters", "sliding_window"}
    wanted |= {"use_sliding_window"}
    wanted |= {"max_window_layers", "layer_types", "attention_bias", "mlp_bias", "dtype"}
    wanted |= {"attention_dropout", "initializer_range", "torch_dtype"}
    keys = {key: value for key, value in keys.items() if key in wanted - set(NOISE)}
    if older:
        rope = keys.pop("rope_parameters")
        keys.pop("layer_types", None)
        keys["rope_theta"] = rope.pop("rope_theta")
        rope["type"] = rope.pop("rope_type")
        keys["rope_scaling"] = None if rope == dict(type="default") else rope
        keys["torch_dtype"] = keys.pop("dtype", "float32")
        del keys["architectures"]
    return json.dumps(keys, indent=1).encode()


def make(kind, changes):
    torch.manual_seed(0)
    config = kind.config_class(**(SIZES | changes))
    config.architectures = [kind.__name__]
    config._attn_implementation = "eager"
    model = kind(config).float().train()
    with torch.no_grad():
        for number, (name, parameter) in enumerate(model.named_parameters()):
            values = weight(number, tuple(parameter.shape))
            if name.endswith(".bias"):
                values = values - numpy.float32(1)
            parameter.copy_(torch.tensor(values))
    return model


def train(model, tokens):
    named = list(model.named_parameters())
    matrices = [p for _, p in named if p.dim() == 2]
    vectors = [p for _, p in named if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [dict(params=matrices), dict(params=vectors, weight_decay=0.0)],
        lr=ADAM["lr"],
        betas=(ADAM["beta1"], ADAM["beta2"]),
        eps=ADAM["eps"],
        weight_decay=ADAM["weight_decay"],
    )
    losses, norms, first = [], [], None
    for step in range(STEPS):
        at = step * BATCH * SEQ
        inputs = torch.tensor(tokens[at : at + BATCH * SEQ]).view(BATCH, SEQ)
        targets = torch.tensor(tokens[at + 1 : at + BATCH * SEQ + 1])
        optimizer.zero_grad()
        logits = model(input_ids=inputs, use_cache=False).logits.reshape(-1, VOCAB)
        loss = torch.nn.functional.cross_entropy(logits, targets)
        loss.backward()
        if first is None:
            first = [p.grad.clone() for _, p in named]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), ADAM["clip"])
        norms.append(float(norm))
        losses.append(float(loss.detach()))
        optimizer.step()
    return losses, norms, first


def write(path, model, text, tokens, result):
    losses, norms, grads = result
    named = list(model.named_parameters())
    with open(path, "wb") as out:
        out.write(struct.pack("<7I", MAGIC, 1, SEQ, BATCH, STEPS, len(named), len(text)))
        out.write(struct.pack("<6d", *ADAM.values()))
        out.write(text)
        out.write(numpy.array(tokens, dtype="<u4").tobytes())
        out.write(numpy.array(losses + norms, dtype="<f8").tobytes())
        for (name, parameter), grad in zip(named, grads):
            out.write(struct.pack("<64sQ", name.encode(), parameter.numel()))
            out.write(grad.numpy().astype("<f4").tobytes())
        for _, parameter in named:
            out.write(parameter.detach().numpy().astype("<f4").tobytes())


def main():
    folder = sys.argv[1] if len(sys.argv) == 2 else sys.exit(__doc__)
    torch.set_num_threads(1)
    with open(TEXT, "rb") as text:
        tokens = [byte % VOCAB for byte in text.read(STEPS * BATCH * SEQ + 1)]
    for name, (kind, changes, older) in MODELS.items():
        model = make(kind, changes)
        text = config_text(model, older)
        result = train(model, tokens)
        write(f"{folder}/golden_{name}.bin", model, text, tokens, result)
        losses, norms, _ = result
        print(f"{name}: loss {losses[0]:.6f} to {losses[-1]:.6f}, norm {norms[0]:.4f}")


if __name__ == "__main__":
    main()
