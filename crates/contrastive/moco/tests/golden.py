"""MoCo's loss and its gradients by PyTorch (2.11) and lightly (1.6) in f64, the literals of src/tests.rs.

    python golden.py

The loss is written as in the paper's algorithm 1 and held against lightly's NTXentLoss with a memory bank.
"""

import torch
from lightly.loss import NTXentLoss
from torch.nn.functional import cross_entropy, normalize


def matrix(phase, n, d):
    """sin(1.3 m^2 + phase), m = i d + j: numbers without structure that any language can make."""
    m = torch.arange(n * d, dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(n, d).requires_grad_()


def moco(a, b, queue, t):
    q, k = normalize(a, dim=1), normalize(b, dim=1).detach()
    l_pos = torch.einsum("nc,nc->n", q, k).unsqueeze(1)
    l_neg = torch.einsum("nc,kc->nk", q, queue)
    return cross_entropy(torch.cat([l_pos, l_neg], dim=1) / t, torch.zeros(len(q), dtype=torch.long))


def lightly(a, b, queue, t):
    """It takes a and b to be unnormalised, and stops no gradient of b by itself."""
    loss = NTXentLoss(temperature=t, memory_bank_size=(len(queue), queue.shape[1]))
    loss.memory_bank.bank = queue.clone()
    loss.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.long)
    return loss(a, b.detach())


for n, d, k, t in [(2, 3, 5, 0.2), (8, 5, 16, 0.07), (32, 16, 100, 0.2)]:
    a, b, queue = matrix(0.2, n, d), matrix(0.9, n, d), normalize(matrix(0.5, k, d), dim=1).detach()
    loss = moco(a, b, queue, t)
    assert torch.allclose(loss, lightly(a, b, queue, t), rtol=1e-12), (loss, lightly(a, b, queue, t))
    (g,) = torch.autograd.grad(loss, a)
    v = g.flatten()
    print(f"({n}, {d}, {k}, {t}, {loss.item():.12}, [{v[0]:.12e}, {v[1]:.12e}, {v[2]:.12e}, {g.norm():.12e}]),")

m = torch.arange(15, dtype=torch.float64)
a, b = torch.sin(m[:12] + 1).view(4, 3), torch.cos(2 * m[:12] + 1).view(4, 3)
queue = normalize(torch.sin(0.5 * m + 2).view(5, 3), dim=1)
for t in [0.07, 0.2]:
    print("fixed", t, moco(a, b, queue, t).item())
