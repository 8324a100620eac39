"""BYOL's distance, 2 - 2 cos, and its gradients by lightly (1.6) and PyTorch (2.11) in f64; with negatives written out
row by row. The literals of src/tests.rs.

    python golden.py
"""

import torch
from lightly.loss import NegativeCosineSimilarity


def matrix(phase, n, d):
    """sin(1.3 m^2 + phase), m = i d + j: numbers without structure that any language can make."""
    m = torch.arange(n * d, dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(n, d).requires_grad_()


def show(n, d, loss, *inputs):
    """The loss, and of each gradient its first three entries and its norm."""
    grads = torch.autograd.grad(loss, inputs)
    numbers = ", ".join(f"[{v[0]:.12e}, {v[1]:.12e}, {v[2]:.12e}, {g.norm():.12e}]" for g in grads for v in [g.flatten()])
    print(f"({n}, {d}, {loss.item():.12}, [{numbers}]),")


def with_negatives(p, z, beta, alpha):
    """Both directions, targets without a gradient; each row's own loop over the targets."""
    p = [x / x.norm(dim=1, keepdim=True) for x in p]
    z = [x.detach() / x.detach().norm(dim=1, keepdim=True) for x in z]
    total, n = 0, len(p[0])
    for view in range(2):
        own, other = z[view], z[1 - view]
        for i in range(n):
            q = p[view][i]
            rest = sum(torch.exp(q @ own[j] / alpha) for j in range(n) if j != i)
            rest = rest + sum(torch.exp(q @ other[j] / alpha) for j in range(n))
            total = total + 2 - 2 * (q @ other[i]) + 2 * alpha * beta * torch.log(rest)
    return total / n


for n, d in [(2, 3), (8, 5), (32, 16)]:
    p, z = matrix(0.2, n, d), matrix(0.9, n, d)
    show(n, d, 2 + 2 * NegativeCosineSimilarity()(p, z), p, z)

print("with negatives")
for n, d, beta, alpha in [(2, 3, 1.0, 0.1), (8, 5, 0.5, 0.2), (32, 16, 1.0, 0.5)]:
    p = [matrix(0.2, n, d), matrix(0.9, n, d)]
    show(n, d, with_negatives(p, [matrix(0.4, n, d), matrix(1.5, n, d)], beta, alpha), *p)

m = torch.arange(12, dtype=torch.float64).view(4, 3)
fixed = torch.sin(m + 1), torch.cos(2 * m + 1)
print("fixed", (2 + 2 * NegativeCosineSimilarity()(*fixed)).item())
print("fixed, with negatives", with_negatives(fixed, fixed, 1.0, 0.5).item())
