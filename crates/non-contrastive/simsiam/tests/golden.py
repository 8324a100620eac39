"""SimSiam's loss and its gradients by PyTorch (2.11) and lightly (1.6) in f64, the literals of src/tests.rs.

    python golden.py
"""

import torch
from lightly.loss import NegativeCosineSimilarity, VICRegLoss


def matrix(phase, n, d):
    """sin(1.3 m^2 + phase), m = i d + j: numbers without structure that any language can make."""
    m = torch.arange(n * d, dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(n, d).requires_grad_()


def show(n, d, loss, *inputs):
    """The loss, and of each gradient its first three entries and its norm."""
    grads = torch.autograd.grad(loss, inputs)
    numbers = ", ".join(f"[{v[0]:.12e}, {v[1]:.12e}, {v[2]:.12e}, {g.norm():.12e}]" for g in grads for v in [g.flatten()])
    print(f"({n}, {d}, {loss.item():.12}, [{numbers}]),")


distance = NegativeCosineSimilarity()
for n, d in [(2, 3), (8, 5), (32, 16)]:
    p, z = [matrix(x, n, d) for x in (0.2, 0.9)], [matrix(x, n, d) for x in (0.4, 0.6)]
    loss = (distance(p[0], z[1].detach()) + distance(p[1], z[0].detach())) / 2
    show(n, d, loss, *p)
    # Without the stop-gradient all four have a gradient.
    show(n, d, (distance(p[0], z[1]) + distance(p[1], z[0])) / 2, *p, *z)

print("cross-entropy")
for n, d in [(2, 3), (8, 5), (32, 16)]:
    p, z = [matrix(x, n, d) for x in (0.2, 0.9)], [matrix(x, n, d) for x in (0.4, 0.6)]
    distance_ = lambda p, z: torch.nn.functional.cross_entropy(p, z.softmax(1))
    show(n, d, (distance_(p[0], z[1].detach()) + distance_(p[1], z[0].detach())) / 2, *p)

print("variance 3, covariance 0.5")
for n, d in [(2, 3), (8, 5), (32, 16)]:
    p, z = [matrix(x, n, d) for x in (0.2, 0.9)], [matrix(x, n, d) for x in (0.4, 0.6)]
    loss = (distance(p[0], z[1].detach()) + distance(p[1], z[0].detach())) / 2
    show(n, d, loss + VICRegLoss(lambda_param=0, mu_param=3, nu_param=0.5, eps=1e-4)(*z), *p, *z)

m = torch.arange(12, dtype=torch.float64).view(4, 3)
fixed = torch.sin(m + 1), torch.cos(2 * m + 1)
print("fixed", (distance(*fixed) / 2 + distance(*fixed) / 2).item())
