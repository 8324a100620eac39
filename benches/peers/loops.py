"""The peers' training loops for throughput.py, one process a measurement.

    python loops.py ARM METHOD ENCODER SIZE [--epochs 2] [--threads 2] [--workers 2] [--images 10000]     # images/s

METHOD is simclr, byol, swav (two crops of SIZE, four of half of it) or mae; ENCODER is convnet, resnet18-cifar or
vit-tiny/4. Sizes of heads, parameters of views, optimisers and batches are those of the program's cpu presets.

    lightly         its documented loop: its transforms on PIL images in a DataLoader with workers, one pass through the
                    network for each view, its losses; float32
    lightly-tuned   the same, with channels-last memory and bfloat16 autocast around the forward pass
    torch           what a careful person writes without a framework: the data a tensor in memory, views as batched
                    tensor operations, views of one size in one pass, channels-last, bfloat16 autocast, fused optimiser,
                    foreach moving average
    torch-compiled  the same, with torch.compile around the networks

The clock starts after the first steps, so neither the start of workers nor compilation nor first allocations count.
"""
import argparse
import copy
import gzip
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

IMAGES = Path(__file__).resolve().parent.parent.parent / "datasets/bundled/fashion-mnist-10k/train-images-idx3-ubyte.gz"
ARMS = ["lightly", "lightly-tuned", "torch", "torch-compiled"]
BATCH = 128
WARM_UP = 5  # steps that are not timed
HIDDEN, OUTPUT, PROTOTYPES, SMALL_CROPS = 256, 128, 100, 4
TAU = 0.9
MASKED, DECODER = 0.75, {"width": 64, "depth": 1, "heads": 4}
# (smallest and largest area of a crop, strength of brightness and contrast)
LARGE, SMALL, MAE = ((0.3, 1.0), 0.5), ((0.1, 0.3), 0.5), ((0.5, 1.0), 0.0)


def read_images():
    """[N, 28, 28] u8."""
    data = gzip.open(IMAGES).read()
    magic, n, height, width = np.frombuffer(data, ">u4", 4)
    assert magic == 0x803, f"{IMAGES}: not an IDX file of images"
    return np.frombuffer(data, np.uint8, offset=16).reshape(n, height, width)


def encoder(name, size, colours=1):
    """The encoder of that name in crates/core/src/encoder, and the width of its features."""
    if name == "convnet":
        layers, channels = [], colours
        for width, stride in [(32, 2), (64, 2), (128, 1), (256, 1)]:
            conv = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), channels
    if name == "resnet18-cifar":
        from torchvision.models import resnet18

        net = resnet18()
        net.conv1, net.maxpool, net.fc = nn.Conv2d(colours, 64, 3, 1, 1, bias=False), nn.Identity(), nn.Identity()
        return net, 512
    if name == "vit-tiny/4":
        return vit(size), 192
    raise SystemExit(f"no encoder {name}")


def vit(size):
    from timm.models.vision_transformer import VisionTransformer

    shape = {"img_size": size, "patch_size": 4, "in_chans": 1, "embed_dim": 192, "depth": 12, "num_heads": 3}
    return VisionTransformer(**shape, num_classes=0, global_pool="avg", fc_norm=False)


class SimClr(nn.Module):
    def __init__(self, name, size):
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead

        super().__init__()
        net, width = encoder(name, size)
        self.net = nn.Sequential(net, SimCLRProjectionHead(width, HIDDEN, OUTPUT))
        self.criterion = NTXentLoss(temperature=0.1)

    def optimiser(self, **fused):
        return torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=1e-4, **fused)

    def forward(self, views, together):
        z0, z1 = passes(self.net, views, together)
        return self.criterion(z0.float(), z1.float())

    def after_step(self, foreach):
        pass


