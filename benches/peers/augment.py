"""Images per second of torchvision's pipeline on one core, for the recipes of benches/augment.rs.

    python benches/peers/augment.py [--seconds 2]     # torch, torchvision, numpy, pillow

PIL images in memory -> RandomResizedCrop, flip, ColorJitter p 0.8, grey, blur, solarise -> ToTensor -> Normalize, image
by image: what a worker of a DataLoader does. Each line is the median of five runs.
"""
import argparse
import statistics
import time

import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision import transforms as T

torch.set_num_threads(1)


def recipe(name, size, channels):
    crop = T.RandomResizedCrop(size, scale=(0.2 if name == "mae" else 0.08, 1.0))
    steps = [crop, T.RandomHorizontalFlip()]
    if name != "mae":
        saturation = 0.4 if name == "simclr-cifar" else 0.2
        steps.append(T.RandomApply([T.ColorJitter(0.4, 0.4, saturation, 0.1)], p=0.8))
        steps.append(T.RandomGrayscale(0.2))
    if name.startswith("byol"):
        blur = T.GaussianBlur(max(2 * (size // 10 // 2) + 1, 3), (0.1, 2.0))
        steps.append(T.RandomApply([blur], p=1.0 if name == "byol-a" else 0.1))
        steps.append(T.RandomSolarize(128, p=0.0 if name == "byol-a" else 0.2))
    return T.Compose(steps + [T.ToTensor(), T.Normalize([0.5] * channels, [0.25] * channels)])


def images_per_second(transform, images, seconds):
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for image in images:
            transform(image)
        done += len(images)
    return done / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one of the five runs")
    seconds = parser.parse_args().seconds
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, 1 thread")
    random = np.random.default_rng(0)
    for shape in [(32, 32, 3), (28, 28, 1)]:
        pixels = random.integers(0, 256, (256, *shape), dtype=np.uint8)
        images = [Image.fromarray(p.squeeze()) for p in pixels]
        for name in ["simclr-cifar", "byol-a", "byol-b", "mae"]:
            transform = recipe(name, shape[0], shape[2])
            images_per_second(transform, images, 0.3)
            rates = [images_per_second(transform, images, seconds) for _ in range(5)]
            print(f"{'x'.join(map(str, shape))} {name:13} {statistics.median(rates):9.0f} images/s")


if __name__ == "__main__":
    main()
