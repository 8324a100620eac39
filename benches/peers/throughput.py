"""Training throughput side by side: SimCLR on the bundled Fashion-MNIST images, lightly in Python and selfsup.

    cargo build --release -p selfsup-experiments
    python3 benches/peers/throughput.py target/release/selfsup [--rounds 3] [--epochs 2] [--threads 2]

Makes an environment from requirements.txt in .venv beside this file, unless --python-here says that this Python has
all of it. The arms take turns, round by round, each in its own process, since the load of a machine changes:

    lightly         its documented loop: SimCLRTransform on PIL images in a DataLoader with workers, two passes through
                    the network, NTXentLoss, AdamW; float32
    lightly-tuned   the same, with channels-last memory and bfloat16 autocast around the networks
    selfsup-f32     selfsup pretrain simclr/cpu encoder=convnet, without any evaluation
    selfsup-bf16    the same in bfloat16

All train the network `convnet` with a projector 256-256-128 at a batch of 128 for equally many steps, on views of
equal parameters (crop 0.3 to 1, flip 0.5, brightness and contrast 0.5 with probability 0.8, 28 pixels). The clock of
lightly starts after its first five steps, so neither the start of its workers nor its first allocations count; that of
selfsup starts before its first, and runs through its checkpoints.
"""
import argparse
import csv
import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
IMAGES = HERE.parent.parent / "datasets/bundled/fashion-mnist-10k/train-images-idx3-ubyte.gz"
BATCH = 128
SIZE = 28
WARM_UP = 5  # steps of lightly that are not timed
ARMS = ["lightly", "lightly-tuned", "selfsup-f32", "selfsup-bf16"]


def read_images():
    """[N, 28, 28] u8."""
    import numpy as np

    data = gzip.open(IMAGES).read()
    magic, n, height, width = np.frombuffer(data, ">u4", 4)
    assert magic == 0x803, f"{IMAGES}: not an IDX file of images"
    return np.frombuffer(data, np.uint8, offset=16).reshape(n, height, width)


def network():
    """The encoder `convnet` (crates/core/src/encoder/convnet.rs) and the projector of the preset simclr/cpu."""
    from lightly.models.modules import SimCLRProjectionHead
    from torch import nn

    layers, channels = [], 1
    for width, stride in [(32, 2), (64, 2), (128, 1), (256, 1)]:
        conv = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        channels = width
    encoder = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(encoder, SimCLRProjectionHead(256, 256, 128))


def train_lightly(tuned, options):
    """Images per second of the loop in lightly's documentation."""
    import torch
    from lightly.loss import NTXentLoss
    from lightly.transforms import SimCLRTransform
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    images = read_images()[: options.images]
    scaled = images / 255.0
    transform = SimCLRTransform(
        input_size=SIZE,
        min_scale=0.3,
        hf_prob=0.5,
        cj_prob=0.8,
        cj_bright=0.5,
        cj_contrast=0.5,
        cj_sat=0.0,
        cj_hue=0.0,
        random_gray_scale=0.0,
        gaussian_blur=0.0,
        normalize={"mean": [float(scaled.mean())], "std": [float(scaled.std())]},
    )

    class Views(Dataset):
        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            return transform(Image.fromarray(images[index])), 0

    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    model = network()
    if tuned:
        model = model.to(memory_format=torch.channels_last)
    # Workers that outlive an epoch: a favour, as the documented loop starts new ones for each.
    workers = {"num_workers": options.workers, "persistent_workers": options.workers > 0}
    loader = DataLoader(Views(), BATCH, shuffle=True, drop_last=True, **workers)
    criterion = NTXentLoss(temperature=0.1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    steps, start = 0, None
    for _ in range(options.epochs):
        total = 0.0
        for (x0, x1), _ in loader:
            if tuned:
                x0 = x0.contiguous(memory_format=torch.channels_last)
                x1 = x1.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16, enabled=tuned):
                z0, z1 = model(x0), model(x1)
            loss = criterion(z0.float(), z1.float())
            total += loss.detach()
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            steps += 1
            if steps == WARM_UP:
                start = time.perf_counter()
    seconds = time.perf_counter() - start
    assert torch.isfinite(total), "the loss is not finite"
    return (steps - WARM_UP) * BATCH / seconds