class Byol(nn.Module):
    def __init__(self, name, size):
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
        from lightly.models.utils import deactivate_requires_grad

        super().__init__()
        net, width = encoder(name, size)
        self.net = nn.Sequential(net, BYOLProjectionHead(width, HIDDEN, OUTPUT))
        self.predictor = BYOLPredictionHead(OUTPUT, HIDDEN, OUTPUT)
        self.target = copy.deepcopy(self.net)
        deactivate_requires_grad(self.target)
        self.criterion = NegativeCosineSimilarity()

    def optimiser(self, **fused):
        trained = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.SGD(trained, lr=0.15, momentum=0.9, weight_decay=5e-4, **fused)

    def forward(self, views, together):
        p0, p1 = passes(nn.Sequential(self.net, self.predictor), views, together)
        with torch.no_grad():
            z0, z1 = passes(self.target, views, together)
        return 0.5 * (self.criterion(p0.float(), z1.float()) + self.criterion(p1.float(), z0.float()))

    def after_step(self, foreach):
        from lightly.models.utils import update_momentum

        if not foreach:
            update_momentum(self.net, self.target, TAU)
            return
        with torch.no_grad():
            target, online = list(self.target.parameters()), list(self.net.parameters())
            torch._foreach_lerp_(target, online, 1.0 - TAU)


class Swav(nn.Module):
    def __init__(self, name, size):
        from lightly.loss import SwaVLoss
        from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes

        super().__init__()
        net, width = encoder(name, size)
        self.net = nn.Sequential(net, SwaVProjectionHead(width, HIDDEN, OUTPUT))
        self.prototypes = SwaVPrototypes(OUTPUT, PROTOTYPES)
        self.criterion = SwaVLoss(temperature=0.1, sinkhorn_epsilon=0.05)

    def optimiser(self, **fused):
        return torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=1e-4, **fused)

    def forward(self, views, together):
        self.prototypes.normalize()
        z = passes(self.net, views[:2], together) + passes(self.net, views[2:], together)
        scores = [self.prototypes(F.normalize(z, dim=1)).float() for z in z]
        return self.criterion(scores[:2], scores[2:]).sum()

    def after_step(self, foreach):
        pass


