"""Makes pickles/*.pth, which tests/pickles.rs reads: python3 crates/train/tests/pickles.py (torch 2.11)."""
from collections import OrderedDict
from pathlib import Path

import torch

FOLDER = Path(__file__).with_name("pickles")


class Options:
    """Of a module that no reader has."""

    def __init__(self):
        self.rate = 0.1


def main():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(torch.arange(p.numel()).view_as(p) + 10 * i)
    rows = torch.arange(12.0).view(3, 4)
    kinds = {
        "f64": torch.tensor([0.5, -1.5], dtype=torch.float64),
        "f16": torch.tensor([0.5, -1.5], dtype=torch.float16),
        "bf16": torch.tensor([0.5, -1.5], dtype=torch.bfloat16),
        "i64": torch.tensor([1 << 40, -1]),
        "i32": torch.tensor([7, -7], dtype=torch.int32),
        "i16": torch.tensor([7, -7], dtype=torch.int16),
        "i8": torch.tensor([7, -7], dtype=torch.int8),
        "u8": torch.tensor([7, 200], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
    }
    shapes = OrderedDict(
        transposed=rows.t(), middle=rows[1:, 1:3], row=rows[2], parameter=torch.nn.Parameter(torch.ones(2)),
        scalar=torch.tensor(2.5), none=torch.zeros(0, 3), again=rows,
    )
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.ones(2, 3)).sum().backward()
    optimiser.step()
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(torch.arange(p.numel()).view_as(p) + 10 * i)
    whole = {
        "state_dict": net.state_dict(), "kinds": kinds, "shapes": shapes, "optimizer": optimiser.state_dict(),
        "epoch": 300, "steps": 1 << 70, "loss": 0.5, "name": "é", "tags": {"a", "b"}, "options": Options(), "done": None,
    }
    torch.save(whole, FOLDER / "archive.pth")
    torch.save(whole, FOLDER / "row.pth", _use_new_zipfile_serialization=False)
    torch.save(whole, FOLDER / "protocol-4.pth", pickle_protocol=4)
    torch.save(net.state_dict(), FOLDER / "weights.pth")
    torch.save(rows, FOLDER / "tensor.pth")


if __name__ == "__main__":
    main()
