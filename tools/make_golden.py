#!/usr/bin/python3
"""Golden values of a tiny Llama: loss, gradients and ten AdamW steps, computed by PyTorch.

    /usr/bin/python3 tools/make_golden.py tests/train

writes golden_tied.bin and golden_untied.bin. It needs PyTorch (Debian: python3-torch) and the
text of the GPL in /usr/share/common-licenses; the tests need neither, all is in the files.

The model is written out here, plainly and with autograd, so that it shares nothing with what it
checks. It runs in double precision: the values are then PyTorch's without the rounding of one
more fp32 run, and the tolerances of the tests are all the tested code's own. The distance of
PyTorch's own fp32 run from them is printed, for comparison.

Weights come from a small integer hash that the test repeats (weight() below), so the files hold
none. The untied model also has rope_scaling of type llama3.

A file, little-endian, without gaps:

    uint32  0x444c4753 ("SGLD"), 1 (version)
    uint32  tied, vocab, hidden, layers, heads, kv_heads, head_dim, ffn, seq, batch, steps
    uint32  llama3 (0: no rope_scaling; the four numbers after rope_theta are unused)
    float64 rms_eps, rope_theta, factor, low_freq_factor, high_freq_factor, original_positions
    float64 lr, beta1, beta2, eps, weight_decay, clip
    uint32  tokens[steps * batch * seq + 1]
    float64 loss[steps], grad_norm[steps]        before clipping
    float32 gradients of the first step, before clipping: tensor by tensor
    float32 weights after all steps, in the same order

Tensors are in the order embed_tokens; for each layer input_layernorm, q, k, v, o,
post_attention_layernorm, gate, up, down; norm; lm_head where it is not tied.
"""

import math
import struct
import sys

import numpy
import torch

TEXT = "/usr/share/common-licenses/GPL-3"
MAGIC = 0x444C4753
SHAPE = dict(vocab=256, hidden=32, layers=2, heads=4, kv_heads=2, head_dim=8, ffn=88)
SHAPE |= dict(seq=32, batch=4, steps=10)
ADAM = dict(lr=1e-4, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip=1.0)
ROPE_PLAIN = dict(llama3=0, rms_eps=1e-5, theta=10000.0)
ROPE_PLAIN |= dict(factor=1.0, low=1.0, high=4.0, original=16.0)
ROPE_LLAMA3 = ROPE_PLAIN | dict(llama3=1, theta=100.0, factor=8.0, original=64.0)


def tensor_shapes(s, tied):
    h, q, kv = s["hidden"], s["heads"] * s["head_dim"], s["kv_heads"] * s["head_dim"]
    attention = [(h,), (q, h), (kv, h), (kv, h), (h, q)]
    mlp = [(h,), (s["ffn"], h), (s["ffn"], h), (h, s["ffn"])]
    vocab = [(s["vocab"], h)]
    return vocab + (attention + mlp) * s["layers"] + [(h,)] + ([] if tied else vocab)


def weight(tensor, shape):
    """Between -0.2 and 0.2, norms between 0.75 and 1.25; the same bits as in the test."""
    x = numpy.arange(math.prod(shape), dtype=numpy.uint32)
    x += numpy.uint32(tensor * 0x9E3779B1 & 0xFFFFFFFF)
    x *= numpy.uint32(0x85EBCA6B)
    x ^= x >> numpy.uint32(15)
    x *= numpy.uint32(0xC2B2AE35)
    x ^= x >> numpy.uint32(13)
    u = (x >> numpy.uint32(8)).astype(numpy.float32) / numpy.float32(1 << 23) - numpy.float32(1)
    if len(shape) == 1:
        return numpy.float32(1) + u * numpy.float32(0.25)
    return (u * numpy.float32(0.2)).reshape(shape)


def rope_angles(s, rope, dtype):
    half = s["head_dim"] // 2
    frequency = [rope["theta"] ** (-2.0 * i / s["head_dim"]) for i in range(half)]
    if rope["llama3"]:
        frequency = [llama3(f, rope) for f in frequency]
    position = torch.arange(s["seq"], dtype=torch.float64)
    angle = position[:, None] * torch.tensor(frequency, dtype=torch.float64)
    angle = torch.cat([angle, angle], dim=1)
    return angle.cos().to(dtype), angle.sin().to(dtype)


def llama3(f, rope):
    wavelength = 2 * math.pi / f
    if wavelength < rope["original"] / rope["high"]:
        return f
    if wavelength > rope["original"] / rope["low"]:
        return f / rope["factor"]
    smooth = (rope["original"] / wavelength - rope["low"]) / (rope["high"] - rope["low"])
    return (1 - smooth) * f / rope["factor"] + smooth * f


def rms_norm(x, w, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * w


def rotate(x, cos, sin):
    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-high, low], dim=-1) * sin


