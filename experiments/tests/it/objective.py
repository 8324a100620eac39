"""Reference values of `losses_are_the_reference_values` that no other file of the repository has, in f64 by PyTorch (2.11),
written from the papers' equations.

    python objective.py
"""

import torch
from torch.nn.functional import cross_entropy, normalize

m = torch.arange(12, dtype=torch.float64).view(4, 3)
a, b = torch.sin(m + 1), torch.cos(2 * m + 1)
rows = normalize(torch.sin(0.5 * torch.arange(15, dtype=torch.float64).view(5, 3) + 2), dim=1)
index, negatives = torch.tensor([3, 0, 4, 1]), torch.tensor([[0, 2, 1], [4, 0, 3], [1, 1, 2], [3, 4, 0]])
x, y = normalize(a, dim=1), normalize(b, dim=1)


def triplet(margin, mining):
    """Batch-all and semi-hard over all triplets, 2N anchors."""
    z = torch.cat([x, y])
    d = torch.cdist(z, z) ** 2
    losses, possible = [], 0
    for i in range(8):
        positive, others = d[i, (i + 4) % 8], [d[i, j] for j in range(8) if j % 4 != i % 4]
        band = [n for n in others if positive < n < positive + margin]
        chosen = others if mining == "batch-all" else [min(band)] if band else []
        possible += len(others) if mining == "batch-all" else 1
        losses += [max(0.0, (positive - n + margin).item()) for n in chosen]
    return sum(losses) / possible, sum(losses) / max(1, sum(l > 0 for l in losses))


def nce(t):
    places = torch.cat([index[:, None], negatives], 1)
    e = torch.exp((rows[places] * x[:, None]).sum(2) / t)
    p = e / (5 * e.mean())
    h = p / (p + 3 / 5 + 1e-7)
    other = (3 / 5) / (p + 3 / 5 + 1e-7)
    return -(h[:, 0].log() + other[:, 1:].log().sum(1)).mean()


def info_nce(positive, others, t):
    return cross_entropy(torch.cat([positive[:, None], others], 1) / t, torch.zeros(len(positive), dtype=torch.long))


for margin in (0.2, 1.0):
    for mining in ("batch-all", "semi-hard"):
        print("triplet", mining, margin, "all %.6f, positive %.6f" % triplet(margin, mining))
print("instdisc softmax, 0.07 %.6f, 0.5 %.6f" % tuple(cross_entropy(x @ rows.t() / t, index) for t in (0.07, 0.5)))
print("instdisc nce, 0.1 %.6f, 0.5 %.6f" % (nce(0.1), nce(0.5)))
print("instdisc parametric %.6f" % cross_entropy(a @ rows.t(), index))
scores = x @ rows.t()
print("deepcluster version 1 %.6f, version 2 %.6f" % (cross_entropy(scores, index), cross_entropy(scores / 0.1, index)))
intra = info_nce((x * y).sum(1), x @ rows.t(), 0.2)
s = x @ rows[[1, 3, 0]].t()
inter = lambda margin: info_nce((x * y.flip(0)).sum(1) - margin, s, 0.2)
print("interclr intra %.6f, 0.75 intra + 0.25 inter %.6f, inter %.6f, with margin 0.5 %.6f" % (
    intra, 0.75 * intra + 0.25 * inter(-0.5), inter(-0.5), inter(0.5)))
