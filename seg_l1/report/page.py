"""The page: one HTML file that holds its figures, and the same as CSV and PNG files."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from seg_l1.report.figures import figures
from seg_l1.report.plots.common import looks
from seg_l1.report.reading import Collection
from seg_l1.report.runs import Curve, Run, curves, short
from seg_l1.report.statistics import Paired, mean_and_error
from seg_l1.report.tables import best_rows, best_table, runs_table
from seg_l1.runs.files import make_folder, write_bytes, write_csv, write_text


def write(found: Collection, output: Path) -> Path:
    """Writes report.html, runs.csv, best.csv and the figures into `output`; returns the first.

    Raises:
        UserError: if the folder cannot be written.
    """
    from base64 import b64encode

    all_curves = curves(found.runs)
    rows = best_rows(all_curves)
    shown = figures(found, all_curves)
    page = _page(found, all_curves, rows, [
        {**figure, "source": b64encode(figure["png"] or b"").decode()}
        for figure in shown
    ])  # fmt: skip
    make_folder(output)
    write_csv(output / "runs.csv", *runs_table(found))
    write_csv(output / "best.csv", *best_table(rows))
    for figure in shown:
        if figure["png"]:
            write_bytes(output / f"{figure['name']}.png", figure["png"])
    write_text(output / "report.html", page)
    return output / "report.html"


def _page(
    found: Collection,
    all_curves: Sequence[Curve],
    rows: Sequence[dict[str, Any]],
    shown: Sequence[dict[str, Any]],
) -> str:
    from jinja2 import Environment, StrictUndefined

    engine = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    engine.filters |= {"plus_minus": _plus_minus, "p_value": _p_value, "change": _change,
                       "short": short}  # fmt: skip
    template = Path(__file__).with_suffix(".html.jinja").read_text("utf-8")
    return engine.from_string(template).render(
        facts=_facts(found, all_curves),
        glance=_glance(all_curves, rows),
        rows=rows,
        looks=looks(all_curves),
        figures=shown,
        found=found,
        tested=any(row["scores"]["test/miou"][0] == row["scores"]["test/miou"][0] for row in rows),
        several=any(len(row["best"].runs) > 1 for row in rows),
        weak=_weak(rows),
        written=time.strftime("%Y-%m-%d %H:%M"),
    )


def _facts(found: Collection, all_curves: Sequence[Curve]) -> dict[str, str]:
    """What was swept, on what, when and by which code: label -> text."""
    runs = found.runs
    alphas = sorted({run.alpha for run in runs if run.alpha is not None})
    seeds = sorted({run.seed for run in runs})
    swept = {
        "regularizer": list(dict.fromkeys(curve.regularizer for curve in all_curves)),
        "α": [short(alpha) for alpha in alphas],
        "seed": [str(seed) for seed in seeds],
    }
    for key in sorted({key for run in runs for key in run.setting}):
        swept[key] = list(dict.fromkeys(run.setting[key] for run in runs if key in run.setting))
    count = Counter(run.status for run in found.unfinished)
    parts = [f"{len(runs)} completed", *(f"{n} {status}" for status, n in count.items())]
    if found.same:
        parts.append(f"{found.same} more jobs mean the same run as another and were not trained")
    git = [run.environment.get("git") or {} for run in runs]
    commits = _join(
        f"{(entry.get('commit') or 'unknown')[:10]}{' + changes' if entry.get('dirty') else ''}"
        for entry in git
    )
    versions = [run.environment.get("versions") or {} for run in runs]
    model = _join(
        f"{_target(run, 'model')}, {run.summary.parameters or 0:,} parameters of which"
        f" {run.summary.penalised_weights or 0:,} are penalised"
        for run in runs
    )
    data = _join(f"{_data_name(run)} (fingerprint {run.data})" for run in runs)
    times = [run.files.summary.stat().st_mtime for run in runs]
    first, last = (time.strftime("%Y-%m-%d %H:%M", time.localtime(f(times))) for f in (min, max))
    total = sum(run.summary.wall_time_s or 0 for run in runs)
    facts = {
        "swept": "; ".join(f"{key} = {', '.join(values)}" for key, values in swept.items()),
        "typed": "\n".join(found.typed),
        "runs": ", ".join(parts),
        "data": data,
        "model": model,
        "trained on": _join(str(run.environment.get("device")) for run in runs)
        + f", torch {_join(str(v.get('torch')) for v in versions)}",
        "finished": first if first == last else f"{first} to {last}",
        "time": f"{_duration(total)} for all completed runs, {_duration(total / len(runs))} each",
        "commit": commits,
    }
    return {key: text for key, text in facts.items() if text}


def _glance(all_curves: Sequence[Curve], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The best, the sparsest within one standard error of it, and what differs from none."""
    best = max((row["best"] for row in rows), key=lambda c: c.mean("val/miou"))
    mean, error = mean_and_error(best.scores("val/miou").values())
    near = [
        c
        for curve in all_curves
        for c in curve.configurations
        if c.mean("val/miou") >= mean - (error if error == error else 0.0)
    ]
    compared = [row["tests"]["test/miou"] for row in rows]
    on = "test/miou" if any(test and test.pairs for test in compared) else "val/miou"
    tested = [row for row in rows if row["holm"][on] == row["holm"][on]]
    found = [(row["tests"][on].difference, row["best"].label) for row in tested
             if row["holm"][on] < 0.05]  # fmt: skip
    sparse = max(near, key=lambda c: c.mean("sparsity/exact"))
    gained = sparse.mean("sparsity/exact") - best.mean("sparsity/exact")
    return {
        "best": best,
        "sparse": sparse if gained >= 0.001 else None,
        "on": "test" if on == "test/miou" else "validation",
        "tested": len(tested),
        "higher": [label for difference, label in found if difference > 0],
        "lower": [label for difference, label in found if difference < 0],
    }


