"""GPT's loss and gradients by PyTorch (2.11) in f64: loops over windows, tokens and heads, without padding and without
a mask; the literals of src/tests.rs.

    python golden.py
"""

import math

import torch
from torch.nn import functional as F

WIDTH, DEPTH, HEADS = 64, 6, 4


def wave(phase, *shape):
    m = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(shape)


def shapes(v, t, start, tied):
    yield from [("encoder.embedding", (v + 1, WIDTH)), ("encoder.positions", (1, t if start else t - 1, WIDTH))]
    yield from [("encoder.norm.weight", (WIDTH,)), ("encoder.norm.bias", (WIDTH,))]
    for i in range(DEPTH):
        block = f"encoder.blocks.{i}"
        for norm in ["norm1", "norm2"]:
            yield from [(f"{block}.{norm}.weight", (WIDTH,)), (f"{block}.{norm}.bias", (WIDTH,))]
        for name, n, m in [("attn.qkv", 1, 3), ("attn.proj", 1, 1), ("mlp.fc1", 1, 4), ("mlp.fc2", 4, 1)]:
            yield from [(f"{block}.{name}.weight", (m * WIDTH, n * WIDTH)), (f"{block}.{name}.bias", (m * WIDTH,))]
    if start:
        yield ("start", (1, 1, WIDTH))
    if not tied:
        yield ("output.weight", (v, WIDTH))


def linear(P, name, x):
    return x @ P[name + ".weight"].T + P[name + ".bias"]


def norm(P, name, x):
    return F.layer_norm(x, x.shape[-1:], P[name + ".weight"], P[name + ".bias"], 1e-5)


def network(P, x):
    """The streams before each block and behind the last one, x [n, D]: token t looks at tokens 0 .. t alone."""
    streams = [x]
    for i in range(DEPTH):
        b, d = f"encoder.blocks.{i}", WIDTH // HEADS
        q, k, v = linear(P, b + ".attn.qkv", norm(P, b + ".norm1", x)).split(WIDTH, 1)
        rows = []
        for t in range(len(x)):
            heads = [slice(h * d, (h + 1) * d) for h in range(HEADS)]
            w = [(k[: t + 1, s] @ q[t, s] / math.sqrt(d)).softmax(0) for s in heads]
            rows.append(torch.cat([w @ v[: t + 1, s] for w, s in zip(w, heads)]))
        x = x + linear(P, b + ".attn.proj", torch.stack(rows))
        x = x + linear(P, b + ".mlp.fc2", F.gelu(linear(P, b + ".mlp.fc1", norm(P, b + ".norm2", x))))
        streams.append(x)
    return streams


def gpt(P, u, v, start, tied):
    """The sum of -log p over the tokens of a window, their number, and the features."""
    x = [P["encoder.embedding"][i] for i in u[:-1]]
    if start:
        x = [P["start"][0, 0], *x]
    x = torch.stack(x) + P["encoder.positions"][0, : len(x)]
    streams = network(P, x)
    targets = u if start else u[1:]
    w = P["encoder.embedding"][:v] if tied else P["output.weight"]
    logits = norm(P, "encoder.norm", streams[-1]) @ w.T
    loss = -sum(logits[i].log_softmax(0)[target] for i, target in enumerate(targets))
    return loss, len(targets)


def features(P, u, start):
    x = [P["encoder.embedding"][i] for i in u]
    if start:
        x = [P["start"][0, 0], *x]
    x = torch.stack(x) + P["encoder.positions"][0, : len(x)]
    return norm(P, f"encoder.blocks.{DEPTH // 2}.norm1", network(P, x)[DEPTH // 2]).mean(0)


CASES = [
    # V, T, start, tied, windows without their padding
    (5, 7, False, True, [[0, 3, 2, 4, 1, 1, 0], [2, 2, 0, 4, 3, 1, 4]]),
    (5, 7, True, False, [[0, 3, 2, 4, 1, 1, 0], [4, 0, 1]]),
    (11, 4, True, True, [[10, 9], [3, 3, 7, 0], [8]]),
    (11, 4, False, False, [[10, 9], [3, 3, 7, 0], [1, 2, 3]]),
]

for v, t, start, tied, windows in CASES:
    # The k-th name in alphabetical order is filled with 0.1 sin(1.3 m^2 + k), weights of norms with 1 more.
    P = {}
    for k, (name, shape) in enumerate(sorted(shapes(v, t, start, tied))):
        P[name] = 0.1 * wave(k, *shape) + (1 if "norm" in name and name.endswith("weight") else 0)
        P[name] = P[name].float().double().requires_grad_()
    parts = [gpt(P, u, v, start, tied) for u in windows]
    loss = sum(p[0] for p in parts) / sum(p[1] for p in parts)
    loss.backward()
    # What the last place of the full width holds is never read.
    f = torch.stack([features(P, u[:-1] if len(u) == t else u, start) for u in windows])
    norm_all = sum((p.grad**2).sum() for p in P.values() if p.grad is not None).sqrt()
    print((v, t, start, tied), f"loss {loss.item():.9f}, gradient {norm_all.item():.9e}")
    print("  features", [f"{x:.8f}" for x in f[1, :3].tolist()], f"norm {f.norm().item():.8f}")
    qkv = "encoder.blocks.2.attn.qkv.weight"
    for name in ["encoder.embedding", "encoder.positions", qkv, "start", "output.weight"]:
        if name in P:
            g = P[name].grad
            print(f'  ("{name}", {g.flatten()[1].item():.9e}, {g.norm().item():.9e}),')
