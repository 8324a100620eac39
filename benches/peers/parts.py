"""Parts of a comparison side by side: this program's criterion benches, and the same work in Python's usual tools.

    python3 benches/peers/parts.py [--rounds 3] [--parts views,knn] [--csv parts.csv]

Makes an environment from requirements.txt in .venv beside this file, unless --python-here says that this Python has
all of it. Of each part the arms take turns, round by round, each in its own process; a round's figure is the median of
an arm's own repetitions. Each part has a rate (a second), more is better. What the peers are:

    views        torchvision's transforms on PIL images, image by image on one core, of 32 x 32 pixels in memory
    photographs  the same on JPEG files of 500 x 375 pixels, decoding included, 224 x 224 with colour jitter and blur
    forward, forward+backward
                 the same network in PyTorch, channels-last, at a batch of 128
    sgd, adamw   one step on the variables of a ResNet-18, PyTorch's fused kernels; lightly has none of its own
    ema          a moving average of them: lightly's update_momentum, and torch._foreach_lerp_
    knn          10,000 queries among 60,000 x 512, 20 neighbours with weighted votes: lightly's knn_predict, and
                 scikit-learn's brute search by cosine
    linear       multinomial logistic regression on 60,000 x 512, penalty 1e-3, until no entry of the gradient exceeds
                 1e-4: scikit-learn's LogisticRegression (lbfgs)
    kmeans       100 clusters of 60,000 x 512, 20 iterations: scikit-learn's KMeans (Lloyd's, random start)
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from throughput import busy_seconds, in_environment, own_seconds, write_rows

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# part: (threads, bench, id, {peer: function below})
PARTS = {}


def part(name, bench, of, threads=None):
    """Adds a peer to a part whose figure on our side is that of a criterion id."""

    def add(function):
        peer = function.__name__.split("__")[0].replace("_", "-")
        PARTS.setdefault(name, (threads, bench, of, {}))[3][peer] = function
        return function

    return add


def rate(work, per_call, seconds=3.0):
    """Calls a second times what a call does: the median of at least three calls after one that warms up."""
    work()
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return per_call / statistics.median(times)


@part("views", "augment", "recipe/32x32x3/simclr-cifar", threads=1)
def torchvision():
    import numpy as np
    from augment import recipe
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (256, 32, 32, 3), dtype=np.uint8)
    images = [Image.fromarray(p) for p in pixels]
    transform = recipe("simclr-cifar", 32, 3)
    return rate(lambda: [transform(image) for image in images], len(images))


@part("photographs", "augment", "photograph/simclr-224", threads=1)
def torchvision__photographs():
    from PIL import Image
    from torchvision import transforms as T

    files = sorted(Path(os.environ["SELFSUP_JPEGS"]).glob("*.jpg"))
    # Recipe::simclr of crates/core/src/augment/tables.rs.
    steps = [T.RandomResizedCrop(224, scale=(0.08, 1.0)), T.RandomHorizontalFlip()]
    steps += [T.RandomApply([T.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8), T.RandomGrayscale(0.2)]
    steps += [T.RandomApply([T.GaussianBlur(23, (0.1, 2.0))], p=0.5), T.ToTensor(), T.Normalize([0.5] * 3, [0.25] * 3)]
    transform = T.Compose(steps)
    return rate(lambda: [transform(Image.open(file).convert("RGB")) for file in files], len(files))


def make_photographs(folder):
    """Sixteen pictures with edges, gradients and grain, as JPEG files of quality 90."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for i in range(16):
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        picture = np.asarray(coarse.resize((500, 375), Image.BICUBIC), np.float32)
        for _ in range(12):
            (x0, x1), (y0, y1) = sorted(random.integers(0, 500, 2)), sorted(random.integers(0, 375, 2))
            picture[y0:y1, x0:x1] = 0.5 * picture[y0:y1, x0:x1] + 0.5 * random.integers(0, 256, 3)
        picture += random.normal(0, 6, picture.shape)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(Path(folder) / f"{i:02}.jpg", quality=90)


