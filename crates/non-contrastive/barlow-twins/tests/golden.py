"""Barlow Twins' loss and its gradients by PyTorch (2.11) in f64, with the normalisation and the off-diagonal sum
written out, and lightly's value beside it; the literals of src/tests.rs.

    python golden.py
"""

import torch
from lightly.loss import BarlowTwinsLoss


def matrix(phase, n, d):
    """sin(1.3 m^2 + phase), m = i d + j: numbers without structure that any language can make."""
    m = torch.arange(n * d, dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(n, d).requires_grad_()


def show(n, d, loss, *inputs):
    """The loss, and of each gradient its first three entries and its norm."""
    grads = torch.autograd.grad(loss, inputs)
    numbers = ", ".join(f"[{v[0]:.12e}, {v[1]:.12e}, {v[2]:.12e}, {g.norm():.12e}]" for g in grads for v in [g.flatten()])
    print(f"({n}, {d}, {loss.item():.12}, [{numbers}]),")


def loss(a, b, weight, over=0, invariance=1.0):
    """`over`: the dimension that is normalised over, or None: it is only centred over the batch."""
    if over is None:
        a, b = [z - z.mean(0) for z in (a, b)]
    else:
        a, b = [(z - z.mean(over, True)) / (z.var(over, unbiased=False, keepdim=True) + 1e-5).sqrt() for z in (a, b)]
    c = torch.einsum("ni,nj->ij", a, b) / len(a)
    eye = torch.eye(c.shape[0], dtype=torch.bool)
    return invariance * ((1 - c[eye]) ** 2).sum() + weight * (c[~eye] ** 2).sum()


def crossed(a, b, weight, temperature):
    """The cross-entropy over the entries of C."""
    a, b = [(z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt() for z in (a, b)]
    c = torch.einsum("ni,nj->ij", a, b) / len(a)
    eye = torch.eye(c.shape[0], dtype=torch.bool)
    on, off = (c[eye] / temperature).exp().sum().log(), (c[~eye].clamp(min=0) / temperature).exp().sum().log()
    return -on + weight * off


for n, d in [(3, 2), (8, 5), (32, 16)]:
    a, b = matrix(0.2, n, d), matrix(0.9, n, d)
    ours, theirs = loss(a, b, 0.0051), BarlowTwinsLoss(lambda_param=0.0051)(a, b)
    assert torch.allclose(ours, theirs, rtol=1e-12), (ours, theirs)
    show(n, d, ours, a, b)

for name, n, d, switches in [
    ("feature", 3, 2, dict(weight=0.0051, over=1)),
    ("feature", 8, 5, dict(weight=0.0051, over=1)),
    ("feature", 32, 16, dict(weight=0.0051, over=1)),
    ("off", 3, 2, dict(weight=0.0051, over=None)),
    ("off", 8, 5, dict(weight=0.0051, over=None)),
    ("off", 32, 16, dict(weight=0.0051, over=None)),
    ("invariance", 8, 5, dict(weight=0.0)),
    ("redundancy", 8, 5, dict(weight=0.0051, invariance=0.0)),
]:
    print(name)
    a, b = matrix(0.2, n, d), matrix(0.9, n, d)
    show(n, d, loss(a, b, **switches), a, b)

print("temperature")
for n, d, weight, temperature in [(3, 2, 1.0, 0.5), (8, 5, 0.5, 0.2), (32, 16, 1.0, 0.1)]:
    a, b = matrix(0.2, n, d), matrix(0.9, n, d)
    show(n, d, crossed(a, b, weight, temperature), a, b)

m = torch.arange(12, dtype=torch.float64).view(4, 3)
fixed = torch.sin(m + 1), torch.cos(2 * m + 1)
print("fixed", loss(*fixed, 0.0051).item(), "on", loss(*fixed, 0.0).item())
