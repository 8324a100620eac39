#!/usr/bin/env python3
"""Cut fashion-mnist-10k out of Fashion-MNIST: the first 1,000 (train) and 200 (test) images of each class.

usage: make.py SOURCE OUT     SOURCE holds the four Fashion-MNIST .gz files as published; needs only Python 3

Images keep their order. The gzip headers hold no name and no time, so the same zlib writes the same bytes; another
zlib may compress to other bytes of equal content, and only the content's sums are checked when the set is read.
"""
import gzip
import hashlib
import os
import struct
import sys

SIZE = 28 * 28


def read(path, magic):
    with gzip.open(path) as file:
        data = file.read()
    found, count = struct.unpack(">II", data[:8])
    assert found == magic, f"{path}: magic {found}, expected {magic}"
    return count, data[8:]


def first_of_each_class(labels, each):
    seen = [0] * 10
    kept = []
    for row, label in enumerate(labels):
        if seen[label] < each:
            seen[label] += 1
            kept.append(row)
    assert seen == [each] * 10
    return kept


def write(path, data):
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write(data)
    print(f"{hashlib.sha256(data).hexdigest()}  content of {os.path.basename(path)} ({len(data)} bytes)")


def main():
    source, out = sys.argv[1:]
    for part, each in (("train", 1000), ("t10k", 200)):
        count, labels = read(os.path.join(source, f"{part}-labels-idx1-ubyte.gz"), 2049)
        images_count, images = read(os.path.join(source, f"{part}-images-idx3-ubyte.gz"), 2051)
        assert count == images_count == len(labels) and images[:8] == struct.pack(">II", 28, 28)
        pixels = images[8:]
        kept = first_of_each_class(labels, each)
        body = b"".join(pixels[row * SIZE:(row + 1) * SIZE] for row in kept)
        write(os.path.join(out, f"{part}-images-idx3-ubyte.gz"), struct.pack(">IIII", 2051, len(kept), 28, 28) + body)
        write(os.path.join(out, f"{part}-labels-idx1-ubyte.gz"),
              struct.pack(">II", 2049, len(kept)) + bytes(labels[row] for row in kept))
        if part == "train":
            mean = sum(body) / len(body) / 255
            std = (sum(p * p for p in body) / len(body) / 255 ** 2 - mean ** 2) ** 0.5
            print(f"train pixels: mean {mean:.4f}, standard deviation {std:.4f}")


main()