def network(name, precision, backward):
    import torch
    from loops import encoder

    channels, size = (1, 28) if name == "convnet" else (3, 32)
    net, width = encoder(name, size, channels)
    x = torch.randn(128, channels, size, size)
    net, x = net.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(128, width)

    def work():
        net.zero_grad()
        with torch.set_grad_enabled(backward), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            y = net(x)
        if backward:
            (y.float() * gradient).sum().backward()

    return rate(work, 128)


for _net, _image in [("convnet", "28x28x1"), ("resnet18-cifar", "32x32x3")]:
    for _precision in ["f32", "bf16"]:
        for _pass in ["forward", "forward+backward"]:

            def torch(net=_net, precision=_precision, backward=_pass != "forward"):
                return network(net, precision, backward)

            part(f"{_pass}/{_net}/{_precision}", "encoder", f"{_net}/{_image}/{_pass}/{_precision}/channels-last")(torch)


def variables():
    import torch
    from loops import encoder

    net, _ = encoder("resnet18-cifar", 32, 3)
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    return net


@part("sgd", "memory", "optimiser/sgd/resnet18")
def torch_fused():
    import torch

    net = variables()
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4, fused=True)
    return rate(optimiser.step, 1)


@part("adamw", "memory", "optimiser/adamw/resnet18")
def torch_fused__adamw():
    import torch

    net = variables()
    return rate(torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=1e-4, fused=True).step, 1)


@part("ema", "memory", "memory/ema/resnet18")
def lightly__ema():
    from lightly.models.utils import update_momentum

    online, target = variables(), variables()
    return rate(lambda: update_momentum(online, target, 0.99), 1)


@part("ema", "memory", "memory/ema/resnet18")
def torch_foreach():
    import torch

    online, target = list(variables().parameters()), list(variables().parameters())
    with torch.no_grad():
        return rate(lambda: torch._foreach_lerp_(target, online, 0.01), 1)


def cloud(n, draw):
    """Features as in benches/evaluate.rs: ten classes whose means differ by about as much as their members."""
    import numpy as np

    shared, own = np.random.default_rng(0), np.random.default_rng(draw)
    means = shared.standard_normal((10, 512), np.float32) * (3.0 / 512**0.5)
    mixing = shared.standard_normal((512, 512), np.float32) / 512**0.5
    labels = np.arange(n) % 10
    return ((means[labels] + own.standard_normal((n, 512), np.float32)) @ mixing).astype(np.float32), labels


@part("knn", "evaluate", "evaluate/knn/60000x512")
def lightly__knn():
    import torch
    from lightly.utils.benchmarking import knn_predict

    (x, y), (q, _) = cloud(60_000, 1), cloud(10_000, 2)
    bank, labels, queries = torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(q)

    def work():
        keys = torch.nn.functional.normalize(bank, dim=1).t().contiguous()
        # As lightly's KNNClassifier does: batch after batch of queries.
        for batch in torch.nn.functional.normalize(queries, dim=1).split(256):
            knn_predict(batch, keys, labels, num_classes=10, knn_k=20, knn_t=0.07)

    return rate(work, 10_000)


@part("knn", "evaluate", "evaluate/knn/60000x512")
def scikit_learn():
    from sklearn.neighbors import KNeighborsClassifier

    (x, y), (q, _) = cloud(60_000, 1), cloud(10_000, 2)

    def work():
        KNeighborsClassifier(20, algorithm="brute", metric="cosine", weights="distance").fit(x, y).predict(q)

    return rate(work, 10_000)


@part("linear", "evaluate", "evaluate/linear_fit/60000x512")
def scikit_learn__linear():
    from sklearn.linear_model import LogisticRegression

    x, y = cloud(60_000, 1)

    def work():
        z = (x - x.mean(0)) / x.std(0)
        LogisticRegression(C=1 / (1e-3 * len(x)), tol=1e-4, max_iter=1000).fit(z, y)

    return rate(work, 60_000)


