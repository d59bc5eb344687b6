"""Short runs: what makes them short, what they leave, and whether two of them agree."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
import torch

from seg_l1.training.loop import Loop, Stopped

TINY = [
    "dataset.num_train=16",
    "dataset.num_val=8",
    "dataset.num_test=8",
    "dataset.batch_size=4",
    "model.width=4",
    "trainer.epochs=2",
    "trainer.pictures=2",
    "trainer.compact=false",
]
"""Overrides that make a run on digits last about a second."""

CARD = ["regularizer=l1", "regularizer.alpha=1e-5", *TINY]
"""The command of the card, made short: what the fixture `finished` has run."""

FILES = {
    "config.yaml", "overrides.yaml", "environment.json", "scope.csv", "metrics.csv",
    "summary.json", "checkpoints", "model.safetensors", "tensorboard", "preview.png", "train.log",
    "per_class.csv", "confusion.png",
}  # fmt: skip
"""What every run on digits leaves."""


def runs(folder: Path) -> list[Path]:
    """All run directories below `folder`, in order."""
    return sorted(path.parent for path in folder.rglob("summary.json"))


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))


def take_step(loop: Loop) -> None:
    """Trains for one optimizer step."""
    with pytest.raises(Stopped):
        next(loop.rows(should_stop=lambda: True))


def same_bits(one, other):
    """Whether two nested states hold the same numbers, clocks aside."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            same_bits(one[k], other[k]) for k in one if k not in ("seconds", "elapsed")
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same_bits, one, other))
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    return one == other
