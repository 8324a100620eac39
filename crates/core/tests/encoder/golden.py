"""Features of torchvision's ResNets and of a ViT written out in PyTorch, with weights that are a formula of name and
index, so that the Rust encoders can be given the same ones.

    python golden.py > golden.json        (torch 2.11, torchvision 0.26)
"""

import json
import math
import zlib

import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn import functional as F


def uniform(name, n):
    """n numbers on [0, 1): a multiplicative hash in 32 bits, exact in any language."""
    m = np.uint64(0xFFFFFFFF)
    x = (np.arange(n, dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()))) & m
    x = x * np.uint64(2654435761) & m
    x ^= x >> np.uint64(15)
    x = x * np.uint64(2246822519) & m
    x ^= x >> np.uint64(13)
    return x.astype(np.float64) / 2**32


def value(name, shape):
    u = uniform(name, math.prod(shape))
    if len(shape) > 1:
        v = (2 * u - 1) * math.sqrt(3 / math.prod(shape[1:]))
    elif name.endswith("weight") or name.endswith("running_var"):
        v = 0.75 + 0.5 * u
    else:
        v = 0.4 * u - 0.2
    return torch.tensor(v.astype(np.float32)).view(shape)


def fill(net):
    shapes = {}
    for name, t in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        shapes[name] = list(t.shape)
        if name != "pos_embed":
            t.copy_(value(name, t.shape))
    return shapes


def resnet(depth, cifar):
    net = getattr(torchvision.models, f"resnet{depth}")(weights=None)
    net.fc = nn.Identity()
    if cifar:
        net.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        net.maxpool = nn.Identity()
    return net


class Attention(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(x).chunk(3, -1)
        split = lambda y: y.view(b, t, self.heads, d // self.heads).transpose(1, 2)
        q, k, v = split(q), split(k), split(v)
        y = (q @ k.transpose(-1, -2) / math.sqrt(d // self.heads)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(b, t, d))


class Block(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(d, 1e-6), Attention(d, heads)
        self.norm2, self.mlp = nn.LayerNorm(d, 1e-6), nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


def positions(grid, d):
    """Column first, then row, each [sin | cos] with frequencies 10000^(-2i / (d / 2))."""
    omega = 10000.0 ** (-2 * torch.arange(d // 4, dtype=torch.float64) / (d / 2))
    wave = lambda p: torch.cat([torch.sin(p[:, None] * omega), torch.cos(p[:, None] * omega)], 1)
    row, column = torch.meshgrid(*[torch.arange(grid, dtype=torch.float64)] * 2, indexing="ij")
    return torch.cat([wave(column.flatten()), wave(row.flatten())], 1).float()


class Vit(nn.Module):
    """timm's names; the class token has no position; features are the mean of the patch tokens."""

    def __init__(self, side, patch, d, depth, heads):
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, d, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, d))
        self.register_buffer("pos_embed", positions(side // patch, d)[None])
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(d, 1e-6)

    def forward(self, x):
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2) + self.pos_embed
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 1:].mean(1)


def main():
    cases = {
        "resnet18": (resnet(18, False), 64),
        "resnet18-cifar": (resnet(18, True), 32),
        "resnet34": (resnet(34, False), 64),
        "resnet50": (resnet(50, False), 64),
        "resnet50-cifar": (resnet(50, True), 32),
        "vit-micro/4": (Vit(16, 4, 96, 4, 4), 16),
    }
    lines = []
    with torch.no_grad():
        for name, (net, side) in cases.items():
            shapes = fill(net)
            parameters = sum(p.numel() for p in net.parameters())
            # The weights are rounded to f32 and the rest computed in f64: the exact value of what f32 approximates.
            net, x = net.double(), 2 * value("input", [4, 3, side, side]).double()
            case = {"side": side, "parameters": parameters, "shapes": shapes}
            for mode in ["eval", "train"]:
                y = net.train(mode == "train")(x)
                case[mode] = {"first": y[0, :8].tolist(), "last": y[3, -8:].tolist(), "norm": y.norm().item()}
            buffers = {k: v for k, v in net.state_dict().items() if k.endswith("running_var")}
            if buffers:
                last = list(buffers)[-1]
                case["running_var"] = {"name": last, "first": buffers[last][:8].tolist()}
            lines.append(f"{json.dumps(name)}: {json.dumps(case)}")
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()
