"""Makes golden.safetensors and golden.json: torchvision's results for the operations of selfsup_core::augment.

    python crates/core/tests/augment/golden.py        # torch 2.11.0, torchvision 0.26.0, safetensors

golden.json holds the cases (image, size, the draw in its serde form); the tensors are the images, u8 [C,H,W], and
what torchvision makes of them, f32 [C,S,S] before normalisation.
"""
import json
import pathlib

import torch
import torchvision.transforms.v2.functional as F
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
torch.manual_seed(0)


def smooth_image(channels, height, width):
    """Large patches of colour, some noise, a black and a white corner: edges, flat parts and equal channels."""
    coarse = torch.rand(1, channels, height // 8 + 1, width // 8 + 1)
    image = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    image = (image * 255 + 25 * torch.randn(channels, height, width)).clamp(0, 255)
    image[:, :3, :3] = 0
    image[:, -3:, -3:] = 255
    image[:, 5, 5] = 128
    return image.round().to(torch.uint8)


IMAGES = {"rgb": smooth_image(3, 32, 32), "grey": smooth_image(1, 28, 28), "large": smooth_image(3, 97, 131)}


def apply(image, size, draw):
    x = F.to_dtype(image, torch.float32, scale=True)
    c = draw.get("crop")
    if c is None:
        x = F.resize(x, [size, size], antialias=True)
    else:
        x = F.resized_crop(x, c["top"], c["left"], c["height"], c["width"], [size, size], antialias=True)
    if draw.get("flip"):
        x = F.horizontal_flip(x)
    if draw.get("jitter"):
        j = draw["jitter"]
        for operation in j["order"]:
            x = getattr(F, f"adjust_{operation}")(x, j[operation])
    if draw.get("grey"):
        x = F.rgb_to_grayscale(x, num_output_channels=x.shape[0])
    if draw.get("sigma"):
        kernel = max(2 * (size // 10 // 2) + 1, 3)
        x = F.gaussian_blur(x, [kernel, kernel], [draw["sigma"]] * 2)
    if draw.get("solarise") is not None:
        x = F.solarize(x, draw["solarise"])
    return x


def box(top, left, height, width):
    return dict(top=top, left=left, height=height, width=width)


def jitter(order, **factors):
    names = dict(b="brightness", c="contrast", s="saturation", h="hue")
    neutral = dict(brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0)
    return dict(order=[names[o] for o in order], **(neutral | factors))


ONE = {
    "crop_up": dict(crop=box(3, 5, 17, 20)),
    "crop_narrow": dict(crop=box(0, 9, 24, 1)),
    "flip": dict(flip=True),
    "brighter": dict(jitter=jitter("bcsh", brightness=1.375)),
    "darker": dict(jitter=jitter("bcsh", brightness=0.25)),
    "contrast_up": dict(jitter=jitter("bcsh", contrast=1.75)),
    "contrast_down": dict(jitter=jitter("bcsh", contrast=0.375)),
    "saturation_up": dict(jitter=jitter("bcsh", saturation=1.75)),
    "saturation_down": dict(jitter=jitter("bcsh", saturation=0.25)),
    "hue_up": dict(jitter=jitter("bcsh", hue=0.1875)),
    "hue_down": dict(jitter=jitter("bcsh", hue=-0.375)),
    "hue_half": dict(jitter=jitter("bcsh", hue=0.5)),
    "grey": dict(grey=True),
    "blur": dict(sigma=0.75),
    "solarise": dict(solarise=0.5),
    "solarise_low": dict(solarise=0.30078125),
}
CHAIN = {
    "chain_1": dict(
        crop=box(2, 4, 20, 22), flip=True,
        jitter=jitter("hcsb", brightness=1.25, contrast=0.75, saturation=1.375, hue=0.09375),
    ),
    "chain_2": dict(
        crop=box(6, 1, 19, 15), sigma=1.5, solarise=0.5,
        jitter=jitter("sbhc", brightness=0.75, contrast=1.3125, saturation=0.625, hue=-0.0625),
    ),
    "chain_3": dict(
        crop=box(0, 0, 28, 28), flip=True, grey=True, sigma=0.25,
        jitter=jitter("cbsh", brightness=1.5, contrast=1.5, saturation=1.5, hue=0.125),
    ),
}

cases = []
for name, draw in (ONE | CHAIN).items():
    cases.append(dict(name=f"rgb_{name}", image="rgb", size=32, draw=draw))
    cases.append(dict(name=f"grey_{name}", image="grey", size=28, draw=draw))
for name, draw in {
    "whole": {},
    "crop_down": dict(crop=box(10, 21, 80, 101)),
    "crop_mixed": dict(crop=box(40, 3, 19, 120), flip=True),
    "crop_edge": dict(crop=box(60, 90, 37, 41)),
    "chain": CHAIN["chain_2"] | dict(crop=box(7, 30, 77, 65), flip=True),
}.items():
    cases.append(dict(name=f"large_{name}", image="large", size=32, draw=draw))
# A kernel of 9 taps: 96 pixels.
cases.append(dict(name="large_blur_9", image="large", size=96, draw=dict(sigma=2.0, crop=box(0, 0, 97, 97))))
cases.append(dict(name="rgb_down_to_13", image="rgb", size=13, draw=dict(crop=box(1, 2, 30, 29))))

tensors = {f"image_{name}": image for name, image in IMAGES.items()}
for case in cases:
    tensors[case["name"]] = apply(IMAGES[case["image"]], case["size"], case["draw"]).contiguous()
save_file(tensors, str(HERE / "golden.safetensors"))
(HERE / "golden.json").write_text("[\n" + ",\n".join("  " + json.dumps(case) for case in cases) + "\n]\n")
print(len(cases), "cases", sum(t.numel() * t.element_size() for t in tensors.values()), "bytes")
