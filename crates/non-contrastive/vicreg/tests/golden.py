"""VICReg and its gradients by lightly (1.6) in f64, the literals of src/tests.rs; its three versions on a fixed input.

    python golden.py
"""

import torch
from lightly.loss import VICRegLoss


def matrix(phase, n, d):
    """sin(1.3 m^2 + phase), m = i d + j: numbers without structure that any language can make."""
    m = torch.arange(n * d, dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(n, d).requires_grad_()


def show(n, d, loss, *inputs):
    """The loss, and of each gradient its first three entries and its norm."""
    grads = torch.autograd.grad(loss, inputs)
    numbers = ", ".join(f"[{v[0]:.12e}, {v[1]:.12e}, {v[2]:.12e}, {g.norm():.12e}]" for g in grads for v in [g.flatten()])
    print(f"({n}, {d}, {loss.item():.12}, [{numbers}]),")


for n, d, weights in [(2, 3, (25, 25, 1)), (8, 5, (25, 25, 1)), (32, 16, (1, 2, 30))]:
    a, b = matrix(0.2, n, d), matrix(0.9, n, d)
    lightly = VICRegLoss(lambda_param=weights[0], mu_param=weights[1], nu_param=weights[2], eps=1e-4)
    show(n, d, lightly(a, b), a, b)

print("normalised over the batch, and by row")
over_batch = lambda z: (z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt()
by_row = lambda z: z / z.norm(dim=1, keepdim=True) * z.shape[1] ** 0.5
for normalise in (over_batch, by_row):
    for n, d in [(3, 2), (8, 5), (32, 16)]:
        a, b = matrix(0.2, n, d), matrix(0.9, n, d)
        show(n, d, VICRegLoss(eps=1e-4)(normalise(a), normalise(b)), a, b)


def terms(a, b):
    """Written from the equations, pair of columns by pair of columns."""
    n, d = a.shape
    s = ((a - b) ** 2).sum() / (n * d)
    v, c = [], []
    for z in (a, b):
        z = z - z.mean(0)
        v.append(sum(max(0.0, 1 - ((z[:, j] ** 2).sum() / (n - 1) + 1e-4) ** 0.5) for j in range(d)) / d)
        c.append(sum(((z[:, i] * z[:, j]).sum() / (n - 1)) ** 2 for i in range(d) for j in range(d) if i != j) / d)
    return s, v, c


m = torch.arange(12, dtype=torch.float64).view(4, 3)
s, v, c = terms(torch.sin(m + 1), torch.cos(2 * m + 1))
print("terms", s.item(), v[0].item(), v[1].item(), (c[0] + c[1]).item())
print("authors' code", (25 * s + 25 * (v[0] + v[1]) / 2 + c[0] + c[1]).item())
print("algorithm 1", (25 * s + 25 * (v[0] + v[1]) + c[0] + c[1]).item())
print("equation 5", (25 * 3 * s + 25 * (v[0] + v[1]) + c[0] + c[1]).item())
