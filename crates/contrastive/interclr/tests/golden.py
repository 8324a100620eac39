"""InterCLR's two terms and their gradients by PyTorch (2.11) in f64, the literals of src/tests.rs.

The intra-image term is lightly's (1.6) NTXentLoss with a memory bank that holds the queue; the inter-image term is
written with loops and PyTorch's cross entropy.

    python golden.py
"""

import torch
import torch.nn.functional as F
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


def intra(q, k, queue, temperature):
    criterion = NTXentLoss(temperature=temperature, memory_bank_size=(len(queue), queue.shape[1]))
    # The order of the rows changes nothing.
    criterion.memory_bank.bank = F.normalize(queue.detach(), dim=1)
    criterion.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.long)
    return criterion(q, k.detach())


def inter(q, positive, negatives, margin, temperature):
    """negatives: [N, M, D]."""
    losses = []
    for i in range(len(q)):
        scores = [F.cosine_similarity(q[i], positive[i], dim=0) - margin]
        scores += [F.cosine_similarity(q[i], other, dim=0) for other in negatives[i]]
        logits = torch.stack(scores) / temperature
        losses.append(F.cross_entropy(logits.unsqueeze(0), torch.zeros(1, dtype=torch.long)))
    return torch.stack(losses).mean()


for n, d, temperature, weight, margin in [(2, 3, 0.5, 0.25, -0.5), (8, 5, 0.2, 0.25, -0.5), (32, 16, 0.1, 0.6, 0.3)]:
    a, b, queue = matrix(0.2, n, d), matrix(0.9, n, d), matrix(0.4, 2 * n, d)
    positive, negatives = matrix(0.6, n, d).detach(), matrix(0.7, 3 * n, d).detach().view(n, 3, d)
    loss = (1 - weight) * intra(a, b, queue, temperature) + weight * inter(a, positive, negatives, margin, temperature)
    show(n, d, loss, a)

m = torch.arange(12, dtype=torch.float64).view(4, 3)
rows = torch.arange(15, dtype=torch.float64).view(5, 3)
for temperature in [0.07, 0.2]:
    print("fixed", temperature, intra(torch.sin(m + 1), torch.cos(2 * m + 1), torch.sin(0.5 * rows + 2), temperature).item())
