"""NT-Xent and its gradients by lightly (1.6) and PyTorch (2.11) in f64, the literals of src/tests.rs.

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


for n, d, temperature in [(2, 3, 0.5), (8, 5, 0.1), (32, 16, 0.2)]:
    a, b = matrix(0.2, n, d), matrix(0.9, n, d)
    show(n, d, NTXentLoss(temperature=temperature)(a, b), a, b)

m = torch.arange(12, dtype=torch.float64).view(4, 3)
fixed = torch.sin(m + 1), torch.cos(2 * m + 1)
for temperature in [0.1, 0.5, 1.0]:
    print("fixed", temperature, NTXentLoss(temperature=temperature)(*fixed).item())
