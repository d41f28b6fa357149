#!/usr/bin/python3
"""Golden values of the optimizer: 100 steps of AdamW and of Adam with L2 decay, by PyTorch.

    python3 tools/make_golden_adam.py tests/optim/golden_adam.bin

It needs PyTorch 2 (the file was made with 2.3.1, on a CPU with AVX-512); the test needs
neither. Version 1 made the first moment a sum of two rounded products, twice as far from
double precision; since 2 it is one fused step towards the gradient, as ours is. The values
are those of PyTorch in fp32, as training runs it. How far they are from its own run in double
precision is printed, in the measure of the test: both its code and ours round the decay of a
step, 1 - lr x decay, to fp32, and after 100 steps that shows.

Weights and gradients come from a small integer hash that the test repeats (value() below).

A file, little-endian, without gaps: uint32 0x4d414447 ("GDAM"), elements, steps; then for AdamW
and for Adam float32 weights, first moments, second moments.
"""

import struct
import sys

import numpy
import torch

MAGIC, ELEMS, STEPS = 0x4D414447, 1000, 100
ADAM = dict(lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)


def value(stream, elems):
    """Between -1 and 1; the same bits as in the test. Stream 0: weights; t: that step's."""
    x = numpy.arange(elems, dtype=numpy.uint32)
    x += numpy.uint32(stream * 0x9E3779B1 & 0xFFFFFFFF)
    x *= numpy.uint32(0x85EBCA6B)
    x ^= x >> numpy.uint32(15)
    x *= numpy.uint32(0xC2B2AE35)
    x ^= x >> numpy.uint32(13)
    x = (x >> numpy.uint32(8)).astype(numpy.float32)
    return x / numpy.float32(1 << 23) - numpy.float32(1)


def train(optimizer, dtype):
    weights = torch.tensor(value(0, ELEMS)).to(dtype).requires_grad_()
    optim = optimizer([weights], **ADAM)
    for t in range(1, STEPS + 1):
        weights.grad = torch.tensor(value(t, ELEMS)).to(dtype)
        optim.step()
    state = optim.state[weights]
    arrays = (weights, state["exp_avg"], state["exp_avg_sq"])
    return [a.detach().double().numpy() for a in arrays]


def main():
    path = sys.argv[1] if len(sys.argv) == 2 else sys.exit(__doc__)
    if int(torch.__version__.split(".")[0]) < 2:
        sys.exit(f"PyTorch {torch.__version__}: the golden values are those of PyTorch 2")
    with open(path, "wb") as out:
        out.write(struct.pack("<3I", MAGIC, ELEMS, STEPS))
        for optimizer in (torch.optim.AdamW, torch.optim.Adam):
            exact, single = train(optimizer, torch.float64), train(optimizer, torch.float32)
            for name, a, b in zip(("weights", "m", "v"), single, exact):
                size = numpy.maximum(numpy.abs(b), numpy.sqrt((b * b).mean()))
                off = (numpy.abs(a - b) / size).max()
                print(f"{optimizer.__name__} {name}: PyTorch in fp32 is off by {off:.1e}")
                out.write(a.astype("<f4").tobytes())


main()
