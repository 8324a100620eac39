"""AugSelf's targets, loss and gradients by PyTorch (2.11) in f64, image by image; the literals of src/tests.rs.

    python golden.py
"""

import math

import torch
from torch.nn import functional as F


def wave(phase, *shape):
    m = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(shape)


def draw(phase, n, s):
    """n views as they might have been drawn; s: strengths of brightness, contrast, saturation, hue."""
    w = wave(phase, n, 12)
    views = []
    for u in w.tolist():
        on = u[11] > -0.5
        views.append({
            "crop": [0.5 + 0.2 * u[0], 0.5 + 0.2 * u[1], 0.6 + 0.3 * u[2], 0.6 + 0.3 * u[3]],
            "flip": u[4] > 0,
            "factors": [1 + s[i] * u[5 + i] for i in range(3)] + [s[3] * u[8]] if on else None,
            "sigma": 1 + 0.9 * u[9] if u[9] > 0 else 0.0,
            "solarise": u[10] > 0,
        })
    return views


def targets(a, b, s, names):
    """What is to be told of the ordered pair (a, b)."""
    def crop(v):
        y, x, h, w = v["crop"]
        return [y, 1 - x if v["flip"] else x, h, w]

    def colour(v):
        if v["factors"] is None:
            return [0.0] * 4
        b, c, t, h = v["factors"]
        ranges = [(1 + s[i]) - max(0, 1 - s[i]) for i in range(3)]
        return [(b - 1) / ranges[0], (c - 1) / ranges[1], (t - 1) / ranges[2], h / (2 * s[3])]

    minus = lambda f: [p - q for p, q in zip(f(a), f(b))]
    all_targets = {
        "crop": minus(crop),
        "colour": minus(colour),
        "flip": [float(a["flip"] == b["flip"])],
        "blur": [(a["sigma"] - b["sigma"]) / 2.0],
        "solarise": [float(a["solarise"]) - float(b["solarise"])],
    }
    return {name: all_targets[name] for name in names}


WIDTH = {"crop": 4, "colour": 4, "flip": 1, "blur": 1, "solarise": 1}

for n, d, hidden, s, weights in [
    (4, 5, 8, [0.4, 0.4, 0.4, 0.1], {"crop": 1.0, "colour": 1.0}),
    (8, 3, 6, [0.8, 0.8, 0.2, 0.2], {"crop": 0.5, "colour": 2.0, "flip": 1.0, "blur": 0.3, "solarise": 0.7}),
    (3, 16, 12, [1.5, 0.5, 0.5, 0.5], {"colour": 1.0, "flip": 0.1}),
]:
    # The k-th name in alphabetical order is filled with 0.3 sin(1.3 m^2 + k), weights of norms with 1 more.
    shapes = {}
    for name in weights:
        shapes |= {f"{name}.0.weight": (hidden, 2 * d), f"{name}.1.weight": (hidden, hidden)}
        shapes |= {f"{name}.{i}.norm.{x}": (hidden,) for i in range(2) for x in ["weight", "bias"]}
        shapes |= {f"{name}.2.weight": (WIDTH[name], hidden), f"{name}.2.bias": (WIDTH[name],)}
    p = {}
    for k, name in enumerate(sorted(shapes)):
        value = 0.3 * wave(k, *shapes[name]) + (1 if name.endswith("norm.weight") else 0)
        p[name] = value.float().double().requires_grad_()
    ha, hb = (wave(phase, n, d).float().double().requires_grad_() for phase in [0.2, 0.9])
    a, b = draw(0.3, n, s), draw(0.8, n, s)
    pairs = [(ha[i], hb[i], targets(a[i], b[i], s, weights)) for i in range(n)]
    pairs += [(hb[i], ha[i], targets(b[i], a[i], s, weights)) for i in range(n)]
    losses = {}
    for name in weights:
        y = torch.stack([torch.cat([first, second]) for first, second, _ in pairs])
        for i in range(2):
            y = y @ p[f"{name}.{i}.weight"].T
            y = F.batch_norm(y, None, None, p[f"{name}.{i}.norm.weight"], p[f"{name}.{i}.norm.bias"], training=True).relu()
        y = y @ p[f"{name}.2.weight"].T + p[f"{name}.2.bias"]
        omega = torch.tensor([t[name] for _, _, t in pairs], dtype=torch.float64)
        losses[name] = F.binary_cross_entropy_with_logits(y, omega) if name == "flip" else F.mse_loss(y.tanh(), omega)
    total = sum(weight * losses[name] for name, weight in weights.items())
    total.backward()
    g = [ha.grad, hb.grad, p["colour.0.weight"].grad, p["colour.2.bias"].grad]
    numbers = ", ".join(f"({v.flatten()[1].item():.9e}, {v.norm().item():.9e})" for v in g)
    values = ", ".join(f"{weights.get(name, 0.0)}" for name in WIDTH)
    print(f"({n}, {d}, {hidden}, {s}, [{values}], {total.item():.9f}, [{numbers}]),")
    print("   colour of (a, b):", [round(v, 6) for v in pairs[1][2]["colour"]], {k: round(v.item(), 6) for k, v in losses.items()})
