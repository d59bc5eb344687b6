"""Warm-started paths, down and up, against a cold run per strength: quality and cost.

    python benchmarks/path_directions.py [words of scripts/path.py]

Runs the same strengths three times with three seeds each (`path.repeats`): every one cold; as a
path from the largest strength down; as a path up. Folders in outputs/benchmarks/, so that a run
that was stopped goes on. Prints for each strength the validation mIoU of the last epoch (mean ± sd
over seeds), the difference to the cold runs, the zeros and the training loss, and what a path cost
in epochs and seconds, as multiples of a single run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from seg_l1 import cli
from seg_l1.path.controller import path_command
from seg_l1.path.plan import Plan

KINDS = {
    "cold": ["path.warm_start=false"],
    "down": ["path.direction=down"],
    "up": ["path.direction=up", "path.collapse=0"],
}
DEFAULTS = {
    "regularizer": "l1",
    "path.repeats": "3",
    "path.alphas": "[1e-4,6e-5,3.5e-5,2e-5,1.2e-5,7e-6,4e-6,2.5e-6,1.5e-6,9e-7]",
    "path.rule": "best",
    "trainer.threads": "1",
    "trainer.pictures_every": "1000",
}


def last(plan: Plan, name: str) -> np.ndarray:
    """(seeds, strengths): a value of the last epoch of each run, falling strengths."""
    rows = []
    for job in plan.jobs:
        runs = [plan.run(job, plan.order.index(a)) for a in sorted(plan.order, reverse=True)]
        known = [
            json.loads(run.summary.read_text())["last"] or {}
            for run in runs
            if run.summary.is_file()
        ]
        rows.append([row.get(name, np.nan) for row in known] + [np.nan] * (len(runs) - len(known)))
    return np.array(rows, dtype=float)


def spent(plan: Plan, name: str) -> np.ndarray:
    """Per run: epochs trained, or seconds."""
    rows = plan.table(plan.jobs)
    return np.array([row["epoch" if name == "epochs" else "wall_time_s"] or 0 for row in rows])


def main(words: list[str]) -> int:
    typed = {word.partition("=")[0]: word for word in words}
    common = [typed.pop(k, f"{k}={v}") for k, v in DEFAULTS.items()] + list(typed.values())
    plans = {}
    for kind, special in KINDS.items():
        folder = Path("outputs/benchmarks") / f"path_{kind}"
        if kind == "cold":
            special = [*special, "path.direction=down"]
        code = cli.main([*common, *special, f"path.folder={folder}"], lambda w: path_command(w, ""))
        if code:
            return code
        plans[kind] = Plan(folder)
    title = "validation mIoU, last epoch, mean ± sd over seeds (zeros %, training loss)"
    table = Table(title=title)
    alphas = sorted(plans["cold"].order, reverse=True)
    for name in ("alpha", "cold", "down", "down − cold", "up", "up − cold"):
        table.add_column(name, justify="right")
    score = {k: last(p, "val/miou") for k, p in plans.items()}
    zeros = {k: 100 * last(p, "sparsity/exact").mean(0) for k, p in plans.items()}
    loss = {k: last(p, "train/loss").mean(0) for k, p in plans.items()}
    for i, alpha in enumerate(alphas):
        cells = {
            k: f"{s[:, i].mean():.3f} ± {s[:, i].std(ddof=1):.3f}"
            f" ({zeros[k][i]:.1f}, {loss[k][i]:.4f})"
            for k, s in score.items()
        }
        off = {k: f"{(score[k] - score['cold'])[:, i].mean():+.3f}" for k in ("down", "up")}
        table.add_row(
            f"{alpha:g}", cells["cold"], cells["down"], off["down"], cells["up"], off["up"]
        )
    console = Console(width=150)
    console.print(table)
    single = {n: np.mean(spent(plans["cold"], n)) for n in ("epochs", "seconds")}
    for kind, plan in plans.items():
        cost = {n: spent(plan, n).sum() / len(plan.jobs) / single[n] for n in single}
        console.print(
            f"{kind}: {len(alphas)} strengths cost {cost['epochs']:.2f} single runs in epochs,"
            f" {cost['seconds']:.2f} in seconds"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