def busy_seconds():
    """Seconds of processor time that this machine has spent on anything, all cores together."""
    fields = Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    ticks = [int(field) for field in fields]
    # user, nice, system, idle, iowait, irq, softirq, steal; guest time is in user already
    return (sum(ticks[:8]) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def own_seconds():
    """Processor time of finished children, and of theirs."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(arm, options):
    """One arm: its images per second, and the shares of the machine that it and others took meanwhile."""
    wall, busy, own = time.perf_counter(), busy_seconds(), own_seconds()
    if arm.startswith("lightly"):
        command = [sys.executable, __file__, "--arm", arm, f"--epochs={options.epochs}"]
        command += [f"--threads={options.threads}", f"--workers={options.workers}", f"--images={options.images}"]
        rate = float(run(command).split()[-1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            command = [options.selfsup, f"--threads={options.threads}", "pretrain", "simclr/cpu", "--out", folder]
            command += ["--resume", "never", "encoder=convnet", f"train.epochs={options.epochs}"]
            command += [f"train.batch={BATCH}", f"train.precision={arm.removeprefix('selfsup-')}"]
            command += [f"data=fashion-mnist-10k:{options.images}"]
            command += ["evaluate.online_every=0", "evaluate.protocols=[]"]
            run(command)
            rate = json.loads((Path(folder) / "meta.json").read_text())["images_per_second"]
    wall = (time.perf_counter() - wall) * os.cpu_count()
    own = own_seconds() - own
    return rate, own / wall, max(busy_seconds() - busy - own, 0.0) / wall


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return done.stdout


def in_environment(arguments):
    """Runs this script again with a Python that has what the peers need."""
    place = HERE / ".venv"
    python = place / "bin" / "python"
    stamp = place / "complete"
    if not stamp.exists():
        print(f"making {place} (once)", file=sys.stderr)
        venv.create(place, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", HERE / "requirements.txt"], check=True)
        stamp.touch()
    return subprocess.run([python, __file__, "--python-here", *arguments]).returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("selfsup", nargs="?", help="path of the program selfsup, a release build")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2, help="per arm and round")
    parser.add_argument("--images", type=int, default=10_000, help="of an epoch; 10000 make 78 steps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="processes of lightly's DataLoader")
    parser.add_argument("--csv", type=Path, default=Path("throughput.csv"))
    parser.add_argument("--python-here", action="store_true", help="use this Python instead of an own environment")
    parser.add_argument("--arm", choices=ARMS[:2], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.images // BATCH * options.epochs <= WARM_UP:
        parser.error(f"--images and --epochs must make more than {WARM_UP} steps of {BATCH} images")
    if options.arm:
        print(train_lightly(options.arm == "lightly-tuned", options))
        return
    if not options.selfsup or not Path(options.selfsup).is_file():
        parser.error("give the path of the program: cargo build --release -p selfsup-experiments makes it")
    options.selfsup = str(Path(options.selfsup).resolve())
    if not options.python_here:
        sys.exit(in_environment(sys.argv[1:]))

    rows = []
    for number in range(options.rounds):
        for arm in ARMS:
            rate, own, others = measure(arm, options)
            rows.append({"round": number, "arm": arm, "images_per_second": rate, "own": own, "others": others})
            print(f"round {number} {arm:14} {rate:8.0f} images/s  own {own:4.0%}  others {others:4.0%}", flush=True)
    part = options.csv.with_name(options.csv.name + ".part")
    with open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:.4f}" if isinstance(value, float) else value for key, value in row.items()})
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, options.csv)

    print(
        f"\nmedian of {options.rounds}, {options.threads} threads, {os.cpu_count()} cores, "
        f"{options.images // BATCH * options.epochs} steps"
    )
    print(f"{'arm':14} {'images/s':>9} {'/ lightly':>10} {'/ tuned':>9} {'own':>6} {'others':>7}")
    median = {key: {} for key in ["images_per_second", "own", "others"]}
    for key, values in median.items():
        for arm in ARMS:
            values[arm] = statistics.median(row[key] for row in rows if row["arm"] == arm)
    rate = median["images_per_second"]
    for arm in ARMS:
        print(
            f"{arm:14} {rate[arm]:9.0f} {rate[arm] / rate['lightly']:10.2f} {rate[arm] / rate['lightly-tuned']:9.2f}"
            f" {median['own'][arm]:6.0%} {median['others'][arm]:7.0%}"
        )
    print(f"{options.csv}: every round")


if __name__ == "__main__":
    main()
