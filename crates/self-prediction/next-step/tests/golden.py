"""CPC and next-patch regression by PyTorch (2.11) in f64, as loops over series, contexts and candidates where the Rust
code gathers; the literals of src/tests.rs.

    python golden.py
"""

import math

import torch
from torch.nn import functional as F

B, C, T, PATCH, D, K, NEGATIVES = 3, 2, 11, 2, 6, 2, 3
LENGTHS = [11, 8, 7]  # steps without padding: 5, 4 and 3 whole patches
L = T // PATCH


def wave(phase, *shape):
    m = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(shape)


def shapes(cpc):
    for layer, i in [("embed1", C * PATCH), ("embed2", D)]:
        yield from [(f"encoder.{layer}.weight", (D, i)), (f"encoder.{layer}.bias", (D,))]
        yield from [(f"encoder.{layer}.norm.weight", (D,)), (f"encoder.{layer}.norm.bias", (D,))]
    for side in ["ih", "hh"]:
        yield from [(f"encoder.gru.weight_{side}_l0", (3 * D, D)), (f"encoder.gru.bias_{side}_l0", (3 * D,))]
    if cpc:
        yield from [(f"predictors.{k}.weight", (D, D)) for k in range(1, K + 1)]
    else:
        yield from [("head.weight", (C * PATCH, D)), ("head.bias", (C * PATCH,))]


def parameters(cpc):
    """The k-th name in alphabetical order is filled with 0.5 sin(1.3 m^2 + k), weights of norms with 1 more."""
    found = {}
    for k, (name, shape) in enumerate(sorted(shapes(cpc))):
        x = 0.5 * wave(k, *shape) + (1 if name.endswith("norm.weight") else 0)
        found[name] = x.float().double().requires_grad_()
    return found


def encode(p, x):
    """One series [C, steps] without padding: z and c of its whole patches, [l, D]."""
    l = x.shape[1] // PATCH
    rows = torch.stack([x[:, t * PATCH:(t + 1) * PATCH].reshape(-1) for t in range(l)])
    z = rows
    for layer in ["embed1", "embed2"]:
        z = z @ p[f"encoder.{layer}.weight"].T + p[f"encoder.{layer}.bias"]
        z = F.layer_norm(z, (D,), p[f"encoder.{layer}.norm.weight"], p[f"encoder.{layer}.norm.bias"]).relu()
    gru = torch.nn.GRU(D, D, batch_first=True).double()
    named = {name: p[f"encoder.gru.{name}"] for name, _ in gru.named_parameters()}
    c = torch.func.functional_call(gru, named, (z.unsqueeze(0),))[0][0]
    return rows, z, c


def cpc(p, series, u, source):
    encoded = [encode(p, x) for x in series]
    losses, right, counted = [], 0, 0
    for k in range(1, K + 1):
        w = p[f"predictors.{k}.weight"]
        for b in range(B):
            for t in range(L - K):
                if t + K >= len(encoded[b][1]):
                    continue
                everything = [(i, j) for i in range(B) for j in range(len(encoded[i][1]))]
                allowed = [(i, j) for i, j in everything if (i, j) != (b, t + k)]
                if source == "sequence":
                    allowed = [(i, j) for i, j in allowed if i == b]
                if source == "others":
                    allowed = [(i, j) for i, j in allowed if i != b]
                picked = [allowed[int(u[b, t, n] * len(allowed))] for n in range(NEGATIVES)]
                score = lambda i, j: encoded[i][1][j] @ w @ encoded[b][2][t]
                scores = torch.stack([score(b, t + k)] + [score(i, j) for i, j in picked])
                losses.append(-F.log_softmax(scores, 0)[0])
                right += bool((scores[0] > scores[1:]).all())
                counted += 1
    return torch.stack(losses).mean(), right / counted


def regression(p, series, _u, residual):
    errors = []
    for x in series:
        rows, _, c = encode(p, x)
        for t in range(len(rows) - 1):
            start = torch.zeros(C * PATCH, dtype=torch.float64)
            if residual:
                start = torch.cat([x[channel, (t + 1) * PATCH - 1].repeat(PATCH) for channel in range(C)])
            errors.append((start + c[t] @ p["head.weight"].T + p["head.bias"] - rows[t + 1]).square().mean())
    return torch.stack(errors).mean(), 0.0


whole = 2 * wave(0.1, B, C, T)
series = [whole[b, :, :n].float().double() for b, n in enumerate(LENGTHS)]
u = wave(0.4, B, L - K, NEGATIVES).abs()
cases = [(cpc, source) for source in ["both", "sequence", "others"]] + [(regression, False), (regression, True)]
for objective, choice in cases:
    p = parameters(objective is cpc)
    loss, accuracy = objective(p, series, u, choice)
    loss.backward()
    print(objective.__name__, choice, f"{loss.item():.9f} {accuracy:.9f}")
    last = ["predictors.2.weight"] if objective is cpc else ["head.weight"]
    for name in ["encoder.embed1.weight", "encoder.embed2.norm.bias", "encoder.gru.weight_hh_l0"] + last:
        g = p[name].grad
        print(f'    ("{name}", {g.flatten()[0].item():.9e}, {g.norm().item():.9e}),')

# What forecasts are held against: the linear model of two patches, by normal equations over a loop, and persistence; of
# longer series, so that there are more equations than coefficients.
ORDER, F_ = 2, C * PATCH
xs, ys, last = [], [], []
for x, n in zip(2 * wave(0.2, B, C, 31), [31, 20, 13]):
    x = x.float().double()
    rows = [x[:, t * PATCH:(t + 1) * PATCH].reshape(-1) for t in range(n // PATCH)]
    for t in range(len(rows) - 1):
        lags = [rows[t - lag] if t >= lag else torch.zeros(F_, dtype=torch.float64) for lag in range(ORDER)]
        xs.append(torch.cat(lags + [torch.ones(1, dtype=torch.float64)]))
        ys.append(rows[t + 1])
        last.append(torch.cat([x[channel, (t + 1) * PATCH - 1].repeat(PATCH) for channel in range(C)]))
xs, ys, last = torch.stack(xs), torch.stack(ys), torch.stack(last)
solved = torch.linalg.solve(xs.T @ xs + 1e-4 * len(xs) * torch.eye(ORDER * F_ + 1, dtype=torch.float64), xs.T @ ys)
print(f"linear {solved.shape}: {solved[0, 0]:.9f} {solved[5, 2]:.9f} {solved[8, 3]:.9f} norm {solved.norm():.9f}")
print(f"    ar_mse {(xs @ solved - ys).square().mean():.9f} persistence_mse {(last - ys).square().mean():.9f}")