class Mae(nn.Module):
    def __init__(self, name, size):
        from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM

        assert name == "vit-tiny/4", "mae needs a ViT"
        super().__init__()
        self.net = MaskedVisionTransformerTIMM(vit=vit(size))
        self.decoder = MAEDecoderTIMM(
            num_patches=(size // 4) ** 2,
            patch_size=4,
            in_chans=1,
            embed_dim=192,
            decoder_embed_dim=DECODER["width"],
            decoder_depth=DECODER["depth"],
            decoder_num_heads=DECODER["heads"],
        )
        self.length = self.net.sequence_length

    def optimiser(self, **fused):
        return torch.optim.AdamW(self.parameters(), lr=1.5e-3, betas=(0.9, 0.95), weight_decay=0.05, **fused)

    def forward(self, views, together):
        from lightly.models import utils

        x = views[0]
        keep, mask = utils.random_token_mask(size=(len(x), self.length), mask_ratio=MASKED, device=x.device)
        seen = self.decoder.embed(self.net.encode(images=x, idx_keep=keep))
        tokens = utils.repeat_token(self.decoder.mask_token, (len(x), self.length))
        tokens = utils.set_at_index(tokens, keep, seen.type_as(tokens))
        guess = self.decoder.predict(utils.get_at_index(self.decoder.decode(tokens), mask))
        patches = utils.get_at_index(utils.patchify(x, 4), mask - 1)
        patches = utils.normalize_mean_var(patches, dim=-1)
        return F.mse_loss(guess.float(), patches)

    def after_step(self, foreach):
        pass


METHODS = {"simclr": SimClr, "byol": Byol, "swav": Swav, "mae": Mae}


def passes(net, views, together):
    """The network's output for each view; those of one size in one pass, if so asked."""
    if not together or not views:
        return [net(x) for x in views]
    return list(net(torch.cat(views)).chunk(len(views)))


def recipes(method, size):
    """(size, crop's area, jitter) of each view."""
    if method == "mae":
        return [(size, *MAE)]
    return [(size, *LARGE)] * 2 + ([(size // 2, *SMALL)] * SMALL_CROPS if method == "swav" else [])


def loader(method, images, size, workers, mean, std):
    """Batches of lists of views, by lightly's transforms on PIL images."""
    from lightly.transforms import MAETransform, SimCLRTransform, SwaVTransform
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    normalize = {"mean": [mean], "std": [std]}
    jitter = {"cj_prob": 0.8, "cj_bright": 0.5, "cj_contrast": 0.5, "cj_sat": 0.0, "cj_hue": 0.0}
    colour = {**jitter, "hf_prob": 0.5, "random_gray_scale": 0.0, "gaussian_blur": 0.0, "normalize": normalize}
    if method == "mae":
        transform = MAETransform(input_size=size, min_scale=MAE[0][0], normalize=normalize)
    elif method == "swav":
        areas = {"crop_min_scales": (LARGE[0][0], SMALL[0][0]), "crop_max_scales": (LARGE[0][1], SMALL[0][1])}
        crops = {"crop_sizes": (size, size // 2), "crop_counts": (2, SMALL_CROPS)}
        transform = SwaVTransform(**crops, **areas, **colour)
    else:
        transform = SimCLRTransform(input_size=size, min_scale=LARGE[0][0], **colour)

    class Views(Dataset):
        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            return transform(Image.fromarray(images[index]))

    # Workers that outlive an epoch: a favour, as the documented loop starts new ones for each.
    options = {"num_workers": workers, "persistent_workers": workers > 0}
    return DataLoader(Views(), BATCH, shuffle=True, drop_last=True, **options)


def tensor_view(x, size, area, jitter, mean, std):
    """A view of a batch [N, 1, H, W] in [0, 1]: crop, flip, brightness and contrast of their own for each image."""
    n, _, height, width = x.shape
    surface = torch.empty(n).uniform_(*area) * height * width
    ratio = torch.empty(n).uniform_(math.log(3 / 4), math.log(4 / 3)).exp()
    w = (surface * ratio).sqrt().clamp(max=width) / width
    h = (surface / ratio).sqrt().clamp(max=height) / height
    dx, dy = (1 - w) * (2 * torch.rand(n) - 1), (1 - h) * (2 * torch.rand(n) - 1)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = w * torch.where(torch.rand(n) < 0.5, -1.0, 1.0), h
    theta[:, 0, 2], theta[:, 1, 2] = dx, dy
    grid = F.affine_grid(theta, (n, 1, size, size), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    if jitter:
        factor = lambda: torch.where(torch.rand(n) < 0.8, torch.empty(n).uniform_(1 - jitter, 1 + jitter), 1.0)
        x = (x * factor().view(n, 1, 1, 1)).clamp(0, 1)
        middle = x.mean(dim=(1, 2, 3), keepdim=True)
        x = ((x - middle) * factor().view(n, 1, 1, 1) + middle).clamp(0, 1)
    return (x - mean) / std


def tensor_batches(method, images, size, mean, std):
    """What `loader` gives, for one epoch, by tensor operations."""
    x = torch.from_numpy(images.copy()).unsqueeze(1)
    for index in torch.randperm(len(x)).split(BATCH):
        if len(index) == BATCH:
            batch = x[index].float() / 255
            yield [tensor_view(batch, *recipe, mean, std) for recipe in recipes(method, size)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arm", choices=ARMS)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("encoder")
    parser.add_argument("size", type=int)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=int, default=10_000)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    images = read_images()[: options.images]
    scaled = images / 255.0
    mean, std = float(scaled.mean()), float(scaled.std())
    bare, tensors = options.arm == "lightly", options.arm.startswith("torch")
    layout = torch.contiguous_format if bare else torch.channels_last
    model = METHODS[options.method](options.encoder, options.size).to(memory_format=layout)
    optimiser = model.optimiser(**({"fused": True} if tensors else {}))
    if options.arm == "torch-compiled":
        model.net.compile()
    if not tensors:
        batches = loader(options.method, images, options.size, options.workers, mean, std)
    steps, start = 0, None
    for _ in range(options.epochs):
        total = 0.0
        if tensors:
            batches = tensor_batches(options.method, images, options.size, mean, std)
        for views in batches:
            views = [x.contiguous(memory_format=layout) for x in views]
            with torch.autocast("cpu", torch.bfloat16, enabled=not bare):
                loss = model(views, together=tensors)
            total += loss.detach()
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            model.after_step(foreach=tensors)
            steps += 1
            if steps == WARM_UP:
                start = time.perf_counter()
    seconds = time.perf_counter() - start
    assert torch.isfinite(total), "the loss is not finite"
    print((steps - WARM_UP) * BATCH / seconds)


if __name__ == "__main__":
    main()