def attention(x, w, s, angles):
    b, t, _ = x.shape
    q, k, v = ((x @ m.T).view(b, t, -1, s["head_dim"]).transpose(1, 2) for m in w[:3])
    q, k = rotate(q, *angles), rotate(k, *angles)
    k, v = (a.repeat_interleave(s["heads"] // s["kv_heads"], dim=1) for a in (k, v))
    scores = q @ k.transpose(2, 3) / math.sqrt(s["head_dim"])
    scores = scores.masked_fill(torch.ones(t, t).triu(1).bool(), float("-inf"))
    return (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, -1) @ w[3].T


def loss_of(tensors, s, rope, tied, inputs, targets):
    angles = rope_angles(s, rope, tensors[0].dtype)
    x = tensors[0][inputs]
    for layer in range(s["layers"]):
        n1, q, k, v, o, n2, gate, up, down = tensors[1 + 9 * layer : 10 + 9 * layer]
        x = x + attention(rms_norm(x, n1, rope["rms_eps"]), (q, k, v, o), s, angles)
        y = rms_norm(x, n2, rope["rms_eps"])
        x = x + (torch.nn.functional.silu(y @ gate.T) * (y @ up.T)) @ down.T
    head = tensors[0] if tied else tensors[-1]
    logits = rms_norm(x, tensors[1 + 9 * s["layers"]], rope["rms_eps"]) @ head.T
    logits = logits.reshape(-1, s["vocab"])
    return torch.nn.functional.cross_entropy(logits, targets.reshape(-1))


def train(s, rope, tied, tokens, dtype):
    shapes = tensor_shapes(s, tied)
    tensors = [torch.tensor(weight(i, shape)).to(dtype) for i, shape in enumerate(shapes)]
    for tensor in tensors:
        tensor.requires_grad_()
    optimizer = torch.optim.AdamW(
        [
            dict(params=[t for t in tensors if t.dim() == 2]),
            dict(params=[t for t in tensors if t.dim() == 1], weight_decay=0.0),
        ],
        lr=ADAM["lr"],
        betas=(ADAM["beta1"], ADAM["beta2"]),
        eps=ADAM["eps"],
        weight_decay=ADAM["weight_decay"],
    )
    losses, norms, first = [], [], None
    per_step = s["batch"] * s["seq"]
    for step in range(s["steps"]):
        at = step * per_step
        inputs = torch.tensor(tokens[at : at + per_step]).view(s["batch"], s["seq"])
        targets = torch.tensor(tokens[at + 1 : at + per_step + 1]).view(s["batch"], s["seq"])
        optimizer.zero_grad()
        loss = loss_of(tensors, s, rope, tied, inputs, targets)
        loss.backward()
        if first is None:
            first = [t.grad.clone() for t in tensors]
        norms.append(float(torch.nn.utils.clip_grad_norm_(tensors, ADAM["clip"])))
        losses.append(float(loss))
        optimizer.step()
    return losses, norms, first, [t.detach() for t in tensors]


def flat(tensors):
    return numpy.concatenate([t.numpy().astype(numpy.float32).reshape(-1) for t in tensors])


def write(path, s, rope, tied, tokens, result):
    losses, norms, grads, weights = result
    rope_order = ("rms_eps", "theta", "factor", "low", "high", "original")
    with open(path, "wb") as out:
        out.write(struct.pack("<14I", MAGIC, 1, int(tied), *s.values(), rope["llama3"]))
        out.write(struct.pack("<6d", *(rope[key] for key in rope_order)))
        out.write(struct.pack("<6d", *ADAM.values()))
        out.write(numpy.array(tokens, dtype="<u4").tobytes())
        out.write(numpy.array(losses + norms, dtype="<f8").tobytes())
        out.write(flat(grads).astype("<f4").tobytes())
        out.write(flat(weights).astype("<f4").tobytes())


def compare(name, exact, single):
    grads = max(float((a - b).norm() / a.norm()) for a, b in zip(exact[2], single[2]))
    weights = max(float((a - b).abs().max()) for a, b in zip(exact[3], single[3]))
    losses = max(abs(a - b) / a for a, b in zip(exact[0], single[0]))
    print(f"{name}: loss {exact[0][0]:.6f} to {exact[0][-1]:.6f}, norm {exact[1][0]:.4f}")
    print(f"  PyTorch in fp32 is off by {losses:.1e} (loss), {grads:.1e} (gradients),")
    print(f"  {weights:.1e} (weights)")


def main():
    folder = sys.argv[1] if len(sys.argv) == 2 else sys.exit(__doc__)
    with open(TEXT, "rb") as text:
        tokens = list(text.read(SHAPE["steps"] * SHAPE["batch"] * SHAPE["seq"] + 1))
    for name, tied, rope in (("tied", True, ROPE_PLAIN), ("untied", False, ROPE_LLAMA3)):
        exact = train(SHAPE, rope, tied, tokens, torch.float64)
        compare(name, exact, train(SHAPE, rope, tied, tokens, torch.float32))
        write(f"{folder}/golden_{name}.bin", SHAPE, rope, tied, tokens, exact)


if __name__ == "__main__":
    main()