def _weak(rows: Sequence[dict[str, Any]]) -> dict[str, float] | None:
    """The smallest number of pairs, if below 6, and what difference it lets a test see, in sd."""
    from scipy.stats import t

    pairs = [test.pairs for row in rows for test in row["tests"].values() if test]
    fewest = min((n for n in pairs if n > 1), default=6)
    if fewest >= 6:
        return None
    return {"pairs": fewest, "sd": float(t.ppf(0.975, fewest - 1)) / math.sqrt(fewest)}


def _join(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))


def _target(run: Run, group: str) -> str:
    return run.typed.get(group) or str(run.config[group]["_target_"]).rsplit(".", 1)[-1]


def _data_name(run: Run) -> str:
    known = run.config["dataset"]
    name = run.typed.get("dataset") or str(known["_target_"]).split(".")[-2]
    size = known.get("image_size")
    classes = len([key for key in run.summary.best if key.startswith("val/iou/")])
    return f"{name}, {classes} classes" + (f", {size[0]}×{size[1]} pixels" if size else "")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def _plus_minus(pair: tuple[float, float], percent: bool = False) -> str:
    """0.817 ± 0.021, or 92.2 ± 0.4 %."""
    mean, error = (100 * x if percent else x for x in pair)
    if mean != mean:
        return "–"
    digits = 1 if percent else 3
    spread = f" ± {error:.{digits}f}" if error == error else ""
    return f"{mean:.{digits}f}{spread}{' %' if percent else ''}".replace("-", "−")


def _change(test: Paired) -> str:
    interval = f" [{test.low:+.3f}, {test.high:+.3f}]" if test.low == test.low else ""
    return f"{test.difference:+.3f}{interval}".replace("-", "−")


def _p_value(p: float) -> str:
    return "–" if p != p else "< 0.001" if p < 0.001 else f"{p:.3f}"
