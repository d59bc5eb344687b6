"""Warm-started paths, down and up, against cold runs: quality and cost.

    python benchmarks/path_directions.py [words of scripts/path.py]

Runs the same strengths with three seeds each (`path.repeats`): every one cold; as a path from the
largest strength down; as a path up. And the smallest strength alone, cold, with as many epochs as
a whole path has: what those epochs bring without a path. Results go to outputs/benchmarks/
(`folder=<another>`), so that a stopped benchmark can be resumed. Prints for each strength the
validation mIoU of the last epoch (mean ± sd over seeds), the difference to the cold runs of the
same seeds (mean, and the worst seed), the zeros and the training loss, and what a path cost in
epochs and seconds, as multiples of a single run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from seg_l1.cli import main as cli
from seg_l1.experiments.path.plan import Plan

KINDS = {
    "cold": ["path.direction=down", "path.warm_start=false"],
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
    """(seeds, strengths): a value of the last epoch of each run, falling strengths; or NaN."""
    rows = []
    for job in plan.jobs:
        runs = [plan.run(job, plan.order.index(a)) for a in sorted(plan.order, reverse=True)]
        summaries = [run.read_summary(missing_ok=True) for run in runs]
        rows.append([summary.score(name, epoch="last") for summary in summaries])
    return np.array(rows)


def spent(plan: Plan, name: str) -> np.ndarray:
    """Per run: epochs trained, or seconds."""
    rows = plan.table(plan.jobs)
    return np.array([row["epoch" if name == "epochs" else "wall_time_s"] or 0 for row in rows])


def train(words: list[str], folder: Path) -> Plan:
    """The finished path in `folder`; exits where a run of it fails."""
    code = cli.main(["path", *words, f"path.folder={folder}"])
    if code:
        sys.exit(code)
    return Plan(folder)


def cell(score: np.ndarray, zeros: np.ndarray, loss: np.ndarray) -> str:
    """Each (seeds,): mean ± sd of the score, mean zeros and loss."""
    miou = f"{score.mean():.3f} ± {score.std(ddof=1):.3f}"
    return f"{miou} ({100 * zeros.mean():.1f}, {loss.mean():.4f})"


def main(words: list[str]) -> int:
    typed = {word.partition("=")[0]: word for word in words}
    parent = Path(typed.pop("folder", "=outputs/benchmarks").partition("=")[2])
    common = [typed.pop(k, f"{k}={v}") for k, v in DEFAULTS.items()] + list(typed.values())
    plans = {k: train([*common, *extra], parent / f"path_{k}") for k, extra in KINDS.items()}
    down = plans["down"]
    whole = down.config["trainer"]["epochs"] + (len(down.order) - 1) * down.epochs
    smallest = [f"path.alphas=[{down.order[-1]:g}]", f"trainer.epochs={whole}"]
    long = train([*common, *smallest], parent / "path_long")

    table = Table(
        title="validation mIoU, last epoch, mean ± sd over seeds (zeros %, training loss)"
    )
    for name in ("alpha", "cold", "down", "down − cold", "up", "up − cold"):
        table.add_column(name, justify="right")
    columns = ("val/miou", "sparsity/exact", "train/loss")
    values = {k: [last(plan, name) for name in columns] for k, plan in plans.items()}
    cold = values["cold"][0]
    for i, alpha in enumerate(sorted(down.order, reverse=True)):
        row = [f"{alpha:g}", cell(*(v[:, i] for v in values["cold"]))]
        for kind in ("down", "up"):
            off = (values[kind][0] - cold)[:, i]
            row += [cell(*(v[:, i] for v in values[kind])), f"{off.mean():+.3f}, {off.min():+.3f}"]
        table.add_row(*row)
    console = Console(width=150)
    console.print(table)
    alone = cell(*(last(long, name)[:, 0] for name in columns))
    console.print(f"cold at {down.order[-1]:g} alone, {whole} epochs: {alone}")
    single = {n: np.mean(spent(plans["cold"], n)) for n in ("epochs", "seconds")}
    for kind, plan in plans.items():
        cost = {n: spent(plan, n).sum() / len(plan.jobs) / single[n] for n in single}
        console.print(
            f"{kind}: {len(plan.order)} strengths cost {cost['epochs']:.2f} single runs in epochs,"
            f" {cost['seconds']:.2f} in seconds"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
