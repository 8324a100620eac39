"""Numbers for tests/report.rs from scipy and TensorBoard.

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
