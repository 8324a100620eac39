"""VQ-GAN's losses, lambda and gradients by PyTorch (2.11) in f64: two passes with two sets of weights, as the authors'
two optimisers see them, where the Rust code has one sum; the literals of src/tests.rs.

    python golden.py
"""

import math

import torch
from torch.nn import functional as F

C, WIDTH, HIDDEN, K, D = 3, 64, 8, 6, 4
DISC, LAYERS = 8, 2
STD = torch.tensor([0.2, 0.3, 0.25], dtype=torch.float64).view(1, C, 1, 1)
BETA, DISC_WEIGHT = 0.25, 0.8


def wave(phase, *shape):
    m = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(shape)


def conv(name, i, o, k):
    return [(f"{name}.weight", (o, i, k, k)), (f"{name}.bias", (o,))]


def norm(name, c):
    return [(f"{name}.weight", (c,)), (f"{name}.bias", (c,))]


def block(name, c):
    for i in "12":
        yield from norm(f"{name}.norm{i}", c) + conv(f"{name}.conv{i}", c, c, 3)


def shapes():
    yield from conv("encoder.down.0", C, WIDTH // 2, 4) + conv("encoder.down.1", WIDTH // 2, WIDTH, 4)
    yield from conv("encoder.conv", WIDTH, WIDTH, 3) + conv("project", WIDTH, D, 1)
    for i in range(2):
        yield from conv(f"encoder.blocks.{i}.conv3", WIDTH, WIDTH // 4, 3)
        yield from conv(f"encoder.blocks.{i}.conv1", WIDTH // 4, WIDTH, 1)
    yield ("codebook.codes", (K, D))
    yield from conv("decoder.first", D, HIDDEN, 3)
    yield from block("decoder.block", HIDDEN)
    for i in range(2):
        yield from conv(f"decoder.up.{i}.conv", HIDDEN >> i, HIDDEN >> (i + 1), 3)
        yield from block(f"decoder.up.{i}.block", HIDDEN >> (i + 1))
    yield from norm("decoder.norm", HIDDEN // 4) + conv("decoder.last", HIDDEN // 4, C, 3)
    yield from conv("discriminator.0", C, DISC, 4)
    yield ("discriminator.1.weight", (2 * DISC, DISC, 4, 4))
    yield from norm("discriminator.1.norm", 2 * DISC)
    yield ("discriminator.2.weight", (4 * DISC, 2 * DISC, 4, 4))
    yield from norm("discriminator.2.norm", 4 * DISC)
    yield from conv("discriminator.3", 4 * DISC, 1, 4)


def run(size, b, perceptual):
    # The k-th name in alphabetical order is filled with 0.1 sin(1.3 m^2 + k), weights of norms with 1 more; the codes
    # with 0.7 sin(1.3 m^2 + 2).
    P = {}
    for k, (name, shape) in enumerate(sorted(shapes())):
        one = 1 if "norm" in name and name.endswith("weight") else 0
        P[name] = (0.1 * wave(k, *shape) + one).float().double()
    P["codebook.codes"] = (0.7 * wave(2, K, D)).float().double()
    for v in P.values():
        v.requires_grad_()

    def layer(name, x, stride=1, padding=0):
        return F.conv2d(x, P[name + ".weight"], P.get(name + ".bias"), stride, padding)

    def swish(name, x, groups):
        x = F.group_norm(x, groups, P[name + ".weight"], P[name + ".bias"], 1e-6)
        return x * torch.sigmoid(x)

    def residual(name, x, groups):
        h = layer(name + ".conv1", swish(name + ".norm1", x, groups), 1, 1)
        return x + layer(name + ".conv2", swish(name + ".norm2", h, groups), 1, 1)

    def judge(x):
        x = F.leaky_relu(layer("discriminator.0", x, 2, 1), 0.2)
        for i, stride in [(1, 2), (2, 1)]:
            x = layer(f"discriminator.{i}", x, stride, 1)
            mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
            gamma, beta = [P[f"discriminator.{i}.norm.{n}"].view(1, -1, 1, 1) for n in ["weight", "bias"]]
            x = F.leaky_relu(gamma * (x - mean) / (var + 1e-5).sqrt() + beta, 0.2)
        return layer("discriminator.3", x, 1, 1)

    def features(x):
        # The fixed network: 0.3 sin(1.3 m^2 + 50 + i) in layer i, norms as they start.
        for i, (o, stride) in enumerate([(32, 2), (48, 2), (64, 2), (128, 1)]):
            w = (0.3 * wave(50 + i, o, x.shape[1], 3, 3)).float().double()
            x = F.relu(F.conv2d(x, w, None, stride, 1) / math.sqrt(1 + 1e-5))
        return x / (x.square().sum(1, keepdim=True) + 1e-10).sqrt()

    x = wave(0.1, b, C, size, size).float().double()
    h = F.relu(layer("encoder.down.0", x, 2, 1))
    h = layer("encoder.conv", F.relu(layer("encoder.down.1", h, 2, 1)), 1, 1)
    for i in range(2):
        h = h + layer(f"encoder.blocks.{i}.conv1", F.relu(layer(f"encoder.blocks.{i}.conv3", F.relu(h), 1, 1)))
    z = layer("project", F.relu(h))
    e = P["codebook.codes"]
    places = z.permute(0, 2, 3, 1)
    index = (places.unsqueeze(-2) - e).square().sum(-1).argmin(-1)
    q = e[index].permute(0, 3, 1, 2)
    y = layer("decoder.first", z + (q - z).detach(), 1, 1)
    y = residual("decoder.block", y, 2)
    for i in range(2):
        y = layer(f"decoder.up.{i}.conv", y.repeat_interleave(2, 2).repeat_interleave(2, 3), 1, 1)
        y = residual(f"decoder.up.{i}.block", y, 1)
    y = layer("decoder.last", swish("decoder.norm", y, 1), 1, 1)

    rec = (2 * STD * (x - y)).abs().mean()
    if perceptual:
        rec = rec + perceptual * (features(x) - features(y)).square().sum(1).mean()
    g = -judge(y).mean()
    W = P["decoder.last.weight"]
    norm_rec, norm_g = [torch.autograd.grad(loss, W, retain_graph=True)[0].norm() for loss in (rec, g)]
    lam = (norm_rec / (norm_g + 1e-4)).clamp(0, 1e4).detach()
    vq = (q - z.detach()).square().mean() + BETA * (z - q.detach()).square().mean()
    l_g = rec + DISC_WEIGHT * lam * g + vq
    l_d = 0.5 * (F.relu(1 - judge(x)).mean() + F.relu(1 + judge(y.detach())).mean())

    names = [n for n in P if not n.startswith("discriminator")]
    grads = dict(zip(names, torch.autograd.grad(l_g, [P[n] for n in names], retain_graph=True)))
    names = [n for n in P if n.startswith("discriminator")]
    grads.update(zip(names, torch.autograd.grad(l_d, [P[n] for n in names])))
    print(f"size {size}, images {b}, perceptual {perceptual}: total {(l_g + l_d).item():.9f}, rec {rec.item():.9f},")
    print(f"  g {g.item():.9f}, lambda {lam.item():.7f}, l_d {l_d.item():.9f}, codes {index.unique().tolist()}")
    for n in ["encoder.down.0.weight", "codebook.codes", "decoder.last.weight", "decoder.first.weight",
              "discriminator.0.weight", "discriminator.2.norm.weight", "discriminator.3.weight"]:
        print(f'  ("{n}", {grads[n].flatten()[9].item():.9e}, {grads[n].norm().item():.9e}),')


run(16, 2, 0.0)
run(20, 3, 0.5)
