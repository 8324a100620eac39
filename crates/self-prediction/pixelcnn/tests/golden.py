"""PixelCNN's likelihood by PyTorch (2.11) in f64, written pixel by pixel: each place adds up the places that it may
see, where the Rust code masks and shifts whole convolutions. The literals of src/tests.rs.

    python golden.py
"""

import math

import torch

WIDTH, LAYERS, HIDDEN, MEAN, STD = 6, 3, 9, 0.3, 0.4


def wave(phase, *shape):
    m = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(shape)


def shapes(gated, channels, k, codes):
    inputs = WIDTH if codes else channels
    layers = {"head.0": (HIDDEN, WIDTH, 1, 1), "head.1": (channels * k, HIDDEN, 1, 1)}
    if gated:
        for i in range(LAYERS):
            n, size = (inputs, 7) if i == 0 else (WIDTH, 3)
            name = f"encoder.layers.{i}"
            layers[f"{name}.vertical"] = (2 * WIDTH, n, size // 2 + 1, size)
            layers[f"{name}.vertical_to_horizontal"] = (2 * WIDTH, 2 * WIDTH, 1, 1)
            layers[f"{name}.horizontal"] = (2 * WIDTH, n, 1, size // 2 + 1)
            layers[f"{name}.output"] = (WIDTH, WIDTH, 1, 1)
    else:
        layers["encoder.layers.0"] = (WIDTH, inputs, 7, 7)
        for i in range(1, LAYERS):
            layers[f"encoder.layers.{i}.narrow"] = (WIDTH // 2, WIDTH, 1, 1)
            layers[f"encoder.layers.{i}.conv"] = (WIDTH // 2, WIDTH // 2, 3, 3)
            layers[f"encoder.layers.{i}.widen"] = (WIDTH, WIDTH // 2, 1, 1)
    if codes:
        yield "encoder.embedding", (k, WIDTH)
    for name, shape in layers.items():
        yield from [(f"{name}.weight", shape), (f"{name}.bias", shape[:1])]


class Model:
    def __init__(self, gated, channels, k, codes):
        self.gated, self.channels, self.k, self.codes = gated, channels, k, codes
        # The i-th name in alphabetical order is filled with 0.3 sin(1.3 m^2 + i).
        names = sorted(shapes(gated, channels, k, codes))
        self.p = {n: (0.3 * wave(i, *s)).float().double().requires_grad_() for i, (n, s) in enumerate(names)}

    def colour(self, channel, channels):
        return channel * self.channels // channels

    def at(self, name, x, r, c, places, strict, halves=1):
        """One output place: places lists (row offset, column offset, kernel row, kernel column)."""
        w, y = self.p[name + ".weight"], self.p[name + ".bias"]
        for dr, dc, kr, kc in places:
            if 0 <= r + dr < x.shape[1] and 0 <= c + dc < x.shape[2]:
                here = w[:, :, kr, kc]
                if (dr, dc) == (0, 0) and strict is not None:
                    n_out, n_in = here.shape[0] // halves, here.shape[1]
                    keep = [
                        [
                            float(self.colour(i, n_in) < self.colour(o % n_out, n_out) + (0 if strict else 1))
                            for i in range(n_in)
                        ]
                        for o in range(here.shape[0])
                    ]
                    here = here * torch.tensor(keep, dtype=torch.float64)
                y = y + here @ x[:, r + dr, c + dc]
        return y

    def everywhere(self, f, h, w):
        return torch.stack([torch.stack([f(r, c) for c in range(w)], 1) for r in range(h)], 1)

    def stack(self, x):
        """x [C, H, W] -> activations [WIDTH, H, W]."""
        _, h, w = x.shape
        one = [(0, 0, 0, 0)]
        if self.gated:
            gate = lambda y: torch.tanh(y[:WIDTH]) * torch.sigmoid(y[WIDTH:])
            v, z = x, x
            for i in range(LAYERS):
                name, half = f"encoder.layers.{i}", 3 if i == 0 else 1
                above = [(dr, dc, dr + half, dc + half) for dr in range(-half, 1) for dc in range(-half, half + 1)]
                if i == 0:
                    above = [p for p in above if p[0] < 0]
                left = [(0, dc, 0, dc + half) for dc in range(-half, 1)]
                v = self.everywhere(lambda r, c: self.at(name + ".vertical", v, r, c, above, None), h, w)
                down = name + ".vertical_to_horizontal"
                across = self.everywhere(lambda r, c: self.at(down, v, r, c, one, None), h, w)
                own = self.everywhere(lambda r, c: self.at(name + ".horizontal", z, r, c, left, i == 0, 2), h, w)
                y = gate(own + across)
                y = self.everywhere(lambda r, c: self.at(name + ".output", y, r, c, one, False), h, w)
                z = y if i == 0 else y + z
                v = gate(v)
            return z
        seen = lambda half: [
            (dr, dc, dr + half, dc + half)
            for dr in range(-half, 1)
            for dc in range(-half, half + 1)
            if dr < 0 or dc <= 0
        ]
        y = self.everywhere(lambda r, c: self.at("encoder.layers.0", x, r, c, seen(3), True), h, w)
        for i in range(1, LAYERS):
            name, z = f"encoder.layers.{i}", y
            for part, places in [("narrow", one), ("conv", seen(1)), ("widen", one)]:
                z = z.relu()
                z = self.everywhere(lambda r, c: self.at(f"{name}.{part}", z, r, c, places, False), h, w)
            y = y + z
        return y

    def logits(self, x):
        """x [C, H, W] of values -> [C, K, H, W]."""
        z = (x.double() / (self.k - 1) - MEAN) / STD
        if self.codes:
            z = self.p["encoder.embedding"][x[0]].permute(2, 0, 1)
        y, one = self.stack(z), [(0, 0, 0, 0)]
        for i in range(2):
            y = y.relu()
            y = self.everywhere(lambda r, c: self.at(f"head.{i}", y, r, c, one, False), *y.shape[1:])
        return y.view(self.channels, self.k, *y.shape[1:])


for name, gated, channels, k, codes, size in [
    ("gated grey", True, 1, 4, False, 5),
    ("gated colour", True, 3, 8, False, 4),
    ("plain grey", False, 1, 4, False, 6),
    ("plain colour", False, 3, 8, False, 4),
    ("gated codes", True, 1, 5, True, 3),
]:
    model = Model(gated, channels, k, codes)
    pixels = (wave(0.1, 2, channels, size, size).float().double() + 1) / 2
    x = (pixels * k).floor().long().clamp(0, k - 1)
    logits = torch.stack([model.logits(one) for one in x])
    loss = -logits.log_softmax(2).gather(2, x.unsqueeze(2)).mean()
    loss.backward()
    total = sum((v.grad**2).sum() for v in model.p.values()).sqrt().item()
    values = f"{loss.item():.10f}, {logits.norm().item():.9f}, {logits[1, -1, 2, -1, 1].item():.9f}, {total:.9f}"
    print(f'("{name}", {values}, &[')
    first = "encoder.layers.0.horizontal" if gated else "encoder.layers.0"
    for v in [first + ".weight", "encoder.layers.1." + ("vertical" if gated else "conv") + ".weight", "head.1.bias"]:
        print(f'    ("{v}", {model.p[v].grad.norm().item():.9e}),')
    print("]),")

# A picture that is no square, straight into the layers.
for gated in [True, False]:
    y = Model(gated, 1, 4, False).stack(wave(0.2, 1, 4, 7))
    print("4 x 7:", gated, f"{y.norm().item():.9f}, {y[2, 3, 5].item():.9f}")
