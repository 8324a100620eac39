"""Holds exported weights against torchvision and timm, for experiments/tests/it/interop.rs.

    python load_export.py check                                   whether all that is needed is here
    python load_export.py compare ENCODER WEIGHTS INPUT ..        INPUT: safetensors with `x` and their `features`
    python load_export.py make ENCODER CHANNELS SIDE WEIGHTS ..   networks of their own, with a classifier; also as .pth
    python load_export.py compare-with WEIGHTS INPUT ..           such networks' features, against those in INPUT
    python load_export.py numpy NPY INPUT ..                      features and labels in NumPy's files, against INPUT

What stands before `..` may be given several times. Needs torch, torchvision, timm, safetensors and numpy.
"""

import sys
from pathlib import Path

import numpy
import safetensors
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

# By how much features may differ, as a share of the largest of them.
TOLERANCE = 1e-5

# Width, depth and heads.
VIT = {"micro": (96, 4, 4), "tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}


def network(encoder, channels, side):
    """The network of torchvision or timm that has the names of an encoder, in evaluation."""
    if encoder.startswith("resnet"):
        depth = encoder.split("-")[0]
        net = getattr(torchvision.models, depth)(weights=None)
        net.fc = nn.Identity()  # features, no classes
        if "-cifar" in encoder:  # the stem for small images, SimCLR appendix B.9
            net.conv1 = nn.Conv2d(channels, 64, 3, stride=1, padding=1, bias=False)
            net.maxpool = nn.Identity()
        elif channels != 3:
            net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    else:
        size, patch = encoder.removeprefix("vit-").split("/")
        width, depth, heads = VIT[size]
        net = VisionTransformer(
            img_size=side,
            patch_size=int(patch),
            in_chans=channels,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            num_classes=0,  # features, no classes
            no_embed_class=True,  # the class token has no position
            global_pool="avg",  # the mean of the patch tokens, behind the last norm:
            fc_norm=False,
        )
    return net.eval()


def features(net, x):
    with torch.no_grad():
        return net(x)


def hold(name, theirs, ours):
    assert theirs.shape == ours.shape, f"{name}: {tuple(theirs.shape)} there, {tuple(ours.shape)} here"
    scale = theirs.abs().max().item()
    error = (theirs - ours).abs().max().item() / scale
    print(f"{name}: {tuple(ours.shape)}, largest difference {error:.1e} of the largest value {scale:.3g}")
    assert scale > 1e-3, f"{name}: nothing but zeros proves nothing"
    assert error <= TOLERANCE, f"{name}: differs by {error:.1e} of the largest value, expected at most {TOLERANCE}"


def compare(encoder, weights, data):
    data = load_file(data)
    x = data["x"]
    net = network(encoder, x.shape[1], x.shape[2])
    fresh = features(net, x)
    net.load_state_dict(load_file(weights), strict=True)
    hold(encoder, features(net, x), data["features"])
    assert not torch.allclose(fresh, data["features"], rtol=1e-2), f"{encoder}: any weights give these features"


def usual(encoder, channels, side):
    """The same with a classifier, a ViT with a position for the class token as timm makes it by default."""
    if encoder.startswith("resnet"):
        net = network(encoder, channels, side)
        net.fc = nn.Linear(2048 if "50" in encoder else 512, 10)
        return net
    size, patch = encoder.removeprefix("vit-").split("/")
    width, depth, heads = VIT[size]
    shape = {"img_size": side, "patch_size": int(patch), "in_chans": channels}
    net = VisionTransformer(
        **shape, embed_dim=width, depth=depth, num_heads=heads, num_classes=10, global_pool="avg", fc_norm=False
    )
    return net.eval()


def make(encoder, channels, side, weights):
    """Random weights everywhere, running statistics too, so that no tensor can be mistaken for another."""
    torch.manual_seed(0)
    net = usual(encoder, int(channels), int(side))
    for name, tensor in net.state_dict().items():
        if name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5)
        elif tensor.dim() == 1:
            tensor.uniform_(-0.2, 0.2)
        elif tensor.is_floating_point() and ("pos_embed" in name or "cls_token" in name):
            tensor.normal_(0, 0.5)
    save_file(net.state_dict(), weights, {"encoder": encoder})
    # As training programs write them; a ViT's in the format before PyTorch 1.6.
    whole = {"state_dict": net.state_dict(), "epoch": 300, "arch": encoder}
    torch.save(whole, Path(weights).with_suffix(".pth"), _use_new_zipfile_serialization="vit" not in encoder)


def compare_with(weights, data):
    with safetensors.safe_open(weights, "pt") as file:
        encoder = file.metadata()["encoder"]
    data = load_file(data)
    x = data["x"]
    net = usual(encoder, x.shape[1], x.shape[2])
    net.load_state_dict(load_file(weights), strict=True)
    with torch.no_grad():
        if encoder.startswith("resnet"):
            net.fc = nn.Identity()
            theirs = net(x)
        else:
            theirs = net.forward_head(net.forward_features(x), pre_logits=True)
    hold(f"{encoder} from given weights", theirs, data["features"])


def compare_numpy(npy, data):
    data = load_file(data)
    x, labels = numpy.load(npy), numpy.load(npy.removesuffix("npy") + "labels.npy")
    assert x.dtype == numpy.float32 and labels.dtype == numpy.int64, (x.dtype, labels.dtype)
    assert x.shape == (len(labels), data["features"].shape[1]), (x.shape, labels.shape)
    assert x.flags["C_CONTIGUOUS"]
    n = len(data["features"])
    hold("numpy", data["features"], torch.from_numpy(x[:n].copy()))
    assert numpy.array_equal(labels, data["labels"].numpy())
    print(f"numpy: {x.shape} {x.dtype}, labels {labels.shape} {labels.dtype}")


def check():
    versions = {m.__name__: m.__version__ for m in (torch, torchvision, timm, safetensors, numpy)}
    print(", ".join(f"{name} {version}" for name, version in versions.items()))


if __name__ == "__main__":
    commands = {
        "check": (check, 0),
        "compare": (compare, 3),
        "make": (make, 4),
        "compare-with": (compare_with, 2),
        "numpy": (compare_numpy, 2),
    }
    (command, count), rest = commands[sys.argv[1]], sys.argv[2:]
    for i in range(0, max(len(rest), 1), max(count, 1)):
        command(*rest[i : i + count])
