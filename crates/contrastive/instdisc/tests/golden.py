"""InstDisc's losses and their gradients by PyTorch (2.11) in f64, the literals of src/tests.rs.

    python golden.py

The NCE form follows the text of the authors' program, in probabilities and with its 1e-7, not in logarithms.
"""

import torch
from torch.nn.functional import cross_entropy, normalize


def matrix(phase, n, d):
    """sin(1.3 m^2 + phase), m = i d + j: numbers without structure that any language can make."""
    m = torch.arange(n * d, dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(n, d).requires_grad_()


def index(b, n):
    return (7 * torch.arange(b) + 3) % n


def negatives(b, m, n):
    i = torch.arange(b * m)
    return ((5 * i * i + 2 * i) % n).view(b, m)


def full(a, bank, i, t):
    return cross_entropy(normalize(a, dim=1) @ bank.t() / t, i)


def nce(a, bank, i, j, t):
    n, m = len(bank), j.shape[1]
    v = normalize(a, dim=1)
    rows = bank[torch.cat([i[:, None], j], dim=1)]
    e = torch.exp(torch.einsum("bkd,bd->bk", rows, v) / t)
    z = (e.mean() * n).item()
    p = e / z
    h = p[:, 0] / (p[:, 0] + m / n + 1e-7)
    other = (m / n) / (p[:, 1:] + m / n + 1e-7)
    return -(h.log().sum() + other.log().sum()) / len(a)


def numbers(g):
    v = g.flatten()
    return f"[{v[0]:.12e}, {v[1]:.12e}, {v[2]:.12e}, {g.norm():.12e}]"


def show(sizes, loss, a):
    (g,) = torch.autograd.grad(loss, a)
    print(f"({sizes}, {loss.item():.12}, {numbers(g)}),")


for b, d, n, m, t in [(2, 3, 5, 1, 0.5), (8, 5, 40, 7, 0.1), (32, 16, 100, 64, 0.07)]:
    a, bank, i, j = matrix(0.2, b, d), matrix(0.5, n, d).detach() / 2, index(b, n), negatives(b, m, n)
    show(f"{b}, {d}, {n}, {m}, {t}", full(a, bank, i, t), a)
    show(f"{b}, {d}, {n}, {m}, {t}", nce(a, bank, i, j, t), a)

print("parametric")
for b, d, n in [(2, 3, 5), (8, 5, 40), (32, 16, 100)]:
    a, w = matrix(0.2, b, d), matrix(0.5, n, d)
    loss = cross_entropy(a @ w.t(), index(b, n))
    g, h = torch.autograd.grad(loss, [a, w])
    print(f"({b}, {d}, {n}, {loss.item():.12}, [{numbers(g)}, {numbers(h)}]),")
