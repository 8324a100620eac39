"""Writes golden.json: parameters after each of six steps, in f64, by torch.optim and by both LARS rules.

    python golden.py > golden.json        (torch 2.11.0, numpy)

The LARS rules are transcribed here from the papers' update equations, in numpy. Starting values and gradients are
formulas of the index, which main.rs repeats.
"""

import json

import numpy as np
import torch

SHAPES = {"conv": (3, 2, 3, 3), "fc": (4, 3), "bias": (5,), "zero": (2, 3), "head": (2, 3)}
NO_DECAY = {"bias"}
FIXED = {"head"}  # keeps the peak rate
ZERO = {"zero"}  # starts at 0
SKIPPED = ("fc", 2)  # has no gradient at this step
FACTORS = [0.3, 0.6, 1.0, 0.8, 0.4, 0.1]  # the schedule, times the peak


def start(k, name):
    n = int(np.prod(SHAPES[name]))
    values = np.zeros(n) if name in ZERO else np.sin(0.7 * np.arange(n) + k)
    return values.astype(np.float32).astype(np.float64).reshape(SHAPES[name])


def coefficient(k, name, t):
    n = int(np.prod(SHAPES[name]))
    return np.cos(1.3 * np.arange(n) + 2.0 * t + k).astype(np.float32).astype(np.float64).reshape(SHAPES[name])


def gradient(k, name, t, p):
    """Of sum(c p) + 0.15 sum(p^2)."""
    return None if (name, t) == SKIPPED else coefficient(k, name, t) + 0.3 * p


def run_torch(make, peak, decay, decay_all=False):
    params = {n: torch.nn.Parameter(torch.from_numpy(start(k, n))) for k, n in enumerate(SHAPES)}
    decays = {n: decay if decay_all or n not in NO_DECAY else 0.0 for n in params}
    groups = [{"params": [p], "weight_decay": decays[n]} for n, p in params.items()]
    optimiser = make(groups)
    out = []
    for t, factor in enumerate(FACTORS):
        for k, (n, p) in enumerate(params.items()):
            g = gradient(k, n, t, p.detach().numpy())
            p.grad = None if g is None else torch.from_numpy(np.asarray(g))
            optimiser.param_groups[k]["lr"] = peak if n in FIXED else peak * factor
        optimiser.step()
        out.append({n: p.detach().flatten().tolist() for n, p in params.items()})
    return out


def run_lars(peak, momentum, decay, trust, clip, rule, rate_1d, adapt_all):
    params = {n: start(k, n) for k, n in enumerate(SHAPES)}
    buffers = {n: np.zeros(SHAPES[n]) for n in SHAPES}
    out = []
    for t, factor in enumerate(FACTORS):
        for k, n in enumerate(SHAPES):
            p, g = params[n], gradient(k, n, t, params[n])
            if g is None:
                continue
            rate = peak if n in FIXED else peak * factor
            if n in NO_DECAY:
                rate *= rate_1d
            if adapt_all or n not in NO_DECAY:
                size, slope = np.linalg.norm(p), np.linalg.norm(g)
                if rule == "norm-of-sum":
                    g = g + decay * p
                    total = np.linalg.norm(g)
                    if size > 0 and total > 0:
                        ratio = trust * size / total
                        g = g * (min(ratio / rate, 1.0) if clip else ratio)
                elif size != 0 and slope != 0:
                    ratio = trust * size / (slope + decay * size + 1e-8)
                    g = (g + decay * p) * (min(ratio / rate, 1.0) if clip else ratio)
            buffers[n] = momentum * buffers[n] + g
            params[n] = p - rate * buffers[n]
        out.append({n: p.flatten().tolist() for n, p in params.items()})
    return out


def sgd(rate, momentum=0.9, nesterov=False, decay=0.0, decay_all=False):
    config = {"name": "sgd", "rate": rate, "momentum": momentum, "nesterov": nesterov}
    config |= {"decay": decay, "decay_all": decay_all}
    run = run_torch(lambda g: torch.optim.SGD(g, lr=rate, momentum=momentum, nesterov=nesterov), rate, decay, decay_all)
    return {"config": config, "steps": run}


def adamw(rate, decay=0.0, decay_all=False, betas=(0.9, 0.999), eps=1e-8):
    config = {"name": "adamw", "rate": rate, "betas": betas, "eps": eps, "decay": decay, "decay_all": decay_all}
    make = lambda groups: torch.optim.AdamW(groups, lr=rate, betas=betas, eps=eps, foreach=False)
    run = run_torch(make, rate, decay, decay_all)
    return {"config": config, "steps": run}


def lars(rate, momentum=0.9, decay=0.0, trust=0.001, clip=False, rule="norm-of-sum", rate_1d=1.0, adapt_all=False):
    config = {"name": "lars", "rate": rate, "momentum": momentum, "decay": decay, "trust": trust, "clip": clip}
    config |= {"rule": rule, "rate_1d": rate_1d, "adapt_all": adapt_all}
    return {"config": config, "steps": run_lars(rate, momentum, decay, trust, clip, rule, rate_1d, adapt_all)}


cases = [
    sgd(0.1),
    sgd(0.1, momentum=0.0, decay=0.05),
    sgd(0.1, decay=0.05),
    sgd(0.1, nesterov=True, decay=0.05, decay_all=True),
    adamw(0.01),
    adamw(0.01, decay=0.1),
    adamw(0.01, decay=0.1, decay_all=True, betas=(0.9, 0.95), eps=1e-6),
    lars(0.5, decay=0.05, trust=0.02, rate_1d=0.024),
    lars(0.5, momentum=0.0, decay=0.05, trust=0.02),
    lars(0.1, decay=0.05, trust=0.02, rule="sum-of-norms"),
    lars(0.1, decay=0.05, trust=0.02, rule="sum-of-norms", clip=True),
    lars(0.1, decay=0.05, trust=0.02, rule="sum-of-norms", adapt_all=True),
]
for case in cases:
    case["config"]["per"] = 0
rounded = json.loads(json.dumps(cases), parse_float=lambda x: float(f"{float(x):.10g}"))
print("[\n" + ",\n".join(json.dumps(case) for case in rounded) + "\n]")
