"""The figures of the report as PNG files; `page.html.jinja` has their titles and captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from seg_l1.display.style import png
from seg_l1.errors import UserError
from seg_l1.report import plots
from seg_l1.report.plots.common import looks
from seg_l1.report.plots.trade_off import MULTIPLY_ADDS
from seg_l1.report.runs import Configuration, Curve, Run, baseline
from seg_l1.report.statistics import pareto_front
from seg_l1.runs.directory import RunDirectory

PANELS = 6
"""The largest number of histograms."""


@dataclass(frozen=True)
class Picture:
    """A figure as a PNG file, and its width in percent of that of the page."""

    png: bytes
    width: int


@dataclass
class Weights:
    """The penalized weights of the best runs.

    Attributes:
        panels: title, color and weights of each.
        errors: why those of other runs could not be read.
    """

    panels: list[tuple[str, str, np.ndarray]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def figures(
    curves: Sequence[Curve], classes: Sequence[str], *, weights: Weights
) -> dict[str, Picture]:
    """Draws all figures; those that have nothing to show are left out."""
    configurations = [c for curve in curves for c in curve.configurations]
    means = [(c.mean("sparsity/exact"), c.mean("val/miou")) for c in configurations]
    front = [configurations[index] for index in pareto_front(means)]
    costs = [(-c.mean(MULTIPLY_ADDS), c.mean("val/miou")) for c in configurations]
    cheap = [configurations[index] for index in reversed(pareto_front(costs))]
    scores = [
        ("val/miou", "validation (best epoch)", "mIoU"),
        ("test/miou", "test (weights of that epoch)", "mIoU"),
    ]
    gap = [("gap/miou", "", "training mIoU − validation mIoU")]
    drawn = {
        "miou": plots.against_alpha(curves, scores),
        "trade_off": plots.trade_off(curves, front, cheap=cheap, column="val/miou"),
        "gap": plots.against_alpha(curves, gap, zero_line=True),
        "classes": plots.class_table(
            curves, classes, reference=lambda curve: baseline(curve, curves)
        ),
        "weights": plots.histograms(weights.panels),
    }
    return {
        name: Picture(png(figure), width=min(100, round(10.2 * figure.get_figwidth())))
        for name, figure in drawn.items()
        if figure is not None
    }


def shared_classes(runs: Sequence[Run]) -> list[str]:
    """Returns the classes that all runs have, in their order."""
    prefix = "val/iou/"
    named = [[k[len(prefix) :] for k in run.summary.best if k.startswith(prefix)] for run in runs]
    return [name for name in named[0] if all(name in others for others in named)]


def best_weights(curves: Sequence[Curve]) -> Weights:
    """Reads the weights of the best run of each of the first `PANELS` regularizers."""
    best: dict[str, Configuration] = {}
    for configuration in (c for curve in curves for c in curve.configurations):
        name = configuration.curve.regularizer
        if name not in best or _best_score(configuration) > _best_score(best[name]):
            best[name] = configuration
    weights, look_of = Weights(), looks(curves)
    for configuration in list(best.values())[:PANELS]:
        run = configuration.best_run()
        title = f"{configuration.label}, seed\u00a0{run.seed}"
        try:
            values = penalized_weights(run.files)
        except UserError as error:
            weights.errors.append(f"{error}.")
        else:
            weights.panels.append((title, look_of[configuration.curve.label].color, values))
    return weights


def _best_score(configuration: Configuration) -> float:
    return configuration.best_run().score("val/miou")


def penalized_weights(files: RunDirectory) -> np.ndarray:
    """Returns all penalized weights of a run in one array, float32.

    Raises:
        UserError: if `model.safetensors` or `scope.csv` cannot be read, or do not fit.
    """
    try:
        tensors = files.read_weights(files.penalized_tensors())
    except UserError as error:
        raise UserError(f"{files.path.name}: no weights ({error})") from None
    parts = [tensor.ravel() for tensor in tensors.values()]
    return np.concatenate([np.zeros(0), *parts]).astype(np.float32)
