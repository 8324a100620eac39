"""Outputs and gradients of a small transformer over tokens, written out in PyTorch as loops over sequences, tokens and
heads where the Rust code has one call for all; weights by the formula of golden.py.

    python transformer.py > transformer.json        (torch 2.11)
"""

import json
import math

import torch
from golden import value
from torch.nn import functional as F

V, T, D, DEPTH, HEADS = 7, 6, 16, 3, 4
IDS = [[3, 0, 6, 6, 1, 2], [5, 2, 4, -1, -1, -1], [0, -1, -1, -1, -1, -1]]


def shapes():
    yield from [("embedding", (V + 1, D)), ("positions", (1, T, D)), ("norm.weight", (D,)), ("norm.bias", (D,))]
    for i in range(DEPTH):
        for norm in ["norm1", "norm2"]:
            yield from [(f"blocks.{i}.{norm}.weight", (D,)), (f"blocks.{i}.{norm}.bias", (D,))]
        for name, n, m in [("attn.qkv", D, 3 * D), ("attn.proj", D, D), ("mlp.fc1", D, 4 * D), ("mlp.fc2", 4 * D, D)]:
            yield from [(f"blocks.{i}.{name}.weight", (m, n)), (f"blocks.{i}.{name}.bias", (m,))]


P = {name: value(name, shape).double().requires_grad_() for name, shape in shapes()}


def linear(name, x):
    return P[name + ".weight"] @ x + P[name + ".bias"]


def norm(name, x):
    centred = x - x.mean()
    return centred / ((centred**2).mean() + 1e-5).sqrt() * P[name + ".weight"] + P[name + ".bias"]


def block(name, xs, visible):
    """xs: the tokens of one sequence; visible(t): the places that token t may look at."""
    parts = [linear(name + ".attn.qkv", norm(name + ".norm1", x)).split(D) for x in xs]
    d = D // HEADS
    out = []
    for t, x in enumerate(xs):
        heads = []
        for h in range(HEADS):
            s = slice(h * d, (h + 1) * d)
            scores = torch.stack([parts[t][0][s] @ parts[k][1][s] / math.sqrt(d) for k in visible(t)])
            heads.append(sum(w * parts[k][2][s] for w, k in zip(scores.softmax(0), visible(t))))
        x = x + linear(name + ".attn.proj", torch.cat(heads))
        out.append(x + linear(name + ".mlp.fc2", F.gelu(linear(name + ".mlp.fc1", norm(name + ".norm2", x)))))
    return out


def sequence(ids, causal):
    """The output of each token that is no padding, and the features: no padding is ever computed."""
    n = sum(i >= 0 for i in ids)
    xs = [P["embedding"][ids[t]] + P["positions"][0, t] for t in range(n)]
    visible = (lambda t: range(t + 1)) if causal else (lambda t: range(n))
    middle = None
    for i in range(DEPTH):
        if i == DEPTH // 2:
            middle = [norm(f"blocks.{i}.norm1", x) for x in xs]
        xs = block(f"blocks.{i}", xs, visible)
    ys = [norm("norm", x) for x in xs]
    return ys, torch.stack(middle if causal else ys).mean(0)


def main():
    cases = {}
    for causal in [False, True]:
        for p in P.values():
            p.grad = None
        rows = [sequence(ids, causal) for ids in IDS]
        ys = torch.stack([y for ys, _ in rows for y in ys])  # [tokens, D], sequence after sequence
        features = torch.stack([f for _, f in rows])
        logits = ys @ P["embedding"][:V].T
        weights = value("weights", tuple(logits.shape)).double()
        (logits * weights).sum().backward()
        name = "transformer" + ("-causal" if causal else "")
        cases[name] = {
            "outputs": ys.flatten().tolist(),
            "features": features.flatten().tolist(),
            "logits": logits.flatten().tolist(),
            "gradients": {k: [p.grad.flatten()[1].item(), p.grad.norm().item()] for k, p in P.items()},
        }
    print("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in cases.items()) + "\n}")


main()
