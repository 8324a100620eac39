"""Patches, embedding and GRU of the recurrent encoder by PyTorch (2.11) in f64; the literals of
src/encoder/recurrent/tests.rs.

    python recurrent.py
"""

import math

import torch
from torch.nn import functional as F

C, T, PATCH, D = 2, 9, 2, 4
LENGTHS = [9, 5]  # steps without padding: 4 and 2 whole patches, the third patch of the second series is cut


def wave(phase, *shape):
    m = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(1.3 * m * m + phase).view(shape)


names = [("gru.weight_ih_l0", (3 * D, D)), ("gru.weight_hh_l0", (3 * D, D)), ("gru.bias_ih_l0", (3 * D,)), ("gru.bias_hh_l0", (3 * D,))]
for layer, i in [("embed1", C * PATCH), ("embed2", D)]:
    names += [(f"{layer}.weight", (D, i)), (f"{layer}.bias", (D,)), (f"{layer}.norm.weight", (D,)), (f"{layer}.norm.bias", (D,))]
P = {}
for k, (name, shape) in enumerate(sorted(names)):
    P[name] = 0.5 * wave(k, *shape) + (1 if name.endswith("norm.weight") else 0)
    P[name] = P[name].float().double().requires_grad_()

features = []
for b, length in enumerate(LENGTHS):
    x = (2 * wave(0.1, 2, C, T))[b].float().double()
    z = torch.stack([x[:, t:t + PATCH].reshape(-1) for t in range(0, length - PATCH + 1, PATCH)])
    for layer in ["embed1", "embed2"]:
        z = F.layer_norm(z @ P[layer + ".weight"].T + P[layer + ".bias"], (D,), P[layer + ".norm.weight"], P[layer + ".norm.bias"]).relu()
    gru = torch.nn.GRU(D, D, batch_first=True).double()
    c = torch.func.functional_call(gru, {n: P["gru." + n] for n, _ in gru.named_parameters()}, (z.unsqueeze(0),))[0][0]
    features.append(c.mean(0))
features = torch.stack(features)
print([f"{v:.8f}" for v in features.flatten().tolist()])
features.square().sum().backward()
for name in ["embed1.weight", "gru.weight_hh_l0", "gru.bias_ih_l0"]:
    print(f'("{name}", {P[name].grad.flatten()[0].item():.8e}, {P[name].grad.norm().item():.8e}),')
