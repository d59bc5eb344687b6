"""Zeros against score, with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from seg_l1.display.style import FAINT, new_figure, styled
from seg_l1.report.plots.common import add_legend, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

    from seg_l1.report.runs import Configuration, Curve

Point = tuple[float, float]
DIRECTIONS = ((1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1.3), (0, -1.3), (1, 0), (-1, 0))
OFFSETS = [(r * dx, r * dy) for r in (9, 20, 34) for dx, dy in DIRECTIONS]
"""Where a label may stand, in points from its marker; the nearest first."""


@styled
def trade_off(curves: Sequence[Curve], front: Sequence[Configuration], metric: str) -> Figure:
    """Runs and configurations as points (zeros in percent, score); the front is joined and named.

    Args:
        front: the configurations on the Pareto front, by rising share of zeros.
    """
    figure = new_figure(7.4, 4.5 + 0.2 * math.ceil(len(curves) / 4))
    axes = figure.subplots()
    points = []
    look_of = looks(curves)
    for curve in curves:
        look = look_of[curve.label]
        for configuration in curve.configurations:
            for run in configuration.runs:
                x, y = 100 * run.score("sparsity/exact"), run.score(metric)
                axes.plot(x, y, look.marker, color=look.color, alpha=0.28, ms=3.5, mew=0)
            points.append(_mean_point(configuration, metric))
            axes.plot(*points[-1], **look.face(7), zorder=3)
    steps = list(zip(*[_mean_point(c, metric) for c in front], strict=True))
    axes.plot(*steps, drawstyle="steps-pre", color=FAINT, linewidth=1.1, zorder=1.5)
    axes.set(xlabel="exact zeros among the penalised weights (%)", ylabel="validation mIoU")
    axes.margins(x=0.06, y=0.1)
    joined = Line2D([], [], color=FAINT, linewidth=1.1, label="Pareto front of the means")
    add_legend(figure, curves, looks=look_of, extra=[joined], lines=False)
    figure.draw_without_rendering()
    _place_labels(axes, [(c.label, _mean_point(c, metric)) for c in front], points)
    return figure


def _mean_point(configuration: Configuration, metric: str) -> Point:
    return 100 * configuration.mean("sparsity/exact"), configuration.mean(metric)


def _place_labels(axes: Axes, labels: Sequence[tuple[str, Point]], points: Sequence[Point]) -> None:
    """Places each label where it covers the least of the points and of the labels before it."""
    radius = 5 * axes.figure.dpi / 72
    covered = [
        Bbox.from_bounds(x - radius, y - radius, 2 * radius, 2 * radius)
        for x, y in axes.transData.transform(points)
    ]
    frame = axes.get_window_extent()
    for text, point in labels:
        label = axes.annotate(
            text, point, xytext=(0, 0), textcoords="offset points", fontsize=8, zorder=4,
            va="center", arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.6,
            "shrinkA": 1, "shrinkB": 4}, bbox={"facecolor": "white", "alpha": 0.75,
            "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip
        costs = []
        for rank, offset in enumerate(OFFSETS):
            box = _move(label, offset)
            overlap = sum(_overlap(box, other) for other in covered)
            costs.append(overlap + box.width * box.height - _overlap(box, frame) + rank)
        covered.append(_move(label, OFFSETS[costs.index(min(costs))]))


def _move(label: Annotation, offset: Point) -> Bbox:
    """Moves a label to an offset from its point; returns the box of the text without its line."""
    side = "left" if offset[0] > 0 else "right" if offset[0] < 0 else "center"
    label.set(position=offset, ha=side)
    label.get_window_extent()  # sets the position of the text
    return Text.get_window_extent(label)


def _overlap(one: Bbox, other: Bbox) -> float:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(0.0, width) * max(0.0, height)
