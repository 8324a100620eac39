"""Numbers for tests/report.rs and tests/statistics.rs from scipy, numpy and TensorBoard.

    pip install scipy tensorboard
    python tests/golden.py                    prints the numbers
    python tests/golden.py read FILE          reads an event file with TensorBoard's own reader
"""
import sys

if sys.argv[1:2] == ["read"]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(sys.argv[2])
    events.Reload()
    for tag in events.Tags()["scalars"]:
        print(tag, [(e.step, e.value) for e in events.Scalars(tag)])
    sys.exit()

import numpy as np
from scipy import stats

for inside, freedom in [(0.95, 1), (0.95, 2), (0.95, 3), (0.95, 4), (0.95, 9), (0.95, 30), (0.99, 7), (0.5, 6), (0.95, 1000)]:
    print(f"({inside}, {freedom}, {stats.t.ppf(0.5 + inside / 2, freedom):.15g}),")

a = np.array([0.861, 0.858, 0.866, 0.849, 0.871])
b = np.array([0.853, 0.857, 0.852, 0.851, 0.860])
d = a - b
low, high = stats.t.interval(0.95, len(d) - 1, loc=d.mean(), scale=stats.sem(d))
print(f"sd {a.std(ddof=1):.15g}; mean {d.mean():.15g}, interval {low:.15g} {high:.15g}")
print(f"paired t test p {stats.ttest_rel(a, b).pvalue:.15g}")

for x, bound in [(d, 0.0), (d, 0.01), (-d, 0.0)]:
    print(f"exceeds {bound} {stats.ttest_1samp(x, bound, alternative='greater').pvalue:.15g}")

# All 5^5 samples with replacement, and numpy's percentiles of their means.
import itertools
means = [np.mean(sample) for sample in itertools.product(d, repeat=len(d))]
print("bootstrap", [f"{x:.15g}" for x in np.percentile(means, [2.5, 97.5])])
long = np.sin(np.arange(40.0))
drawn = np.random.default_rng(0).choice(long, (200000, 40)).mean(1)
print("bootstrap of 40, drawn", np.percentile(drawn, [2.5, 97.5]))

untied = np.array([0.1, -0.2, 0.35, 0.4, 0.5, 0.62, -0.05, 0.8])
tied = np.array([1, 1, -1, 2, 2, 3, -3, 4, 0])
for x in [d, untied]:
    print(f"wilcoxon {stats.wilcoxon(x, method='exact').pvalue:.15g}")
# Of ties scipy knows no exact distribution: all choices of signs.
kept = tied[tied != 0]
r = stats.rankdata(abs(kept))
sums = [sum(r * signs) for signs in itertools.product([0, 1], repeat=len(kept))]
observed = min(sum(r[kept > 0]), sum(r[kept < 0]))
print(f"wilcoxon with ties {min(1, 2 * np.mean([s <= observed for s in sums])):.15g}")

for pair in [(10, 2), (3, 3), (0, 9), (700, 620), (3000, 3200)]:
    print(f"mcnemar {pair} {stats.binomtest(pair[0], sum(pair), 0.5).pvalue:.15g}")
p = np.array([0.01, 0.04, 0.03, 0.005, 0.5])
order = np.argsort(p)
holm = np.empty(5)
holm[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(5, 0, -1)))
print("holm", holm.tolist())
x, y = [1, 4, 16, 64, 254], [79.1, 80.0, 80.2, 81.7, 81.0]
print(f"spearman {stats.spearmanr(x, y).statistic:.15g}")
print(f"spearman with ties {stats.spearmanr([1, 2, 2, 3], [5, 7, 6, 6]).statistic:.15g}")
# Of orders drawn by chance: all of them, for each seed.
for k, r in [(3, [1.0, 0.5, 1.0, 1.0]), (4, [0.8, 0.4, 1.0]), (5, [0.3, 0.7]), (6, [0.6])]:
    orders = itertools.permutations(range(k))
    one = [1 - 6 * sum((i - j) ** 2 for i, j in enumerate(o)) / (k**3 - k) for o in orders]
    sums = np.array([0.0])
    for _ in r:
        sums = np.add.outer(sums, one).ravel()
    print(f"by chance {k} {r} {np.mean(sums >= sum(r) - 1e-9):.15g}")
for k in [2, 3, 5, 10, 20]:
    print(f"range {k} {stats.studentized_range.ppf(0.95, k, np.inf):.12g}")

import os, tempfile
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "events")
    with open(path, "wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=1.5, file_version="brain.Event:2").SerializeToString())
        value = Summary.Value(tag="train/loss", simple_value=0.25)
        writer.write(Event(wall_time=2.5, step=300, summary=Summary(value=[value])).SerializeToString())
    print(open(path, "rb").read().hex())
