"""VQ-VAE's forward pass, loss, gradients and moving averages by PyTorch (2.11) in f64, nearest codes found by loops
over images and places where the Rust code expands the square; the literals of src/tests.rs.

    python golden.py
"""

import math

import torch
from torch.nn import functional as F

C, WIDTH, HIDDEN, K, D = 3, 64, 8, 6, 4
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.25]
BETA, TAU, EPS = 0.25, 0.99, 1e-5


def wave(phase, *shape):
    m = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(shape)


def conv(name, i, o, k):
    return [(f"{name}.weight", (o, i, k, k)), (f"{name}.bias", (o,))]


def shapes(gradient):
    yield from conv("encoder.down.0", C, WIDTH // 2, 4)
    yield from conv("encoder.down.1", WIDTH // 2, WIDTH, 4)
    yield from conv("encoder.conv", WIDTH, WIDTH, 3)
    yield from conv("project", WIDTH, D, 1)
    yield from conv("decoder.conv", D, HIDDEN, 3)
    for net, width in [("encoder", WIDTH), ("decoder", HIDDEN)]:
        for i in range(2):
            yield from conv(f"{net}.blocks.{i}.conv3", width, width // 4, 3)
            yield from conv(f"{net}.blocks.{i}.conv1", width // 4, width, 1)
    yield from [("decoder.up.0.weight", (HIDDEN, HIDDEN // 2, 4, 4)), ("decoder.up.0.bias", (HIDDEN // 2,))]
    yield from [("decoder.up.1.weight", (HIDDEN // 2, C, 4, 4)), ("decoder.up.1.bias", (C,))]
    if gradient:
        yield ("codebook.codes", (K, D))


def run(size, b, gradient):
    # The k-th name in alphabetical order is filled with 0.1 sin(1.3 m^2 + k); the codes with
    # 0.7 sin(1.3 m^2 + 2).
    P = {n: (0.1 * wave(k, *s)).float().double() for k, (n, s) in enumerate(sorted(shapes(gradient)))}
    P["codebook.codes"] = (0.7 * wave(2, K, D)).float().double()
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
    z = layer("project", blocks("encoder", layer("encoder.conv", h, 1, 1)))

    e = P["codebook.codes"]
    side = z.shape[2]
    index = [[[min(range(K), key=lambda k: ((z[i, :, r, c] - e[k]) ** 2).sum().item()) for c in range(side)]
              for r in range(side)] for i in range(b)]
    q = torch.stack([torch.stack([torch.stack([e[k] for k in row], -1) for row in image], -2) for image in index])
    zq = z + (q - z).detach()

    y = blocks("decoder", layer("decoder.conv", zq, 1, 1))
    y = F.conv_transpose2d(y, P["decoder.up.0.weight"], P["decoder.up.0.bias"], 2, 1)
    y = F.conv_transpose2d(F.relu(y), P["decoder.up.1.weight"], P["decoder.up.1.bias"], 2, 1)

    # In pixels; their variance is that of all channels together, by the law of total variance.
    mean = sum(MEAN) / C
    var = sum(s * s + (m - mean) ** 2 for s, m in zip(STD, MEAN)) / C
    pixels = torch.tensor(STD, dtype=torch.float64).view(1, C, 1, 1)
    rec = (((x - y) * pixels) ** 2).mean() / var
    loss = rec + BETA * ((z - q.detach()) ** 2).mean()
    if gradient:
        loss = loss + ((z.detach() - q) ** 2).mean()
    loss.backward()
    flat = [k for image in index for row in image for k in row]
    print(f"Case {{ size: {size}, images: {b}, gradient: {str(gradient).lower()}, loss: {loss.item():.9f},")
    print(f"    reconstruction: {rec.item():.9f}, codes: {flat},")
    for name in ["encoder.down.0.weight", "project.weight", "decoder.up.1.weight"]:
        g = P[name].grad
        print(f'    ("{name}", {g.flatten()[1].item():.9e}, {g.norm().item():.9e}),')
    if gradient:
        print(f'    ("codebook.codes", {e.grad.flatten()[9].item():.9e}, {e.grad.norm().item():.9e}),')
    else:
        places = z.detach().permute(0, 2, 3, 1).reshape(-1, D)
        n = torch.ones(K, dtype=torch.float64)
        m = e.detach().clone()
        for k in range(K):
            members = [p for p, j in zip(places, flat) if j == k]
            n[k] = TAU * n[k] + (1 - TAU) * len(members)
            m[k] = TAU * m[k] + (1 - TAU) * (sum(members) if members else 0)
        smooth = (n + EPS) / (n.sum() + K * EPS) * n.sum()
        after = m / smooth[:, None]
        print(f"    moved {(after - e.detach()).norm().item():.9e}, code 2 {[round(v, 9) for v in after[2].tolist()]}")


for size, b in [(8, 2), (12, 3)]:
    for gradient in [False, True]:
        run(size, b, gradient)
