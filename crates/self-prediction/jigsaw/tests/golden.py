"""Jigsaw's puzzle, loss and gradients by PyTorch (2.11) in f64, image by image and tile by tile where the Rust code
gathers, and the permutation set by NumPy (2.x) over all permutations; the literals of src/tests.rs.

    python golden.py
"""

import itertools
import math

import numpy as np
import torch
from torch.nn import functional as F


def wave(phase, *shape):
    m = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(shape)


def shapes(channels, cells, tile_hidden, hidden, n):
    widths = [channels, 32, 48, 64, 128]
    for i in range(4):
        yield f"encoder.{i}.conv.weight", (widths[i + 1], widths[i], 3, 3)
        yield f"encoder.{i}.bn.weight", (widths[i + 1],)
        yield f"encoder.{i}.bn.bias", (widths[i + 1],)
    yield "fc6.0.weight", (tile_hidden, 128)
    if hidden:
        yield from [("context.0.weight", (hidden, cells * tile_hidden)), ("context.0.bias", (hidden,))]
        yield from [("context.1.weight", (n, hidden)), ("context.1.bias", (n,))]
    else:
        yield from [("context.0.weight", (n, cells * tile_hidden)), ("context.0.bias", (n,))]


def parameters(*args):
    """The k-th name in alphabetical order is filled with 0.1 sin(1.3 m^2 + k), weights of norms with 1 more."""
    p = {}
    for k, (name, shape) in enumerate(sorted(shapes(*args))):
        value = 0.1 * wave(k, *shape) + (1 if name.endswith("bn.weight") else 0)
        p[name] = value.float().double().requires_grad_()
    return p


def tower(p, x):
    for i, stride in enumerate([2, 2, 2, 1]):
        x = F.conv2d(x, p[f"encoder.{i}.conv.weight"], stride=stride, padding=1)
        x = F.batch_norm(x, None, None, p[f"encoder.{i}.bn.weight"], p[f"encoder.{i}.bn.bias"], training=True)
        x = x.relu()
    h = x.mean((2, 3)) @ p["fc6.0.weight"].T
    return ((h - h.mean(0)) / (h.var(0, unbiased=False) + 1e-5).sqrt()).relu()


def permutations(cells, n, first, nearest=False):
    """Algorithm 1, from a given first permutation: by the mean distance, or by that to the nearest."""
    rest = np.array(list(itertools.permutations(range(cells))))
    chosen, place = [], first
    while True:
        chosen.append(rest[place])
        rest = np.delete(rest, place, 0)
        if len(chosen) == n:
            return np.array(chosen)
        distance = np.stack([(rest != p).sum(1) for p in chosen])
        place = (distance.min(0) if nearest else distance.sum(0)).argmax()


# n images of c channels and s pixels, a grid, tiles of t pixels, N permutations; channels move by up to `most` pixels.
for n, c, s, grid, t, count, tile_hidden, hidden, normalise, most in [
    (3, 1, 28, 2, 12, 24, 8, 16, True, 0),
    (2, 3, 30, 3, 9, 50, 4, 0, True, 0),
    (3, 1, 28, 2, 12, 24, 8, 16, False, 0),
    (2, 3, 30, 3, 9, 50, 4, 0, True, 2),
]:
    cells, cell = grid * grid, s // grid
    p = parameters(c, cells, tile_hidden, hidden, count)
    x = wave(0.1, n, c, s, s).float().double()
    uniform = wave(0.4, n, 1 + 2 * cells + (2 * cells * c if most else 0)) * 0.499 + 0.5  # (0, 1)
    orders = permutations(cells, count, 5)
    tiles, labels = [], []
    for image, u in zip(x, uniform):
        label = math.floor(u[0].item() * count)
        cut = []
        for i in range(cells):
            top = i // grid * cell + math.floor(u[1 + 2 * i].item() * (cell - t + 1))
            left = i % grid * cell + math.floor(u[2 + 2 * i].item() * (cell - t + 1))
            windows = []
            for k in range(c):
                row, column = top, left
                if most:
                    place = 1 + 2 * cells + 2 * (c * i + k)
                    row += math.floor(u[place].item() * (2 * most + 1)) - most
                    column += math.floor(u[place + 1].item() * (2 * most + 1)) - most
                row, column = min(max(row, 0), s - t), min(max(column, 0), s - t)
                windows.append(image[k, row : row + t, column : column + t])
            tile = torch.stack(windows)
            if normalise:
                tile = torch.stack([(v - v.mean()) / v.std() for v in tile])
            cut.append(tile)
        tiles += [cut[i] for i in orders[label]]
        labels.append(label)
    f = tower(p, torch.stack(tiles)).view(n, -1)
    y = f @ p["context.0.weight"].T + p["context.0.bias"]
    if hidden:
        y = y.relu() @ p["context.1.weight"].T + p["context.1.bias"]
    loss = sum(-y[i].log_softmax(0)[label] for i, label in enumerate(labels)) / n
    loss.backward()
    g = [p[name].grad for name in ["context.0.weight", "encoder.0.conv.weight", "fc6.0.weight"]]
    numbers = ", ".join(f"({v.flatten()[1].item():.9e}, {v.norm().item():.9e})" for v in g)
    print(f"({n}, {c}, {s}, {grid}, {count}, {tile_hidden}, {hidden}, {str(normalise).lower()}, {most}, {loss.item():.9f}, [{numbers}]),")
    print("   labels", labels)

print("sets: first place, number, by the nearest, the last chosen, sum of i * entry over the set")
for cells, n, first, nearest in [(4, 24, 5, False), (4, 8, 0, False), (9, 40, 100_000, False), (9, 40, 100_000, True)]:
    chosen = permutations(cells, n, first, nearest)
    flat = chosen.flatten()
    total = int((flat * np.arange(1, len(flat) + 1)).sum())
    print(f"({cells}, {n}, {first}, {str(nearest).lower()}, {list(map(int, chosen[-1]))}, {total}),")
