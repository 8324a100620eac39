"""Prints the golden numbers of golden.rs, from NumPy and scikit-learn, in float64.

Run: python tests/golden.py   (numpy 2, scikit-learn 1.6 or later)
"""

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score


def cloud(n, d, start, classes, shift):
    """n points that look random but are a formula; those of class c are moved along axis c."""
    m = np.arange(start, start + n * d, dtype=np.float64).reshape(n, d)
    x = np.sin(0.37 * m * m)
    labels = (np.arange(n) * 7 + np.arange(n) // 5) % classes
    x[np.arange(n), labels] += shift
    return x.astype(np.float32).astype(np.float64), labels


def show(name, values):
    print(name, ", ".join(f"{v:.9g}" for v in np.ravel(values)))


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def linear():
    x, y = cloud(120, 4, 0, 3, 0.8)
    test, labels = cloud(200, 4, 1000, 3, 0.8)
    mean, std = x.mean(0), x.std(0)
    for penalty in (0.1, 0.001):
        model = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-10, max_iter=10000)
        model.fit((x - mean) / std, y)
        show(f"linear {penalty} weight", model.coef_.T)
        show(f"linear {penalty} bias", model.intercept_ - model.intercept_.mean())
        show(f"linear {penalty} right", [(model.predict((test - mean) / std) == labels).sum()])


def targets(x, start):
    """Two that the features tell in part, one linear and one not, and one that they do not."""
    m = np.arange(start, start + len(x), dtype=np.float64)
    noise = np.sin(0.73 * m * m)
    y = np.stack([x @ np.arange(1.0, 1.0 + x.shape[1]) + 4 * noise, x[:, 0] ** 2 + x[:, 1] + 0.5 * noise, noise], 1)
    return y.astype(np.float32).astype(np.float64)


def ridge():
    (x, _), (test, _) = cloud(150, 6, 0, 3, 0.8), cloud(90, 6, 4000, 3, 0.8)
    y, truth = targets(x, 0), targets(test, 4000)
    mean, std = x.mean(0), x.std(0)
    for penalty in (1.0, 0.01, 1e-6):
        model = Ridge(alpha=penalty * len(x)).fit((x - mean) / std, y)
        show(f"ridge {penalty} r2", r2_score(truth, model.predict((test - mean) / std), multioutput="raw_values"))


def knn():
    bank, y = cloud(300, 6, 0, 4, 0.6)
    queries, labels = cloud(200, 6, 5000, 4, 0.6)
    similarity = unit(queries) @ unit(bank).T
    for k, temperature in ((20, 0.07), (200, 0.1), (1, 0.07), (300, 0.5)):
        predicted = []
        for row in similarity:
            near = np.argsort(-row, kind="stable")[:k]
            votes = np.bincount(y[near], np.exp(row[near] / temperature), minlength=4)
            predicted.append(votes.argmax())
        show(f"knn {k} {temperature} right", [(np.array(predicted) == labels).sum()])
        show(f"knn {k} {temperature} checksum", [(np.array(predicted) * np.arange(1, 201)).sum()])


def geometry():
    x, _ = cloud(70, 9, 200, 9, 0.5)
    x = x * np.arange(1, 10) + 0.3
    other, _ = cloud(70, 9, 900, 9, 0.5)

    def rank(x):
        s = np.linalg.svd(x, compute_uv=False)
        p = s / s.sum()
        return np.exp(-(p * np.log(p)).sum())

    z = unit(x)
    distance = ((z[:, None] - z[None]) ** 2).sum(2)[np.triu_indices(70, 1)]
    correlation = np.corrcoef(x.T)
    show("alignment", ((z - unit(other)) ** 2).sum(1).mean())
    show("uniformity", np.log(np.exp(-2 * distance).mean()))
    show("effective_rank", rank(x))
    show("covariance_rank", rank(x - x.mean(0)))
    show("wide effective_rank, covariance_rank", [rank(x[:5]), rank_nonzero(x[:5] - x[:5].mean(0))])
    show("normalised_std", z.std(0, ddof=1).mean() * 3)
    show("feature_std", x.std(0, ddof=1).mean())
    show("correlation", np.abs(correlation[~np.eye(9, dtype=bool)]).mean())


def rank_nonzero(x):
    s = np.linalg.svd(x, compute_uv=False)
    p = (s / s.sum())[s > 1e-10 * s[0]]
    return np.exp(-(p * np.log(p)).sum())


linear()
ridge()
knn()
geometry()
