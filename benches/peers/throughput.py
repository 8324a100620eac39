"""Training throughput side by side: this program, lightly and a tuned PyTorch loop, on bundled Fashion-MNIST images.

    cargo build --release -p selfsup-experiments
    python3 benches/peers/throughput.py target/release/selfsup [--rounds 3] [--works simclr:convnet:28,byol:convnet:28]

Makes an environment from requirements.txt in .venv beside this file, unless --python-here says that this Python has
all of it. The arms take turns, round by round, each in its own process, since the load of a machine changes. What the
peers do is said in loops.py; the program does

    selfsup-f32     selfsup pretrain METHOD/PRESET encoder=ENCODER size=SIZE train.precision=f32, without any evaluation
    selfsup-bf16    the same in bfloat16

All have the same network, heads, batch of 128, views and number of steps. The clock of the peers starts after their
first five steps, that of the program after its first; none writes a checkpoint between. An image counts once, however
many views there are of it.
"""
import argparse
import csv
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
BATCH = 128
ARMS = ["lightly", "lightly-tuned", "torch", "torch-compiled", "selfsup-f32", "selfsup-bf16"]
PRESETS = {"simclr": "simclr/cpu", "byol": "byol/cpu", "swav": "swav/cpu-multicrop", "mae": "mae/cpu"}
WORKS = "simclr:convnet:28,byol:convnet:28,swav:convnet:28,simclr:resnet18-cifar:28,mae:vit-tiny/4:32"


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


def measure(work, arm, options):
    """One arm: its images per second, and the shares of the machine that it and others took meanwhile."""
    method, encoder, size = work.split(":")
    images = images_of(work, options)
    wall, busy, own = time.perf_counter(), busy_seconds(), own_seconds()
    if not arm.startswith("selfsup"):
        command = [sys.executable, HERE / "loops.py", arm, method, encoder, size, f"--epochs={options.epochs}"]
        command += [f"--threads={options.threads}", f"--workers={options.workers}", f"--images={images}"]
        rate = float(run(command).split()[-1])
    else:
        with tempfile.TemporaryDirectory() as folder:
            command = [options.selfsup, f"--threads={options.threads}", "pretrain", PRESETS[method], "--out", folder]
            command += ["--resume", "never", f"encoder={encoder}", f"size={size}", f"train.epochs={options.epochs}"]
            command += [f"train.batch={BATCH}", f"train.precision={arm.removeprefix('selfsup-')}"]
            command += [f"data=fashion-mnist-10k:{images}", "evaluate.online_every=0", "evaluate.protocols=[]"]
            command += [f"train.checkpoint_every={options.epochs}"]
            run(command)
            rate = json.loads((Path(folder) / "meta.json").read_text())["images_per_second"]
    wall = (time.perf_counter() - wall) * os.cpu_count()
    own = own_seconds() - own
    return rate, own / wall, max(busy_seconds() - busy - own, 0.0) / wall


def images_of(work, options):
    """Images of an epoch: fewer for the large networks, so that no arm takes long."""
    return options.images if ":convnet:" in work else max(options.images // 8, 7 * BATCH)


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return done.stdout


def in_environment(arguments, script=__file__):
    """Runs a script again with a Python that has what the peers need."""
    place = HERE / ".venv"
    python = place / "bin" / "python"
    stamp = place / "complete"
    if not stamp.exists():
        print(f"making {place} (once)", file=sys.stderr)
        venv.create(place, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", HERE / "requirements.txt"], check=True)
        stamp.touch()
    return subprocess.run([python, script, "--python-here", *arguments]).returncode


def write_rows(path, rows):
    """A CSV file, whole or not at all."""
    part = path.with_name(path.name + ".part")
    with open(part, "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:.4f}" if isinstance(value, float) else value for key, value in row.items()})
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def summary(rows, work, arms):
    """Medians over rounds, and ratios of the program's better arm to each peer."""
    median = {}
    for arm in arms:
        of_arm = [row for row in rows if (row["work"], row["arm"]) == (work, arm)]
        keys = ["images_per_second", "own", "others"]
        median[arm] = {key: statistics.median(row[key] for row in of_arm) for key in keys}
    best = max((m["images_per_second"] for arm, m in median.items() if arm.startswith("selfsup")), default=0.0)
    print(f"\n{work}\n{'arm':15} {'images/s':>9} {'selfsup / arm':>14} {'own':>6} {'others':>7}")
    for arm, m in median.items():
        rate = m["images_per_second"]
        print(f"{arm:15} {rate:9.0f} {best / rate:14.2f} {m['own']:6.0%} {m['others']:7.0%}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("selfsup", help="path of the program selfsup, a release build")
    parser.add_argument("--works", default=WORKS, help=f"METHOD:ENCODER:SIZE, with commas between [default: {WORKS}]")
    parser.add_argument("--arms", default=",".join(ARMS), help="with commas between [default: all]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2, help="per arm and round")
    parser.add_argument("--images", type=int, default=5_000, help="of an epoch; of large networks an eighth")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="processes of lightly's DataLoader")
    parser.add_argument("--csv", type=Path, default=Path("throughput.csv"))
    parser.add_argument("--python-here", action="store_true", help="use this Python instead of an own environment")
    options = parser.parse_args()
    works, arms = options.works.split(","), options.arms.split(",")
    for work in works:
        if len(work.split(":")) != 3 or work.split(":")[0] not in PRESETS:
            parser.error(f"--works: expected METHOD:ENCODER:SIZE with one of {', '.join(PRESETS)}, not {work}")
    for arm in arms:
        if arm not in ARMS:
            parser.error(f"--arms: expected some of {', '.join(ARMS)}, not {arm}")
    if not Path(options.selfsup).is_file():
        parser.error("give the path of the program: cargo build --release -p selfsup-experiments makes it")
    options.selfsup = str(Path(options.selfsup).resolve())
    if not options.python_here:
        sys.exit(in_environment(sys.argv[1:]))

    rows = []
    for number in range(options.rounds):
        for work in works:
            for arm in arms:
                rate, own, others = measure(work, arm, options)
                shares = {"own": own, "others": others}
                rows.append({"round": number, "work": work, "arm": arm, "images_per_second": rate, **shares})
                shares = f"own {own:4.0%}  others {others:4.0%}"
                print(f"round {number} {work:24} {arm:15} {rate:8.0f} images/s  {shares}", flush=True)
    write_rows(options.csv, rows)
    print(f"\nmedians of {options.rounds} rounds, {options.threads} threads, {os.cpu_count()} cores")
    for work in works:
        summary(rows, work, arms)
    print(f"\n{options.csv}: every round")


if __name__ == "__main__":
    main()
