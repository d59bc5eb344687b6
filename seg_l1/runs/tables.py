"""`metrics.csv` and `scope.csv`: their columns, written and read."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from seg_l1.runs import files
from seg_l1.scope import Rule, ScopedTensor


def write_metrics(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Writes a row per epoch; without one, nothing."""
    if rows:
        header = {key: None for row in reversed(rows) for key in row}  # an older version's less
        lines = [[row.get(key, float("nan")) for key in header] for row in rows]
        files.write_csv(path, header, lines)


def read_metrics(path: Path, epochs: int) -> list[dict[str, float]]:
    """Returns the rows of the first `epochs` epochs.

    Raises:
        UserError: if the table does not hold them.
    """
    rows: list[dict[str, float]] = []
    if epochs:
        with files.blame_file(path):
            with open(path, newline="", encoding="utf-8") as file:
                rows = [{k: _number(v) for k, v in row.items()} for row in csv.DictReader(file)]
            rows = [row for row in rows if row["epoch"] <= epochs]
            if len(rows) < epochs:
                raise ValueError(f"it holds {len(rows)} of {epochs} epochs")
    return rows


def _number(text: str) -> float:
    return int(text) if text.lstrip("-").isdigit() else float(text)


def write_scope(path: Path, tensors: Sequence[ScopedTensor], rules: Sequence[Rule]) -> None:
    """Writes a row per tensor of the network: its rule, and whether that penalizes it."""
    header = ("tensor", "shape", "weights", "rule", "penalised", "factor", "group_axis")
    labels = [f"{i}: {r.label}" for i, r in enumerate(rules)]
    rows = [
        (e.name, "x".join(map(str, e.tensor.shape)), e.tensor.numel(), labels[e.rule],
         e.penalized, e.factor, e.axis)
        for e in tensors
    ]  # fmt: skip
    files.write_csv(path, header, rows)


def scope_factors(path: Path) -> dict[str, float]:
    """Returns the factor of each tensor by its name; {} if there is no table.

    Raises:
        UserError: if the table is damaged.
    """
    if not path.is_file():
        return {}
    with files.blame_file(path), open(path, newline="", encoding="utf-8") as file:
        return {row["tensor"]: float(row["factor"]) for row in csv.DictReader(file)}


def penalized_tensors(path: Path) -> dict[str, int]:
    """Returns the penalized tensors by name, and the axis of their output channels.

    Raises:
        UserError: if the table is missing or damaged.
    """
    with files.blame_file(path), open(path, newline="", encoding="utf-8") as file:
        return {
            row["tensor"]: int(row.get("group_axis") or 0)
            for row in csv.DictReader(file)
            if row["penalised"] == "True"
        }
