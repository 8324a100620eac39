"""Reads a run's event file with TensorBoard's own reader, for experiments/tests/it/watching.rs.

    python read_events.py check        whether TensorBoard is here
    python read_events.py RUN          its event file against its metrics.csv
"""

import csv
import math
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

if sys.argv[1] == "check":
    sys.exit()

run = pathlib.Path(sys.argv[1])
events = EventAccumulator(str(run), size_guidance={"scalars": 0})
events.Reload()
read = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
written = {}
with open(run / "metrics.csv", newline="") as file:
    for row in csv.DictReader(file):
        written.setdefault(row["metric"], []).append((int(row["step"]), float(row["value"])))
assert read.keys() == written.keys(), (sorted(read), sorted(written))
for tag, rows in written.items():
    assert [step for step, _ in rows] == [step for step, _ in read[tag]], tag
    for (_, ours), (_, theirs) in zip(rows, read[tag]):
        assert math.isclose(ours, theirs, rel_tol=1e-6), (tag, ours, theirs)  # theirs is f32
print(f"{len(written)} metrics, {sum(map(len, written.values()))} values")
