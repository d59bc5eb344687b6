"""A path on the screen: the live table of its runs, and what was chosen."""

from __future__ import annotations

import math
from typing import Any

from rich.table import Table

from seg_l1.display import terminal
from seg_l1.experiments.path.plan import Plan
from seg_l1.experiments.path.selection import Selection
from seg_l1.experiments.sweep_screen import SweepScreen
from seg_l1.runs.directory import RunDirectory


def say(text: str) -> None:
    print(text, flush=True)


class _AsSweep:
    """A plan, with what a `SweepScreen` asks for."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.path = plan, plan.folder

    def rows(self) -> list[dict[str, Any]]:
        return self.plan.rows()

    def run(self, index: int) -> RunDirectory:
        return self.plan.rows()[index]["record"]


class PathScreen(SweepScreen):
    """Shows how far the runs of `plan` are while the block lasts."""

    kind = "path"

    def __init__(self, plan: Plan) -> None:
        super().__init__(_AsSweep(plan), every=3.0)

    def closing(self) -> str:
        return ""


def choice(plan: Plan, found: Selection, chosen: float) -> str:
    """The table of the strengths: mean, standard error, zeros, gap, and what was chosen."""
    title = f"val {plan.settings['metric']}, mean over {len(plan.jobs)}"
    if len(plan.jobs) == 1:
        title = f"val {plan.settings['metric']}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    relative = plan.reference.get("last_survivor")
    columns = ["alpha", *(["alpha/last survivor"] if relative else []), "mean"]
    columns += [*(["std. error"] if len(plan.jobs) > 1 else []), "zeros", "gap", ""]
    for name in columns:
        table.add_column(name, justify="left" if not name else "right")
    zeros, gaps = (plan.scores(k).mean(0) for k in ("sparsity/exact", "gap/miou"))
    for index, alpha in enumerate(found.alphas):
        words = [f"{alpha:.3g}", *([f"{alpha / relative:.2g}"] if relative else [])]
        numbers = [found.mean[index], *([found.error[index]] if len(plan.jobs) > 1 else [])]
        words += ["-" if math.isnan(n) else f"{n:.4f}" for n in numbers]
        words += ["-" if math.isnan(zeros[index]) else f"{100 * zeros[index]:.1f} %"]
        words += ["-" if math.isnan(gaps[index]) else f"{gaps[index]:+.3f}"]
        marks = ["best"] * (index == found.best)
        marks += ["one standard error"] * (index == found.one_se and len(plan.jobs) > 1)
        table.add_row(*words, ", ".join(marks) + (" <- chosen" if alpha == chosen else ""))
    ends = {0: ("largest", "high"), len(found.alphas) - 1: ("smallest", "low")}
    if len(found.alphas) > 1 and found.best in ends:
        which, key = ends[found.best]
        hint = f"another path.{key}" if relative else "other path.alphas"
        return f"{terminal.render(table)}\nnote: the {which} strength is the best; try {hint}"
    return terminal.render(table)


def closing(plan: Plan) -> str:
    """Scores of the refit, where everything lies, and what to do next."""
    lines = []
    for name, record in (("refit", plan.refit), ("relaxed", plan.relaxed)):
        if record.summary.is_file():
            score = record.read_summary().score
            tested = score("test/miou")
            text = "" if math.isnan(tested) else f", test {tested:.4f}"
            zeros = f"{100 * score('sparsity/exact'):.1f} % exact zeros"
            lines.append(f"{name}: mIoU val {score('val/miou'):.4f}{text}, {zeros}: {record.path}")
    return "\n".join(
        [
            *lines,
            f"\neverything lies in {plan.folder}",
            "  selection.json  path.csv  path.png"
            + ("  stability.csv  stability.png" if len(plan.jobs) > 1 else ""),
            "\nnext:",
            f"  python scripts/predict.py run={plan.refit.path} input=<folder of pictures>",
            f"  python scripts/report.py {plan.folder}",
            f"  tensorboard --logdir {plan.folder}",
        ]
    )