@part("kmeans", "memory", "kmeans/60000x512/k100/20")
def scikit_learn__kmeans():
    import numpy as np
    from sklearn.cluster import KMeans

    x = np.random.default_rng(3).standard_normal((60_000, 512), np.float32)
    work = lambda: KMeans(100, init="random", n_init=1, max_iter=20, tol=0, algorithm="lloyd", random_state=0).fit(x)
    return rate(work, 60_000)


# What one call of a criterion id does, where its figure is a time alone.
PER_CALL = {"knn": 10_000, "linear": 60_000, "kmeans": 60_000}


def ours(name, bench, of, threads):
    """The rate of a criterion id, by its median."""
    cargo = ["cargo", "bench", "--quiet", "-p", "selfsup-benches", "--bench", bench, "--", f"^{of.replace('+', '[+]')}$"]
    environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
    done = subprocess.run(cargo, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(cargo)} failed:\n{done.stderr}")
    for file in (ROOT / "target/criterion").glob("**/new/benchmark.json"):
        about = json.loads(file.read_text())
        if about["full_id"] == of:
            median = json.loads(file.with_name("estimates.json").read_text())["median"]["point_estimate"] * 1e-9
            elements = (about["throughput"] or {}).get("Elements")
            return (elements or PER_CALL.get(name, 1)) / median
    sys.exit(f"there is no figure of {of}; is it an id of the bench {bench}?")


def theirs(name, peer, threads):
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--python-here", "--measure", name, peer]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{name} of {peer} failed:\n{done.stderr}")
    return float(done.stdout.split()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="with commas between; a word takes all that begin with it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of the parts that take more than one")
    parser.add_argument("--csv", type=Path, default=Path("parts.csv"))
    parser.add_argument("--python-here", action="store_true", help="use this Python instead of an own environment")
    parser.add_argument("--measure", nargs=2, metavar=("PART", "PEER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, peer = options.measure
        print(PARTS[name][3][peer]())
        return
    wanted = options.parts.split(",")
    names = [name for name in PARTS if any(name.startswith(word) for word in wanted)]
    if not names:
        parser.error(f"--parts: expected some of {', '.join(PARTS)}")
    if not options.python_here:
        sys.exit(in_environment(sys.argv[1:], __file__))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        make_photographs(folder)
        os.environ["SELFSUP_JPEGS"] = folder
        for number in range(options.rounds):
            for name in names:
                threads, bench, of, peers = PARTS[name]
                threads = threads or options.threads
                arms = {"selfsup": lambda: ours(name, bench, of, threads)}
                arms |= {peer: lambda peer=peer: theirs(name, peer, threads) for peer in peers}
                for arm, measure in arms.items():
                    wall, busy, own = time.perf_counter(), busy_seconds(), own_seconds()
                    value = measure()
                    wall = (time.perf_counter() - wall) * os.cpu_count()
                    others = max(busy_seconds() - busy - (own_seconds() - own), 0.0) / wall
                    rows.append({"round": number, "part": name, "arm": arm, "threads": threads, "rate": value, "others": others})
                    print(f"round {number} {name:32} {arm:14} {value:12.1f} a second  others {others:4.0%}", flush=True)
    write_rows(options.csv, rows)
    print(f"\n| part | arm | threads | rate, a second | selfsup / arm |\n|---|---|---:|---:|---:|")
    for name in names:
        median = lambda arm: statistics.median(r["rate"] for r in rows if (r["part"], r["arm"]) == (name, arm))
        for arm in ["selfsup", *PARTS[name][3]]:
            threads = PARTS[name][0] or options.threads
            print(f"| {name} | {arm} | {threads} | {median(arm):.4g} | {median('selfsup') / median(arm):.2f} |")


if __name__ == "__main__":
    main()
