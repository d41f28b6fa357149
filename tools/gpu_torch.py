"""PyTorch's own times for the products and the attention of a layer of llama-7b, one JSON
document on stdout: what `offload-bench ops --device cuda` measures with Strata's operators.
"""
import json
import torch
import torch.nn.functional as F

TOKENS, SEQ, HIDDEN, FFN, HEADS = 16384, 4096, 4096, 11008, 32


def seconds(work, repetitions=10):
    """Of one call, by the device's own events."""
    for _ in range(3):
        work()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repetitions):
        work()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3 / repetitions


def normal(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def product(rows, cols, depth):
    a, b = normal(rows, depth), normal(cols, depth)
    return seconds(lambda: torch.mm(a, b.t()))


def attention(backward):
    shape = (TOKENS // SEQ, HEADS, SEQ, HIDDEN // HEADS)
    q, k, v = (normal(*shape).requires_grad_(backward) for _ in range(3))
    if not backward:
        return seconds(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    grad = normal(*shape)
    return seconds(lambda: torch.autograd.grad(out, (q, k, v), grad, retain_graph=True))


times = {
    "qkv": product(TOKENS, 3 * HIDDEN, HIDDEN),
    "o": product(TOKENS, HIDDEN, HIDDEN),
    "gate-up": product(TOKENS, 2 * FFN, HIDDEN),
    "down": product(TOKENS, HIDDEN, FFN),
    "gate-up dw": product(2 * FFN, HIDDEN, TOKENS),
    "attention": attention(False),
    "attention grad": attention(True),
}
print(json.dumps({"program": "gpu_torch", "torch": torch.__version__,
                  "gpu": torch.cuda.get_device_name(), "seconds": times},
                 separators=(",", ":")))
