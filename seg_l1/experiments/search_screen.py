"""What a search prints: a line per trial, and a table of the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def best_table(space: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], objectives: int) -> str:
    """Returns a table of the best trial, or of the Pareto front of several objectives."""
    from rich.table import Table

    from seg_l1.display import terminal

    if not rows:
        return "no trial is complete: the column error of trials.csv says why"
    title = "best trial" if objectives == 1 else "Pareto front"
    table = Table(title=title, title_justify="left")
    for name in ("#", *space, "val mIoU", "zeros"):
        table.add_column(name, justify="right")
    for row in rows:
        drawn = [_short(row[key]) for key in space]
        scores = f"{row['val/miou']:.4f}", f"{100 * row['sparsity/exact']:.1f} %"
        table.add_row(str(row["number"]), *drawn, *scores)
    return terminal.render(table)


def describe(row: Mapping[str, Any], space: Mapping[str, Any]) -> str:
    """Returns one line about a trial that has ended."""
    drawn = " ".join(f"{key}={_short(row[key])}" for key in space)
    parts = [row["error"]] if row["error"] else []
    if row["val/miou"] is not None:
        zeros = f"{100 * row['sparsity/exact']:.1f} % zeros"
        parts.insert(0, f"mIoU val {row['val/miou']:.4f}, {zeros}")
    return f"#{row['number']} {row['state'].lower()}  {drawn}: {'; '.join(parts)}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
