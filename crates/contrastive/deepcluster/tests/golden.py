"""The two versions' losses with their gradients (PyTorch 2.11, f64), PCA-whitening and NMI (scikit-learn 1.9), and
spherical k-means (a loop over points): the literals of src/tests.rs.

    python golden.py
"""

import numpy
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import normalized_mutual_info_score


def matrix(phase, n, d):
    """sin(1.3 m^2 + phase), m = i d + j: numbers without structure that any language can make."""
    m = torch.arange(n * d, dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(n, d).requires_grad_()


def show(n, k, loss, a):
    """The loss, the first three entries of its gradient and the gradient's norm."""
    (g,) = torch.autograd.grad(loss, a)
    v = g.flatten()
    print(f"({n}, {k}, {loss.item():.12}, [{v[0]:.12e}, {v[1]:.12e}, {v[2]:.12e}, {g.norm():.12e}]),")


def naive(a, labels, temperature):
    """The mean of -log of the share of exp(score / temperature) that the right cluster has, as it is written."""
    loss = 0
    for row, label in zip(a, labels):
        e = torch.exp(row / temperature)
        loss = loss - torch.log(e[label] / e.sum())
    return loss / len(labels)


for temperature in [1.0, 0.1]:
    print("temperature", temperature)
    for n, k in [(2, 3), (8, 5), (32, 16)]:
        a = matrix(0.2, n, k)
        labels = [(i * i + 1) % k for i in range(n)]
        other = torch.nn.CrossEntropyLoss()(a / temperature, torch.tensor(labels))
        assert torch.allclose(naive(a, labels, temperature), other)
        show(n, k, naive(a, labels, temperature), a)

# Whitened rows differ from another implementation's by the signs of components: their products do not.
for n, d, kept in [(8, 3, 2), (20, 5, 5), (40, 16, 6)]:
    x = matrix(0.4, n, d).detach().numpy()
    w = PCA(kept, whiten=True, svd_solver="full").fit_transform(x)
    w = w / numpy.linalg.norm(w, axis=1, keepdims=True)
    g = w @ w.T
    print(f"({n}, {d}, {kept}, [{g[0, 1]:.9}, {g[0, 2]:.9}, {g[3, 5]:.9}, {numpy.abs(g).sum():.9}]),")

# The second version's clustering, from the first k rows: 10 iterations, empty clusters stay, unit centroids.
for n, d, k in [(12, 3, 3), (30, 5, 6), (60, 8, 20)]:
    x = matrix(0.7, n, d).detach().numpy()
    x = x / numpy.linalg.norm(x, axis=1, keepdims=True)
    c = x[:k].copy()
    for _ in range(10):
        y = [max(range(k), key=lambda j: p @ c[j]) for p in x]
        for j in range(k):
            mine = [p for p, cluster in zip(x, y) if cluster == j]
            if mine:
                c[j] = sum(mine) / len(mine)
                c[j] /= numpy.linalg.norm(c[j])
    y = [max(range(k), key=lambda j: p @ c[j]) for p in x]
    print(f"({n}, {d}, {k}, {sum(x[i] @ c[y[i]] for i in range(n)):.9}, {y[:12]}),")

a, b = [0, 0, 1, 1, 2, 2, 0, 1], [1, 1, 1, 0, 0, 2, 1, 3]
print("nmi", normalized_mutual_info_score(a, b, average_method="geometric"))
