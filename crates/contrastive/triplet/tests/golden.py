"""Triplet losses and their gradients in f64, anchor by anchor and negative by negative, in PyTorch (2.11): the literals
of src/tests.rs.

    python golden.py
"""

import torch


def matrix(phase, n, d):
    """sin(1.3 m^2 + phase), m = i d + j: numbers without structure that any language can make."""
    m = torch.arange(n * d, dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(n, d).requires_grad_()


def show(n, d, loss, active, *inputs):
    """The loss, the share above 0, and of each gradient its first three entries and its norm."""
    grads = torch.autograd.grad(loss, inputs)
    numbers = ", ".join(f"[{v[0]:.12e}, {v[1]:.12e}, {v[2]:.12e}, {g.norm():.12e}]" for g in grads for v in [g.flatten()])
    print(f"({n}, {d}, {loss.item():.12}, {active:.12}, [{numbers}]),")


def log_sigmoid(x):
    return -torch.log1p(torch.exp(-x))


def triplets(a, b, margin, mining, average, temperature=None):
    """a, b: [N, D]. The draw of random mining for anchor i of view v is (0.37 (v N + i) + 0.11) mod 1."""
    n = len(a)
    z = [row / row.norm() for row in torch.cat([a, b])]
    losses, possible = [], 0
    for i in range(2 * n):
        squared = lambda j: ((z[i] - z[j]) ** 2).sum()
        positive = squared((i + n) % (2 * n))
        others = [j for j in range(2 * n) if j % n != i % n]
        distances = [squared(j) for j in others]
        if mining == "batch-all":
            chosen = distances
        elif mining == "semi-hard":
            band = [d for d in distances if positive < d < positive + margin]
            chosen = [min(band)] if band else []
        elif mining == "batch-hard":
            chosen = [min(distances)]
        else:
            chosen = [distances[int((0.37 * i + 0.11) % 1.0 * len(others))]]
        possible += len(others) if mining == "batch-all" else 1
        if temperature is None:
            losses += [torch.relu(positive - d + margin) for d in chosen]
        else:
            nt_logistic = lambda d: -log_sigmoid((1 - positive / 2) / temperature) - log_sigmoid((d / 2 - 1) / temperature)
            losses += [nt_logistic(d) for d in chosen]
    losses = torch.stack(losses)
    active = int((losses > 0).sum())
    return losses.sum() / (active if average == "positive" else possible), active / possible


for mining in ["batch-all", "semi-hard", "batch-hard", "random"]:
    for average in ["positive", "all"]:
        print(f"# {mining}, {average}")
        for n, d, margin in [(3, 3, 1.0), (8, 5, 0.2), (32, 16, 0.2)]:
            a, b = matrix(0.2, n, d), matrix(1.5, n, d)
            loss, active = triplets(a, b, margin, mining, average)
            show(n, d, loss, active, a, b)

for mining, average in [("batch-all", "all"), ("semi-hard", "positive")]:
    print(f"# logistic, {mining}, {average}")
    for n, d, margin, temperature in [(3, 3, 1.0, 0.5), (8, 5, 0.2, 1.0), (32, 16, 0.2, 0.2)]:
        a, b = matrix(0.2, n, d), matrix(1.5, n, d)
        loss, active = triplets(a, b, margin, mining, average, temperature)
        show(n, d, loss, active, a, b)
