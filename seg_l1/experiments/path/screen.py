"""The output of a path: the live table of its runs, the selection, the refit."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping

import numpy as np
from rich.table import Table

from seg_l1.config.commands import command_line
from seg_l1.display import terminal
from seg_l1.display.run_text import share_text
from seg_l1.experiments.path import sizes
from seg_l1.experiments.path.plan import Plan
from seg_l1.experiments.path.selection import Selection
from seg_l1.experiments.sweep_screen import SweepScreen
from seg_l1.runs.trust import needs_trust


class PathScreen(SweepScreen):
    """Context manager that shows the progress of the runs of a path."""

    kind = "path"

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan, every=3.0)

    def closing(self) -> str:
        return ""


def choice(plan: Plan, selection: Selection, *, chosen: float, times: Mapping[str, float]) -> str:
    """Returns the table of the alphas: mean, standard error, zeros, gap, cost and selection.

    Args:
        times: see `sizes.latencies`.
    """
    metric = {"miou": "mIoU", "dice": "Dice"}.get(plan.settings["metric"], plan.settings["metric"])
    title = f"validation {metric}"
    if len(plan.jobs) > 1:
        title += f", mean over {len(plan.jobs)}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    relative = plan.reference.get("last_survivor")
    columns = ["alpha", *(["alpha/last survivor"] if relative else []), "mean"]
    columns += [*(["std. error"] if len(plan.jobs) > 1 else []), "zeros", "gap", ""]
    shares, latency = sizes.shares(plan).mean(0), sizes.relative(times, selection.alphas)
    known = not np.isnan(shares).all()
    if known:  # on two lines, so that the table has no more than 100 columns
        columns = [name.replace("/last ", "/last\n").replace(". ", ".\n") for name in columns]
        columns[-1:] = ["multiply-\nadds", "time", ""]
    for name in columns:
        table.add_column(name, justify="right" if name else "left", no_wrap=not name)
    zeros, gaps = (plan.scores(k).mean(0) for k in ("sparsity/exact", "gap/miou"))
    for index, alpha in enumerate(selection.alphas):
        cells = [f"{alpha:.3g}", *([f"{alpha / relative:.2g}"] if relative else [])]
        numbers = [selection.mean[index], *([selection.error[index]] if len(plan.jobs) > 1 else [])]
        cells += ["-" if math.isnan(n) else f"{n:.4f}" for n in numbers]
        cells += ["-" if math.isnan(zeros[index]) else f"{100 * zeros[index]:.1f} %"]
        cells += ["-" if math.isnan(gaps[index]) else f"{gaps[index]:+.3f}"]
        cells += [share_text(shares[index]), share_text(latency[index])] if known else []
        marks = ["best"] * (index == selection.best)
        marks += ["one s.e."] * (index == selection.one_se and len(plan.jobs) > 1)
        table.add_row(*cells, ", ".join(marks) + (" <- chosen" if alpha == chosen else ""))
    ends = {0: ("largest", "high"), len(selection.alphas) - 1: ("smallest", "low")}
    if len(selection.alphas) > 1 and selection.best in ends:
        which, key = ends[selection.best]
        hint = f"another path.{key}" if relative else "other path.alphas"
        return f"{terminal.render(table)}\nnote: the {which} alpha is the best; try {hint}"
    return terminal.render(table)


def closing(plan: Plan) -> str:
    """Returns scores and files of the refit, and commands for the next steps."""
    final = f"run={plan.refit.path}"
    trust = needs_trust(plan.config)
    predict = command_line("predict", final, "input=images", "output=predictions", trust=trust)
    lines = []
    for name, record in (("refit", plan.refit), ("relaxed", plan.relaxed)):
        if record.summary.is_file():
            score = record.read_summary().score
            tested = score("test/miou")
            text = "" if math.isnan(tested) else f", test {tested:.4f}"
            zeros = f"{100 * score('sparsity/exact'):.1f} % exact zeros"
            share = score("compact/multiply_adds") / (record.read_summary().multiply_adds or 1)
            size = "" if math.isnan(share) else f", {share:.3f} of the multiply-adds"
            lines.append(
                f"{name}: mIoU val {score('val/miou'):.4f}{text}, {zeros}{size}: {record.path}"
            )
            budget = plan.settings.get("budget")  # older paths have no such key
            if name == "refit" and budget is not None and share > budget:
                lines.append(
                    f"note: the refit is above path.budget={budget:g}; with"
                    " path.relax_epochs=<epochs> it is cut to that, and trained further"
                )
    return "\n".join(
        [
            *lines,
            f"\nall results are in {plan.path}",
            "  selection.json  path.csv  path.png"
            + ("  stability.csv  stability.png" if len(plan.jobs) > 1 else ""),
            "\nnext:",
            f"  {command_line('evaluate', final, trust=trust)}",
            f"  {command_line('report', plan.path)}",
            f"  tensorboard --logdir {shlex.quote(str(plan.path))}",
            f'\nclasses of new images, in a folder "images":\n  {predict}',
        ]
    )
