"""MAE's forward pass and loss by PyTorch (2.11) in f64, written as loops over images and patches where the Rust code
gathers; the literals of src/tests.rs.

    python golden.py
"""

import math

import torch
from torch.nn import functional as F

B, C, S, PATCH, WIDTH, DEPTH, HEADS = 2, 3, 16, 4, 96, 4, 4
DW, DD, DH, RATIO = 16, 2, 2, 0.75
GRID = S // PATCH
L = GRID * GRID


def wave(phase, *shape):
    m = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(shape)


def block(name, d):
    for norm in ["norm1", "norm2"]:
        yield from [(f"{name}.{norm}.weight", (d,)), (f"{name}.{norm}.bias", (d,))]
    for layer, i, o in [("attn.qkv", d, 3 * d), ("attn.proj", d, d), ("mlp.fc1", d, 4 * d), ("mlp.fc2", 4 * d, d)]:
        yield from [(f"{name}.{layer}.weight", (o, i)), (f"{name}.{layer}.bias", (o,))]


def shapes():
    yield from [("encoder.patch_embed.proj.weight", (WIDTH, C, PATCH, PATCH)), ("encoder.patch_embed.proj.bias", (WIDTH,))]
    yield from [("encoder.cls_token", (1, 1, WIDTH)), ("encoder.norm.weight", (WIDTH,)), ("encoder.norm.bias", (WIDTH,))]
    for i in range(DEPTH):
        yield from block(f"encoder.blocks.{i}", WIDTH)
    yield from [("decoder.embed.weight", (DW, WIDTH)), ("decoder.embed.bias", (DW,)), ("decoder.mask_token", (1, 1, DW))]
    for i in range(DD):
        yield from block(f"decoder.blocks.{i}", DW)
    yield from [("decoder.norm.weight", (DW,)), ("decoder.norm.bias", (DW,))]
    n = PATCH * PATCH * C
    yield from [("decoder.head.weight", (n, DW)), ("decoder.head.bias", (n,))]


# The k-th name in alphabetical order is filled with 0.1 sin(1.3 m^2 + k), weights of norms with 1 more.
P = {}
for k, (name, shape) in enumerate(sorted(shapes())):
    P[name] = 0.1 * wave(k, *shape) + (1 if "norm" in name and name.endswith("weight") else 0)
    P[name] = P[name].float().double()


def linear(name, x):
    return x @ P[name + ".weight"].T + P[name + ".bias"]


def norm(name, x):
    return F.layer_norm(x, x.shape[-1:], P[name + ".weight"], P[name + ".bias"], 1e-6)


def transformer(name, x, depth, heads):
    """x is [T, D]: one image."""
    t, d = x.shape
    for i in range(depth):
        b = f"{name}.blocks.{i}"
        q, k, v = linear(b + ".attn.qkv", norm(b + ".norm1", x)).split(d, 1)
        out = []
        for h in range(heads):
            s = slice(h * d // heads, (h + 1) * d // heads)
            out.append((q[:, s] @ k[:, s].T / math.sqrt(d // heads)).softmax(1) @ v[:, s])
        x = x + linear(b + ".attn.proj", torch.cat(out, 1))
        x = x + linear(b + ".mlp.fc2", F.gelu(linear(b + ".mlp.fc1", norm(b + ".norm2", x))))
    return norm(name + ".norm", x)


def position(i, d):
    row, column = divmod(i, GRID)
    omega = [10000 ** (-2 * k / (d / 2)) for k in range(d // 4)]
    parts = [f(p * w) for p in (column, row) for f in (math.sin, math.cos) for w in omega]
    return torch.tensor(parts, dtype=torch.float64)


def patch(x, i):
    """Patch i of an image [C, S, S]: row, column, channel."""
    r, c = divmod(i, GRID)
    return torch.stack([x[k, r * PATCH + p, c * PATCH + q] for p in range(PATCH) for q in range(PATCH) for k in range(C)])


def mae(x, noise, norm_pix):
    w = P["encoder.patch_embed.proj.weight"].permute(0, 2, 3, 1).reshape(WIDTH, -1)
    keep = sorted(range(L), key=lambda i: noise[i])[: round(L * (1 - RATIO))]
    tokens = [w @ patch(x, i) + P["encoder.patch_embed.proj.bias"] + position(i, WIDTH) for i in keep]
    y = transformer("encoder", torch.stack([P["encoder.cls_token"][0, 0], *tokens]), DEPTH, HEADS)
    y = linear("decoder.embed", y)
    seen = {i: y[1 + k] for k, i in enumerate(keep)}
    full = [y[0]] + [seen.get(i, P["decoder.mask_token"][0, 0]) + position(i, DW) for i in range(L)]
    p = linear("decoder.head", transformer("decoder", torch.stack(full), DD, DH))[1:]
    errors = []
    for i in set(range(L)) - set(keep):
        t = patch(x, i)
        if norm_pix:
            t = (t - t.mean()) / (t.var(unbiased=True) + 1e-6).sqrt()
        errors.append(((p[i] - t) ** 2).mean())
    return p, errors


for norm_pix in [True, False]:
    xs, noise = wave(0.1, B, C, S, S).float().double(), wave(0.4, B, L)
    for v in P.values():
        v.requires_grad_().grad = None
    outputs = [mae(x, n, norm_pix) for x, n in zip(xs, noise)]
    loss = torch.stack([e for _, errors in outputs for e in errors]).mean()
    loss.backward()
    print("norm_pix", norm_pix, "loss", f"{loss.item():.9f}")
    p = torch.stack([p for p, _ in outputs])
    print("  prediction", [f"{v:.8f}" for v in p[1, 5, :4].tolist()], f"norm {p.norm().item():.7f}")
    for name in ["encoder.patch_embed.proj.weight", "encoder.cls_token", "decoder.mask_token", "decoder.head.bias"]:
        g = P[name].grad
        print(f'  ("{name}", {g.flatten()[1].item():.9e}, {g.norm().item():.9e}),')
    print("  gradient", f"{sum((v.grad ** 2).sum() for v in P.values()).sqrt().item():.9e}", len(P))
