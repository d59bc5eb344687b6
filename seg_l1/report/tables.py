"""The tables of the report, and the commands that make their rows anew."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from seg_l1.config.commands import command_line
from seg_l1.report.reading import Collection
from seg_l1.report.runs import Configuration, Curve, Run, baseline
from seg_l1.report.statistics import Paired, holm, mean_and_error, paired
from seg_l1.runs.summary import COMPACT

SCORES = ("val/miou", "test/miou", "sparsity/exact", "sparsity/groups", "gap/miou", *COMPACT)
"""The columns of the tables; all of the best epoch."""

TESTED = ("val/miou", "test/miou")
"""The columns that are compared with `none`."""


@dataclass
class Comparison:
    """The best configuration of a curve, compared with `none`.

    Attributes:
        best: the configuration.
        baseline: `none` with the same settings; None where there is no such run.
        scores: mean and standard error of each of `SCORES`.
        tests: a paired test against the baseline for each of `TESTED`.
        holm: their p values, adjusted for the number of curves.
        command: what trains the configuration anew.
    """

    best: Configuration
    baseline: Configuration | None
    scores: dict[str, tuple[float, float]]
    tests: dict[str, Paired]
    command: str
    holm: dict[str, float] = field(default_factory=dict)


def best_rows(curves: Sequence[Curve]) -> list[Comparison]:
    """Returns a row per curve."""
    rows = [_compare(curve.best(), baseline(curve, curves)) for curve in curves]
    for name in TESTED:
        adjusted = holm([row.tests[name].p for row in rows])
        for row, p in zip(rows, adjusted, strict=True):
            row.holm[name] = p
    return rows


def _compare(best: Configuration, none: Configuration | None) -> Comparison:
    return Comparison(
        best=best,
        baseline=none,
        scores={name: mean_and_error(best.scores(name).values()) for name in SCORES},
        tests={
            name: paired(best.scores(name), none.scores(name) if none else {}) for name in TESTED
        },
        command=command(best.runs),
    )


def command(runs: Sequence[Run]) -> str:
    """The command that retrains `runs`, which differ only in seed; for a path, the whole path."""
    first = runs[0]
    for folder in first.files.path.parents[:2]:
        if (plan := folder / "path.json").is_file():
            words = [str(word) for word in json.loads(plan.read_text("utf-8"))["words"]]
            return command_line("path", *words)
    if any(run.plans for run in runs):
        return " && ".join(_extended(run) if run.plans else command([run]) for run in runs)
    kept = [word for word in first.overrides if not re.match(r"\+*seed=", word)]
    if len(runs) == 1:
        return command_line("train", *first.overrides)
    seeds = ",".join(str(run.seed) for run in runs)
    return command_line("train", "-m", *kept, f"seed={seeds}")


def _extended(run: Run) -> str:
    """The commands that train, and prolong, a run anew; a comment where there are none.

    There are none for a run that did not go on from the end of its epochs.
    """
    last, plans = run.summary.last, run.summary.extended
    steps = last["step"] / last["epoch"]
    if any(plan["step"] != plan["epochs"] * steps for plan in plans):
        return f"# trainer.epochs: {run.plans} (stopped on the way, which no command repeats)"
    folder = f"outputs/runs/{run.files.path.resolve().name}_again"
    kept = [word for word in run.overrides if not re.match(r"\+*trainer\.epochs=", word)]
    epochs = [plan["epochs"] for plan in plans] + [run.config["trainer"]["epochs"]]
    words = [*kept, f"trainer.epochs={epochs[0]}", f"hydra.run.dir={folder}"]
    longer = [
        command_line("train", f"resume={folder}", f"trainer.epochs={count}") for count in epochs[1:]
    ]
    return " && ".join([command_line("train", *words), *longer])


def runs_table(collection: Collection) -> tuple[list[str], list[list[Any]]]:
    """Returns header and rows of runs.csv: a row per run, those without a result too."""
    settings = sorted({key for run in collection.runs for key in run.setting})
    header = ["run", "status", "regularizer", "alpha", "seed", *settings, *SCORES, "epoch",
              "wall_time_s", "data_fingerprint", "commit", "error", "command"]  # fmt: skip
    rows = [_run_row(run, settings) for run in collection.runs]
    for run, name in collection.repeats:
        rows.append({**_run_row(run, settings), "error": f"not counted, repeats {name}"})
    for other in collection.unfinished:
        rows.append({"run": other.name, "status": other.status, "error": other.reason})
    return header, [[row.get(name, "") for name in header] for row in rows]


def _run_row(run: Run, settings: Sequence[str]) -> dict[str, Any]:
    return {
        "run": run.name,
        "status": "completed",
        "regularizer": run.regularizer,
        "alpha": "" if run.alpha is None else run.alpha,
        "seed": run.seed,
        **{key: run.setting.get(key, "") for key in settings},
        **{name: _cell(run.score(name)) for name in SCORES},
        "epoch": run.summary.best.get("epoch"),
        "wall_time_s": run.summary.wall_time_s,
        "data_fingerprint": run.data,
        "commit": (run.environment.get("git") or {}).get("commit"),
        "command": command([run]),
    }


def best_table(rows: Sequence[Comparison]) -> tuple[list[str], list[list[Any]]]:
    """Returns header and rows of best.csv: a row per curve."""
    header = ["regularizer", "alpha", "seeds"]
    for name in SCORES:
        header += [name, f"{name} stderr"]
    for name in TESTED:
        header += [f"{name} {word}" for word in ("pairs", "minus none", "low", "high", "p", "holm")]
    table = []
    for row in rows:
        alpha = "" if row.best.alpha is None else row.best.alpha
        cells: list[Any] = [row.best.curve.full_label, alpha, len(row.best.runs)]
        cells += [_cell(value) for name in SCORES for value in row.scores[name]]
        for name in TESTED:
            test = row.tests[name]
            numbers = (test.difference, test.low, test.high, test.p, row.holm[name])
            cells += [test.pairs, *map(_cell, numbers)]
        table.append([*cells, row.command])
    return [*header, "command"], table


def _cell(value: float) -> float | str:
    if math.isnan(value):
        return ""
    return int(value) if abs(value) > 1 and value.is_integer() else value
