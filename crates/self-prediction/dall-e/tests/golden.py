"""DALL-E's two losses by PyTorch (2.11) in f64: the first stage with the densities of torch.distributions, the
transformer of the second written row by row, without a mask. The literals of src/tests.rs.

    python golden.py
"""

import math

import torch
from torch.distributions import Categorical, Gumbel, Laplace, TransformedDistribution, kl_divergence
from torch.distributions.transforms import SigmoidTransform
from torch.nn import functional as F

torch.set_default_dtype(torch.float64)


def wave(phase, *shape):
    m = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(shape)


def show(*values):
    return ", ".join(f"{v.item():.10f}" for v in values)


print("first stage: gumbel-softmax, its gradient, KL, its gradient, logit-Laplace, its gradients")
for b, k, h, w, tau in [(2, 5, 2, 3, 1.0), (1, 8, 3, 3, 0.5), (3, 3, 1, 2, 0.25)]:
    l = (2 * wave(0.1, b, k, h, w)).requires_grad_()
    u = (wave(0.2, b, k, h, w) + 1.001) / 2.002
    g = Gumbel(0.0, 1.0).icdf(u)
    y = F.softmax((l + g) / tau, 1)
    (dy,) = torch.autograd.grad((y * wave(0.3, b, k, h, w)).sum(), l)
    q = Categorical(logits=l.permute(0, 2, 3, 1))
    kl = kl_divergence(q, Categorical(logits=torch.zeros(b, h, w, k))).sum((1, 2)).mean()
    (dkl,) = torch.autograd.grad(kl, l)
    mu, log_b = (2 * wave(0.4, b, k, h, w)).requires_grad_(), (wave(0.5, b, k, h, w) - 1).requires_grad_()
    x = (wave(0.6, b, k, h, w) + 1) / 2
    density = TransformedDistribution(Laplace(mu, log_b.exp()), [SigmoidTransform()])
    nll = -density.log_prob(0.8 * x + 0.1).mean()
    dmu, db = torch.autograd.grad(nll, [mu, log_b])
    values = show(y.norm(), dy.norm(), kl, dkl.norm(), nll, dmu.norm(), db.norm())
    print(f"    ([{b}, {k}, {h}, {w}], {tau}, [{values}]),")

C, CODES, VALUES, ENCODER = 3, 5, 16, 64
MEAN = torch.tensor([0.5, 0.4, 0.3]).float().double().view(1, C, 1, 1)
STD = torch.tensor([0.2, 0.3, 0.25]).float().double().view(1, C, 1, 1)


