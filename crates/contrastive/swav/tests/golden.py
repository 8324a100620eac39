"""SwAV's loss and its gradients by lightly (1.6) and PyTorch (2.11) in f64, the literals of src/tests.rs.

    python golden.py
"""

import torch
from lightly.loss.swav_loss import SwaVLoss, sinkhorn
from torch.nn.functional import normalize


def matrix(phase, n, k):
    """sin(1.3 m^2 + phase), m = i k + j: numbers without structure that any language can make."""
    m = torch.arange(n * k, dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(n, k).requires_grad_()


def show(case, loss, inputs):
    """The loss, and of each gradient its first three entries and its norm."""
    grads = torch.autograd.grad(loss, inputs)
    numbers = ", ".join(f"[{v[0]:.12e}, {v[1]:.12e}, {v[2]:.12e}, {g.norm():.12e}]" for g in grads for v in [g.flatten()])
    print(f"({', '.join(map(str, case))}, {loss.item():.12}, [{numbers}]),")


# Images, prototypes, crops in all, rows of each queue, temperature, epsilon, iterations.
for case in [(2, 3, 2, 0, 0.1, 0.05, 3), (8, 5, 3, 0, 0.2, 0.1, 3), (32, 16, 6, 0, 0.5, 0.5, 10), (8, 5, 4, 11, 0.1, 0.25, 3)]:
    n, k, crops, rows, temperature, epsilon, iterations = case
    scores = [matrix(0.1 + 0.8 * s, n, k) for s in range(crops)]
    queue = [matrix(5.0 + t, rows, k) for t in range(2)] if rows else None
    loss = SwaVLoss(temperature, iterations, epsilon)(scores[:2], scores[2:], queue)
    show(case, loss, [scores[0], scores[1], scores[-1]])

# Section "golden values" of the reference: prototypes P, embeddings x and y of four images.
m = torch.arange(12, dtype=torch.float64).view(4, 3)
x, y = normalize(torch.sin(m + 1)), normalize(torch.cos(2 * m + 1))
p = normalize(torch.sin(0.5 * torch.arange(15, dtype=torch.float64).view(5, 3) + 2))
print("fixed", SwaVLoss(0.1, 3, 0.05)([x @ p.T, y @ p.T], []).item())
print("codes", sinkhorn(x @ p.T, 3, 0.05)[0].tolist())
for epsilon in [0.05, 0.5]:
    print("totals", epsilon, sinkhorn(x @ y.T, 3, epsilon).sum(0).tolist())
