"""The tables of the report, and the commands that make their rows anew."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from typing import Any

from seg_l1.report.reading import Collection
from seg_l1.report.runs import Configuration, Curve, Run, baseline
from seg_l1.report.statistics import Paired, holm, mean_and_error, paired

SCORES = ("val/miou", "test/miou", "sparsity/exact", "sparsity/groups", "gap/miou")
"""The columns of the tables; all of the best epoch."""


def best_rows(all_curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """A row per curve: its best configuration, scores with standard errors, tests against none.

    "tests" are `Paired` on validation and test mIoU, "holm" the p values of each adjusted for the
    number of curves.
    """
    rows = []
    for curve in all_curves:
        best, none = curve.best(), baseline(curve, all_curves)
        tests = {
            name: paired(best.scores(name), none.scores(name)) if none else None
            for name in ("val/miou", "test/miou")
        }
        rows.append(
            {
                "best": best,
                "scores": {name: mean_and_error(best.scores(name).values()) for name in SCORES},
                "tests": tests,
                "holm": {},
                "command": command(best.runs),
            }
        )
    for name in ("val/miou", "test/miou"):
        adjusted = holm([row["tests"][name].p if row["tests"][name] else math.nan for row in rows])
        for row, p in zip(rows, adjusted, strict=True):
            row["holm"][name] = p
    return rows


def command(runs: Sequence[Run]) -> str:
    """The command that trains `runs`, which differ in their seeds, anew."""
    first = runs[0]
    kept = [word for word in first.words if not re.match(r"\+*seed=", word)]
    if len(runs) == 1:
        return shlex.join(["python", "train.py", *first.words])
    seeds = ",".join(str(run.seed) for run in runs)
    return shlex.join(["python", "train.py", "-m", *kept, f"seed={seeds}"])


def runs_table(found: Collection) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of runs.csv: a row per run, those without a result too."""
    settings = sorted({key for run in found.runs for key in run.setting})
    repeats = [(run, f"not counted, repeats {name}") for run, name in found.repeats]
    more = ("epoch", "wall_time_s")
    header = ["run", "status", "regularizer", "alpha", "seed", *settings, *SCORES, *more,
              "data_fingerprint", "commit", "error", "command"]  # fmt: skip
    rows: list[list[Any]] = []
    for run, said in [*((run, "") for run in found.runs), *repeats]:
        git = run.environment.get("git") or {}
        rows.append([
            run.name, "completed", run.regularizer, "" if run.alpha is None else run.alpha,
            run.seed, *(run.setting.get(key, "") for key in settings),
            *(_cell(run.score(name)) for name in SCORES), run.summary.best.get("epoch"),
            run.summary.wall_time_s, run.data, git.get("commit"), said, command([run]),
        ])  # fmt: skip
    for run in found.unfinished:
        row = dict.fromkeys(header, "")
        rows.append(
            [*(row | {"run": run.name, "status": run.status, "error": run.reason}).values()]
        )
    return header, rows


def best_table(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of best.csv: a row per curve; `rows` as of `best_rows`."""
    header = ["regularizer", "alpha", "seeds"]
    for name in SCORES:
        header += [name, f"{name} stderr"]
    for name in ("val/miou", "test/miou"):
        header += [f"{name} {word}" for word in ("pairs", "minus none", "low", "high", "p", "holm")]
    table = []
    for row in rows:
        best: Configuration = row["best"]
        cells = [best.curve.label, "" if best.alpha is None else best.alpha, len(best.runs)]
        cells += [_cell(x) for name in SCORES for x in row["scores"][name]]
        for name in ("val/miou", "test/miou"):
            test = row["tests"][name] or Paired(0)
            numbers = (test.difference, test.low, test.high, test.p, row["holm"][name])
            cells += [test.pairs, *map(_cell, numbers)]
        table.append([*cells, row["command"]])
    return [*header, "command"], table


def _cell(value: float) -> float | str:
    return "" if value != value else value