def first_shapes(channels):
    def conv(name, i, o, k):
        return [(f"{name}.weight", (o, i, k, k)), (f"{name}.bias", (o,))]

    yield from conv("encoder.down.0", C, ENCODER // 2, 4) + conv("encoder.down.1", ENCODER // 2, ENCODER, 4)
    yield from conv("encoder.conv", ENCODER, ENCODER, 3) + conv("logits", ENCODER, CODES, 1)
    yield from conv("decoder.conv", VALUES, VALUES, 3) + [("codes", (CODES, VALUES))]
    for net, width in [("encoder", ENCODER), ("decoder", VALUES)]:
        for i in range(2):
            yield from conv(f"{net}.blocks.{i}.conv3", width, width // 4, 3)
            yield from conv(f"{net}.blocks.{i}.conv1", width // 4, width, 1)
    yield from [("decoder.up.0.weight", (VALUES, VALUES // 2, 4, 4)), ("decoder.up.0.bias", (VALUES // 2,))]
    yield from [("decoder.up.1.weight", (VALUES // 2, channels, 4, 4)), ("decoder.up.1.bias", (channels,))]


def first(size, b, laplace, tau, beta):
    # The k-th name in alphabetical order is filled with 0.1 sin(1.3 m^2 + k), the codes with 0.7 sin(1.3 m^2 + 2).
    names = sorted(first_shapes(2 * C if laplace else C))
    P = {n: (0.1 * wave(k, *s)).float().double() for k, (n, s) in enumerate(names)}
    P["codes"] = (0.7 * wave(2, CODES, VALUES)).float().double()
    for v in P.values():
        v.requires_grad_()

    def layer(name, x, stride=1, padding=0):
        return F.conv2d(x, P[name + ".weight"], P[name + ".bias"], stride, padding)

    def blocks(name, x):
        for i in range(2):
            h = layer(f"{name}.blocks.{i}.conv3", F.relu(x), 1, 1)
            x = x + layer(f"{name}.blocks.{i}.conv1", F.relu(h))
        return F.relu(x)

    x = wave(0.1, b, C, size, size).float().double()
    h = F.relu(layer("encoder.down.0", x, 2, 1))
    h = F.relu(layer("encoder.down.1", h, 2, 1))
    l = layer("logits", blocks("encoder", layer("encoder.conv", h, 1, 1))).permute(0, 2, 3, 1)
    q = Categorical(logits=l)
    side = l.shape[1]
    u = ((wave(0.2, b, CODES, side, side) + 1.001) / 2.002).float().double().permute(0, 2, 3, 1)
    y = ((l + Gumbel(0.0, 1.0).icdf(u)) / tau).softmax(-1)
    z = sum(y[..., k, None] * P["codes"][k] for k in range(CODES)).permute(0, 3, 1, 2)
    out = blocks("decoder", layer("decoder.conv", z, 1, 1))
    out = F.relu(F.conv_transpose2d(out, P["decoder.up.0.weight"], P["decoder.up.0.bias"], 2, 1))
    out = F.conv_transpose2d(out, P["decoder.up.1.weight"], P["decoder.up.1.bias"], 2, 1)
    if laplace:
        density = TransformedDistribution(Laplace(out[:, :C], out[:, C:].exp()), [SigmoidTransform()])
        rec = -density.log_prob(0.8 * (STD * x + MEAN) + 0.1).mean()
    else:
        rec = ((out - x) ** 2).mean()
    kl = kl_divergence(q, Categorical(logits=torch.zeros_like(l))).sum((1, 2)).mean()
    total = rec + beta * kl / (C * size * size)
    total.backward()
    grads = [P[n].grad for n in ["encoder.down.0.weight", "logits.weight", "codes", "decoder.up.1.weight"]]
    norms, tenth = show(*[g.norm() for g in grads]), show(*[g.flatten()[9] for g in grads])
    print(f"    ({size}, {b}, {str(laplace).lower()}, {tau}, [{show(total, rec, kl)}], [{norms}], [{tenth}]),")


print("first stage: size, images, logit-Laplace, tau; total, -log p, KL; gradients' norms and tenth values")
first(8, 2, True, 0.4, 6.6)
first(12, 3, False, 0.0625, 100.0)

WIDTH, DEPTH, HEADS = 64, 6, 4


def shapes(vocabulary, length):
    yield "encoder.embedding", (vocabulary + 1, WIDTH)
    yield "encoder.positions", (1, length, WIDTH)
    for name in ["norm"] + [f"blocks.{i}.{n}" for i in range(DEPTH) for n in ["norm1", "norm2"]]:
        yield from [(f"encoder.{name}.weight", (WIDTH,)), (f"encoder.{name}.bias", (WIDTH,))]
    for i in range(DEPTH):
        for layer, a, b in [("attn.qkv", 1, 3), ("attn.proj", 1, 1), ("mlp.fc1", 1, 4), ("mlp.fc2", 4, 1)]:
            yield f"encoder.blocks.{i}.{layer}.weight", (b * WIDTH, a * WIDTH)
            yield f"encoder.blocks.{i}.{layer}.bias", (b * WIDTH,)


def run(text, image, batch, weight):
    (vt, t), (k, l) = text, image
    v = vt + t + k
    # The i-th name in alphabetical order is filled with 0.1 sin(1.3 m^2 + i), weights of norms with 1 more.
    p = {}
    for i, (name, shape) in enumerate(sorted(shapes(v, t + l))):
        p[name] = 0.1 * wave(i, *shape) + (1 if "norm" in name and name.endswith("weight") else 0)
        p[name] = p[name].float().double().requires_grad_()

    def linear(name, x):
        return p[f"encoder.{name}.weight"] @ x + p[f"encoder.{name}.bias"]

    def norm(name, x):
        return F.layer_norm(x, (WIDTH,), p[f"encoder.{name}.weight"], p[f"encoder.{name}.bias"], 1e-5)

    texts, images = [], []
    for b in range(batch):
        # Captions of 1, 2, .. tokens; behind them each place has a token of its own.
        caption = [(3 * b + j) % vt if j <= b else vt + j for j in range(t)]
        codes = [(5 * b + 2 * j) % k for j in range(l)]
        ids = [v] + caption + [vt + t + c for c in codes]
        rows = [p["encoder.embedding"][ids[i]] + p["encoder.positions"][0, i] for i in range(t + l)]
        for i in range(DEPTH):
            name, d = f"blocks.{i}", WIDTH // HEADS
            qkv = [linear(f"{name}.attn.qkv", norm(f"{name}.norm1", x)) for x in rows]
            for j in reversed(range(t + l)):
                heads = []
                for h in range(HEADS):
                    q, *kv = [slice(n * WIDTH + h * d, n * WIDTH + (h + 1) * d) for n in range(3)]
                    scores = torch.stack([qkv[j][q] @ qkv[m][kv[0]] for m in range(j + 1)]) / math.sqrt(d)
                    heads.append(sum(a * qkv[m][kv[1]] for m, a in enumerate(scores.softmax(0))))
                rows[j] = rows[j] + linear(f"{name}.attn.proj", torch.cat(heads))
                hidden = F.gelu(linear(f"{name}.mlp.fc1", norm(f"{name}.norm2", rows[j])))
                rows[j] = rows[j] + linear(f"{name}.mlp.fc2", hidden)
        for i, x in enumerate(rows):
            x = norm("norm", x)
            allowed = range(vt + t) if i < t else range(vt + t, v)
            logits = {n: p["encoder.embedding"][n] @ x for n in allowed}
            loss = torch.logsumexp(torch.stack(list(logits.values())), 0) - logits[ids[i + 1]]
            (texts if i < t else images).append(loss)
    text_loss, image_loss = torch.stack(texts).mean(), torch.stack(images).mean()
    total = (text_loss + weight * image_loss) / (1 + weight)
    total.backward()
    names = ["embedding", "positions", "blocks.0.attn.qkv.weight", "norm.bias"]
    norms = [p[f"encoder.{n}"].grad.norm() for n in names]
    print(f"    ({text}, {image}, {batch}, {weight}, [{show(text_loss, image_loss, total, *norms)}]),")


print("second stage: text, image, total; gradients of embedding, positions, first qkv, last norm's bias")
run((5, 3), (4, 4), 2, 7.0)
run((7, 4), (6, 9), 3, 1.0)
