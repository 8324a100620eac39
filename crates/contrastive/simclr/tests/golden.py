"""NT-Xent and its gradients by lightly (1.6) and PyTorch (2.11) in f64; without l2 norm and debiased (Chuang et al. 2020)
written out row by row. The literals of src/tests.rs.

    python golden.py
"""

import torch
from lightly.loss import NTXentLoss


def matrix(phase, n, d):
    """sin(1.3 m^2 + phase), m = i d + j: numbers without structure that any language can make."""
    m = torch.arange(n * d, dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(n, d).requires_grad_()


def show(n, d, loss, *inputs):
    """The loss, and of each gradient its first three entries and its norm."""
    grads = torch.autograd.grad(loss, inputs)
    numbers = ", ".join(f"[{v[0]:.12e}, {v[1]:.12e}, {v[2]:.12e}, {g.norm():.12e}]" for g in grads for v in [g.flatten()])
    print(f"({n}, {d}, {loss.item():.12}, [{numbers}]),")


def rows(a, b, temperature, normalise=True, tau_plus=0.0):
    """Each row's own loop over its negatives."""
    z = torch.cat([a, b])
    if normalise:
        z = z / z.norm(dim=1, keepdim=True)
    total, n = 0, len(a)
    for i in range(2 * n):
        positive = torch.exp(z[i] @ z[(i + n) % (2 * n)] / temperature)
        negative = sum(torch.exp(z[i] @ z[j] / temperature) for j in range(2 * n) if j % n != i % n)
        count = 2 * n - 2
        if tau_plus > 0:
            negative = (negative - tau_plus * count * positive) / (1 - tau_plus)
            negative = torch.clamp(negative, min=count * torch.exp(torch.tensor(-1 / temperature, dtype=z.dtype)))
        total = total - torch.log(positive / (positive + negative))
    return total / (2 * n)


for n, d, temperature in [(2, 3, 0.5), (8, 5, 0.1), (32, 16, 0.2)]:
    a, b = matrix(0.2, n, d), matrix(0.9, n, d)
    show(n, d, NTXentLoss(temperature=temperature)(a, b), a, b)

print("without l2 norm")
for n, d, temperature in [(2, 3, 0.5), (8, 5, 1.0), (32, 16, 10.0)]:
    a, b = matrix(0.2, n, d), matrix(0.9, n, d)
    show(n, d, rows(a, b, temperature, normalise=False), a, b)

print("debiased")
for n, d, temperature, tau_plus in [(2, 3, 0.5, 0.05), (8, 5, 0.5, 0.1), (32, 16, 0.2, 0.3)]:
    a, b = matrix(0.2, n, d), matrix(0.9, n, d)
    show(n, d, rows(a, b, temperature, tau_plus=tau_plus), a, b)

m = torch.arange(12, dtype=torch.float64).view(4, 3)
fixed = torch.sin(m + 1), torch.cos(2 * m + 1)
for temperature in [0.1, 0.5, 1.0]:
    print("fixed", temperature, NTXentLoss(temperature=temperature)(*fixed).item())
for tau_plus in [0.1, 0.3]:
    print("fixed, debiased", tau_plus, rows(*fixed, 0.5, tau_plus=tau_plus).item())
