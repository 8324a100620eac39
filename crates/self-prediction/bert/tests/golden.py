"""BERT's loss and gradients by PyTorch (2.11) in f64: loops over sequences and tokens, without padding; masks by the
steps of create_pretraining_data.py, but for the number of words. The literals of src/tests.rs.

    python golden.py
"""

import math

import torch
from torch.nn import functional as F

WIDTH, DEPTH, HEADS = 64, 6, 4


def wave(phase, *shape):
    m = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(shape)


def shapes(v, t):
    yield from [("encoder.embedding", (v + 1, WIDTH)), ("encoder.positions", (1, t, WIDTH))]
    yield from [("encoder.norm.weight", (WIDTH,)), ("encoder.norm.bias", (WIDTH,))]
    for i in range(DEPTH):
        block = f"encoder.blocks.{i}"
        for norm in ["norm1", "norm2"]:
            yield from [(f"{block}.{norm}.weight", (WIDTH,)), (f"{block}.{norm}.bias", (WIDTH,))]
        for name, n, m in [("attn.qkv", 1, 3), ("attn.proj", 1, 1), ("mlp.fc1", 1, 4), ("mlp.fc2", 4, 1)]:
            yield from [(f"{block}.{name}.weight", (m * WIDTH, n * WIDTH)), (f"{block}.{name}.bias", (m * WIDTH,))]
    yield from [("head.dense.weight", (WIDTH, WIDTH)), ("head.dense.bias", (WIDTH,))]
    yield from [("head.norm.weight", (WIDTH,)), ("head.norm.bias", (WIDTH,)), ("head.bias", (v,))]


def linear(P, name, x):
    return x @ P[name + ".weight"].T + P[name + ".bias"]


def norm(P, name, x, eps=1e-5):
    return F.layer_norm(x, x.shape[-1:], P[name + ".weight"], P[name + ".bias"], eps)


def encoder(P, ids):
    x = torch.stack([P["encoder.embedding"][i] + P["encoder.positions"][0, t] for t, i in enumerate(ids)])
    for i in range(DEPTH):
        b, d = f"encoder.blocks.{i}", WIDTH // HEADS
        q, k, v = linear(P, b + ".attn.qkv", norm(P, b + ".norm1", x)).split(WIDTH, 1)
        heads = [slice(h * d, (h + 1) * d) for h in range(HEADS)]
        y = [(q[:, s] @ k[:, s].T / math.sqrt(d)).softmax(1) @ v[:, s] for s in heads]
        x = x + linear(P, b + ".attn.proj", torch.cat(y, 1))
        x = x + linear(P, b + ".mlp.fc2", F.gelu(linear(P, b + ".mlp.fc1", norm(P, b + ".norm2", x))))
    return norm(P, "encoder.norm", x)


def words(ids, kinds):
    """kinds: a letter for each id, s: a separator, b: begins a word, g: goes on with one. Empty: tokens one by one."""
    if not kinds or all(kinds[token] == "s" for token in ids):
        return [[i] for i in range(len(ids))]
    out = []
    for i, token in enumerate(ids):
        behind_a_separator = i == 0 or kinds[ids[i - 1]] == "s"
        if kinds[token] == "b" or (kinds[token] == "g" and behind_a_separator):
            out.append([i])
        elif kinds[token] == "g":
            out[-1].append(i)
    return out


def masked(ids, noise, v, kinds, ratio, most, mix):
    """noise: three rows, as long as the padded sequence. Places -> originals, and what the encoder sees."""
    candidates = sorted(words(ids, kinds), key=lambda w: noise[0][w[0]])
    n = max(1, round(len(candidates) * ratio))
    places, taken = [], 0
    for word in candidates:
        if taken == n or (most and len(places) + len(word) > most):
            continue
        places += word
        taken += 1
    places = places or candidates[0]
    seen = list(ids)
    for p in places:
        if noise[1][p] < mix[0]:
            seen[p] = v
        elif noise[1][p] < mix[0] + mix[1]:
            seen[p] = int(noise[2][p] * v)
    return sorted(places), seen


CASES = [
    # V, T, kinds, ratio, most, (masked, random), sequences without their padding
    (7, 9, "", 0.4, 0, (0.4, 0.3), [[0, 3, 2, 6, 1, 1, 0, 5, 4], [2, 2, 0, 4]]),
    (7, 9, "ssbgggg", 0.5, 0, (0.8, 0.1), [[3, 3, 2, 0, 4, 5, 1, 0, 6], [0, 1, 5], [6, 2, 5, 4, 3, 2, 0]]),
    (7, 9, "sbbgggg", 0.8, 4, (0.6, 0.2), [[3, 4, 3, 1, 2, 6, 5, 0, 3], [2, 3, 4, 5, 6], [0, 0]]),
    (11, 5, "", 0.9, 2, (0.0, 1.0), [[10, 9, 1, 2, 3], [8]]),
]

for v, t, kinds, ratio, most, mix, rows in CASES:
    # The k-th name in alphabetical order is filled with 0.1 sin(1.3 m^2 + k), weights of norms with 1 more.
    P = {}
    for k, (name, shape) in enumerate(sorted(shapes(v, t))):
        P[name] = 0.1 * wave(k, *shape) + (1 if "norm" in name and name.endswith("weight") else 0)
        P[name] = P[name].float().double().requires_grad_()
    noise = ((wave(0.4, len(rows), 3, t) + 1) / 2.001).float().tolist()
    losses, inputs, targets = [], [], []
    for ids, n in zip(rows, noise):
        places, seen = masked(ids, n, v, kinds, ratio, most, mix)
        y = encoder(P, seen)[places]
        y = norm(P, "head.norm", F.gelu(linear(P, "head.dense", y)), 1e-12)
        logits = y @ P["encoder.embedding"][:v].T + P["head.bias"]
        losses += [-logits[i].log_softmax(0)[ids[p]] for i, p in enumerate(places)]
        inputs.append(seen)
        targets += [ids[p] for p in places]
    loss = sum(losses) / len(losses)
    loss.backward()
    norm_all = sum((p.grad**2).sum() for p in P.values()).sqrt()
    print((v, t, kinds), f"loss {loss.item():.9f}, gradient {norm_all.item():.9e}")
    print("  inputs", inputs, "targets", targets)
    for name in ["encoder.embedding", "encoder.blocks.2.attn.qkv.weight", "head.dense.weight", "head.bias"]:
        g = P[name].grad
        print(f'  ("{name}", {g.flatten()[1].item():.9e}, {g.norm().item():.9e}),')
