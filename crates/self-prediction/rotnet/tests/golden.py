"""RotNet's loss and gradients by PyTorch (2.11) in f64, with rotations made as in the authors' data loader, out of
transposes and flips; the literals of src/tests.rs.

    python golden.py
"""

import math

import torch
from torch.nn import functional as F


def wave(phase, *shape):
    m = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(shape)


def rotate(image, angle):
    """image is [C, S, S]."""
    if angle == 90:
        return image.transpose(1, 2).flip(1)
    if angle == 180:
        return image.flip(1).flip(2)
    if angle == 270:
        return image.flip(1).transpose(1, 2)
    return image


def shapes(channels, classes):
    widths = [channels, 32, 48, 64, 128]
    for i in range(4):
        yield f"encoder.{i}.conv.weight", (widths[i + 1], widths[i], 3, 3)
        yield f"encoder.{i}.bn.weight", (widths[i + 1],)
        yield f"encoder.{i}.bn.bias", (widths[i + 1],)
    yield "classifier.weight", (classes, 128)
    yield "classifier.bias", (classes,)


def parameters(channels, classes):
    """The k-th name in alphabetical order is filled with 0.1 sin(1.3 m^2 + k), weights of norms with 1 more."""
    p = {}
    for k, (name, shape) in enumerate(sorted(shapes(channels, classes))):
        value = 0.1 * wave(k, *shape) + (1 if name.endswith("bn.weight") else 0)
        p[name] = value.float().double().requires_grad_()
    return p


def encoder(p, x):
    for i, stride in enumerate([2, 2, 2, 1]):
        x = F.conv2d(x, p[f"encoder.{i}.conv.weight"], stride=stride, padding=1)
        x = F.batch_norm(x, None, None, p[f"encoder.{i}.bn.weight"], p[f"encoder.{i}.bn.bias"], training=True)
        x = x.relu()
    return x.mean((2, 3))


for n, channels, side, angles in [(2, 3, 16, [0, 90, 180, 270]), (5, 1, 12, [0, 90, 180, 270]), (3, 3, 16, [90, 270])]:
    p = parameters(channels, len(angles))
    x = wave(0.1, n, channels, side, side).float().double()
    copies, labels = [], []
    for image in x:  # each image's copies beside each other
        for label, angle in enumerate(angles):
            copies.append(rotate(image, angle))
            labels.append(label)
    h = encoder(p, torch.stack(copies))
    logits = h @ p["classifier.weight"].T + p["classifier.bias"]
    loss = sum(-logits[i].log_softmax(0)[label] for i, label in enumerate(labels)) / len(labels)
    loss.backward()
    g = [p[name].grad for name in ["classifier.weight", "encoder.0.conv.weight", "encoder.3.bn.bias"]]
    numbers = ", ".join(f"({v.flatten()[1].item():.9e}, {v.norm().item():.9e})" for v in g)
    print(f"({n}, {channels}, {side}, vec!{angles}, {loss.item():.9f}, [{numbers}]),")
