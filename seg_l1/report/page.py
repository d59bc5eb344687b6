"""The page: one HTML file that holds its figures, and the same as CSV and PNG files."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from seg_l1.config.short_names import short_names
from seg_l1.display.html import base64, page_style
from seg_l1.display.run_text import compact_cost
from seg_l1.report.facts import facts, findings, weak_test
from seg_l1.report.figures import Picture, Weights, best_weights, figures, shared_classes
from seg_l1.report.plots.common import looks
from seg_l1.report.plots.trade_off import MULTIPLY_ADDS
from seg_l1.report.reading import Collection
from seg_l1.report.runs import Configuration, Curve, baseline, curves, short
from seg_l1.report.statistics import Paired, mean_and_error
from seg_l1.report.tables import Comparison, best_rows, best_table, runs_table
from seg_l1.runs.files import make_folder, write_bytes, write_csv, write_text


def write(collection: Collection, output: Path) -> Path:
    """Writes report.html, runs.csv, best.csv and the figures into `output`; returns the first.

    Raises:
        UserError: if the folder cannot be written.
    """
    all_curves = curves(collection.runs)
    rows, weights = best_rows(all_curves), best_weights(all_curves)
    pictures = figures(all_curves, shared_classes(collection.runs), weights=weights)
    page = _render(collection, all_curves, rows=rows, pictures=pictures, weights=weights)
    make_folder(output)
    write_csv(output / "runs.csv", *runs_table(collection))
    write_csv(output / "best.csv", *best_table(rows))
    for name, picture in pictures.items():
        write_bytes(output / f"{name}.png", picture.png)
    write_text(output / "report.html", page)
    return output / "report.html"


def _render(
    collection: Collection,
    all_curves: Sequence[Curve],
    *,
    rows: Sequence[Comparison],
    pictures: Mapping[str, Picture],
    weights: Weights,
) -> str:
    engine = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    engine.filters |= {
        "base64": base64,
        "change": _change,
        "cost": _cost,
        "p_value": _p_value,
        "plus_minus": _plus_minus,
        "short": short,
    }
    template = Path(__file__).with_suffix(".html.jinja").read_text("utf-8")
    return engine.from_string(template).render(
        style=page_style(),
        facts=facts(collection, all_curves),
        findings=findings(all_curves, rows),
        rows=rows,
        looks=looks(all_curves),
        names=short_names(run.setting for run in collection.runs),
        figures=pictures,
        collection=collection,
        tested=not all(math.isnan(row.scores["test/miou"][0]) for row in rows),
        several=any(len(row.best.runs) > 1 for row in rows),
        relative=all(baseline(curve, all_curves) for curve in all_curves if curve.penalized),
        compact=any(math.isfinite(run.score(MULTIPLY_ADDS)) for run in collection.runs),
        swept=any(curve.penalized for curve in all_curves),
        unreadable=weights.errors,
        weak=weak_test(rows),
        written=time.strftime("%Y-%m-%d %H:%M"),
    )


def _plus_minus(pair: tuple[float, float], percent: bool = False) -> str:
    """0.817 ± 0.021, or 92.2 ± 0.4 %."""
    mean, error = (100 * x if percent else x for x in pair)
    if math.isnan(mean):
        return "–"
    digits = 1 if percent else 3
    spread = "" if math.isnan(error) else f" ± {error:.{digits}f}"
    return f"{mean:.{digits}f}{spread}{' %' if percent else ''}".replace("-", "−")


def _change(test: Paired) -> str:
    interval = "" if math.isnan(test.low) else f" [{test.low:+.3f}, {test.high:+.3f}]"
    return f"{test.difference:+.3f}{interval}".replace("-", "−")


def _cost(best: Configuration) -> str:
    """4.2 M (0.48×): the mean multiply-adds of the compact networks, and their share."""
    mean = best.mean(MULTIPLY_ADDS)
    dense = mean_and_error(run.summary.multiply_adds or math.nan for run in best.runs)[0]
    text = compact_cost(mean, None if math.isnan(dense) else dense)
    return text.replace("x)", "×)").replace(" ", "\u00a0") or "–"


def _p_value(p: float) -> str:
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
