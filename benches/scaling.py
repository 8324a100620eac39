"""What a run costs as one of its quantities grows: time and memory, with fitted exponents.

    cargo build --release -p selfsup-experiments
    python3 benches/scaling.py target/release/selfsup [--rounds 3] [--csv scaling.csv]

Each run is `selfsup pretrain` or `compare` in its own process, on bundled Fashion-MNIST images, bfloat16; the values of a
quantity take turns, round by round, and figures are medians. An exponent e says that the cost grows as value^e; it is
the slope of a least-squares line through the logarithms, so that constant costs make it smaller. Memory is the
largest that the process held while it trained, LibTorch and the images included.
"""
import argparse
import json
import math
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from peers.throughput import run, write_rows

BF16, NO_SCORES = "train.precision=bf16", ["evaluate.online_every=0", "evaluate.protocols=[]"]
CONVNET = ["simclr/cpu", "encoder=convnet", "size=28", "train.batch=128"]
# Of twelve blocks.
VITS = {192: "tiny", 384: "small", 768: "base"}
STUDY = ["simclr/cpu", "byol/cpu", "vicreg/cpu", "simsiam/cpu"]

# quantity: (cost, values, what is run with a value, images of an epoch)
QUANTITIES = {
    "batch": ("ms a step", [32, 64, 128, 256, 512], lambda n: [*CONVNET, f"train.batch={n}"], lambda n: max(8 * n, 1024)),
    "side of an image": ("ms an image", [16, 28, 40, 56], lambda n: [*CONVNET, f"size={n}"], lambda n: 1024),
    "width of a ViT": (
        "ms an image",
        [192, 384, 768],
        lambda n: ["simclr/cpu", f"encoder=vit-{VITS[n]}/4", "size=28", "train.batch=64"],
        lambda n: 256,
    ),
    "images": ("s an epoch", [1250, 2500, 5000, 10000], lambda n: CONVNET, lambda n: n),
    "images, kNN": ("s a whole run", [1250, 2500, 5000, 10000], lambda n: CONVNET, lambda n: n),
    "methods": ("s a comparison", [1, 2, 3, 4], None, lambda n: 1280),
}


def cost(quantity, value, program):
    """The cost of one run, and its peak memory in MiB where it is that of one process."""
    _, _, settings, images = QUANTITIES[quantity]
    data = f"data=fashion-mnist-10k:{images(value)}"
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        if settings is None:
            study = Path(folder) / "study.toml"
            runs = "".join(f'[[runs]]\nmethod = "{method}"\n' for method in STUDY[:value])
            study.write_text(f'name = "methods"\nseeds = [0]\n{runs}')
            run([program, "compare", study, "--out", folder, data, BF16, "train.epochs=1", *NO_SCORES])
            return time.perf_counter() - start, math.nan
        scores = ['evaluate.protocols=["knn"]'] if quantity.endswith("kNN") else NO_SCORES[1:]
        command = [program, "pretrain", *settings(value), data, BF16, "train.epochs=1", NO_SCORES[0], *scores]
        run([*command, "--out", folder, "--resume", "never"])
        whole = time.perf_counter() - start
        about = json.loads((Path(folder) / "meta.json").read_text())
    image = 1 / about["images_per_second"]
    costs = {"ms a step": 1e3 * image * value, "ms an image": 1e3 * image}
    return {**costs, "s an epoch": image * value, "s a whole run": whole}[QUANTITIES[quantity][0]], about["peak_memory_mib"]


def exponent(xs, ys):
    """The slope of log y over log x."""
    xs, ys = [math.log(x) for x in xs], [math.log(y) for y in ys]
    return statistics.linear_regression(xs, ys).slope


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("selfsup", help="path of the program selfsup, a release build")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--csv", type=Path, default=Path("scaling.csv"))
    options = parser.parse_args()
    program = str(Path(options.selfsup).resolve())
    rows = []
    print("| quantity | cost | at its values | exponent | MiB | exponent |\n|---|---|---|---:|---|---:|")
    for quantity, (unit, values, _, _) in QUANTITIES.items():
        found = {value: [] for value in values}
        for n in range(options.rounds):
            for value in values:
                found[value].append(cost(quantity, value, program))
                row = {"quantity": quantity, "value": value, "round": n, "unit": unit}
                rows.append({**row, "cost": found[value][-1][0], "peak_memory_mib": found[value][-1][1]})
        costs, memory = ([statistics.median(f[i] for f in found[value]) for value in values] for i in (0, 1))
        text = lambda ys, digits: ", ".join(f"{x}: {y:.{digits}f}" for x, y in zip(values, ys))
        line = f"| {quantity} | {unit} | {text(costs, 3)} | {exponent(values, costs):.2f} |"
        print(line + (" | |" if math.isnan(memory[0]) else f" {text(memory, 0)} | {exponent(values, memory):.2f} |"), flush=True)
    write_rows(options.csv, rows)


if __name__ == "__main__":
    main()
