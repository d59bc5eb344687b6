"""The top of the page: what was compared, and what came out."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy.stats import t

from seg_l1.config.short_names import short_names, shortened
from seg_l1.report.reading import Collection
from seg_l1.report.runs import Configuration, Curve, Run, short
from seg_l1.report.statistics import mean_and_error
from seg_l1.report.tables import Comparison


def facts(collection: Collection, curves: Sequence[Curve]) -> dict[str, str]:
    """Returns what was swept, on what data, when and by which code: label -> text."""
    runs = collection.runs
    times = [run.files.summary.stat().st_mtime for run in runs]
    first, last = (time.strftime("%Y-%m-%d %H:%M", time.localtime(f(times))) for f in (min, max))
    total = sum(run.summary.wall_time_s or 0 for run in runs)
    versions = [run.environment.get("versions") or {} for run in runs]
    devices = _join(str(run.environment.get("device")) for run in runs)
    texts = {
        "compared": _swept(runs, curves),
        "overrides": "\n".join(collection.typed),
        "runs": _counts(collection),
        "data": _join(_data(run) for run in runs),
        "model": _join(_model(run) for run in runs),
        "device": f"{devices}, torch {_join(str(v.get('torch')) for v in versions)}",
        "finished": first if first == last else f"{first} to {last}",
        "training time": f"{_duration(total)} in total, {_duration(total / len(runs))} per run",
        "commit": _join(_commit(run) for run in runs),
    }
    return {label: text for label, text in texts.items() if text}


def _swept(runs: Sequence[Run], curves: Sequence[Curve]) -> str:
    alphas = sorted({run.alpha for run in runs if run.alpha is not None})
    values = {
        "regularizer": list(dict.fromkeys(curve.regularizer for curve in curves)),
        "α": [short(alpha) for alpha in alphas],
        "seed": [str(seed) for seed in sorted({run.seed for run in runs})],
    }
    names = short_names(run.setting for run in runs)
    settings = [shortened(run.setting, names) for run in runs]
    for key in sorted({key for setting in settings for key in setting}):
        values[key] = list(dict.fromkeys(some[key] for some in settings if key in some))
    return "; ".join(f"{key} = {', '.join(some)}" for key, some in values.items() if some)


def _counts(collection: Collection) -> str:
    others = Counter(run.status for run in collection.unfinished)
    parts = [
        f"{len(collection.runs)} completed",
        *(f"{n} {status}" for status, n in others.items()),
    ]
    if collection.same:
        parts.append(f"{collection.same} more jobs were not trained, as they repeat another job")
    return ", ".join(parts)


def _data(run: Run) -> str:
    dataset = run.config["dataset"]
    name = run.typed.get("dataset") or str(dataset["_target_"]).split(".")[-2]
    size = dataset.get("image_size")
    classes = len([key for key in run.summary.best if key.startswith("val/iou/")])
    pixels = f", {size[0]}×{size[1]} pixels" if size else ""
    return f"{name}, {classes} classes{pixels} (fingerprint {run.data})"


def _model(run: Run) -> str:
    name = run.typed.get("model") or str(run.config["model"]["_target_"]).rsplit(".", 1)[-1]
    return (
        f"{name}, {run.summary.parameters or 0:,} parameters,"
        f" {run.summary.penalised_weights or 0:,} of them penalized"
    )


def _commit(run: Run) -> str:
    git = run.environment.get("git") or {}
    changes = " with uncommitted changes" if git.get("dirty") else ""
    return f"{(git.get('commit') or 'unknown')[:10]}{changes}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _join(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


@dataclass(frozen=True)
class Findings:
    """What the page says first.

    Attributes:
        best: the configuration with the highest mean validation mIoU.
        sparsest: the one with the most zeros within one standard error of it, if not itself.
        split: on which the differences from `none` are tested, test if it was scored.
        tests: how many there were.
        higher, lower: the labels of those that differ from `none` at the 5 % level.
    """

    best: Comparison
    sparsest: Configuration | None
    split: str
    tests: int
    higher: list[str]
    lower: list[str]


def findings(curves: Sequence[Curve], rows: Sequence[Comparison]) -> Findings:
    """Returns what the comparisons with `none` show."""
    best = max(rows, key=lambda row: row.best.mean("val/miou"))
    mean, error = mean_and_error(best.best.scores("val/miou").values())
    margin = 0.0 if math.isnan(error) else error
    near = [
        c for curve in curves for c in curve.configurations if c.mean("val/miou") >= mean - margin
    ]
    sparsest = max(near, key=lambda c: c.mean("sparsity/exact"))
    gained = sparsest.mean("sparsity/exact") - best.best.mean("sparsity/exact")
    scored = any(row.tests["test/miou"].pairs for row in rows)
    column = "test/miou" if scored else "val/miou"
    tested = [row for row in rows if not math.isnan(row.holm[column])]
    differing = [row for row in tested if row.holm[column] < 0.05]
    return Findings(
        best=best,
        sparsest=sparsest if gained >= 0.001 else None,
        split="test" if scored else "validation",
        tests=len(tested),
        higher=[row.best.label for row in differing if row.tests[column].difference > 0],
        lower=[row.best.label for row in differing if row.tests[column].difference < 0],
    )


def weak_test(rows: Sequence[Comparison]) -> dict[str, float] | None:
    """Returns the smallest number of pairs, and what a test can detect, or None from 6 pairs on.

    What it can detect is "sd", the smallest significant mean difference in standard deviations of
    the paired differences: t(0.975, n − 1) / √n.
    """
    pairs = [test.pairs for row in rows for test in row.tests.values()]
    fewest = min((n for n in pairs if n > 1), default=6)
    if fewest >= 6:
        return None
    return {"pairs": fewest, "sd": float(t.ppf(0.975, fewest - 1)) / math.sqrt(fewest)}
