"""Zeros against the score: which configurations no other one beats in both."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from seg_l1.display.style import FAINT, literal, new_figure, styled
from seg_l1.report.plots.common import add_legend, looks
from seg_l1.report.runs import Configuration, Curve

ZEROS = "sparsity/exact"


@styled
def trade_off(curves: Sequence[Curve], front: Sequence[Configuration], *, column: str) -> Figure:
    """Draws runs and configurations as points (zeros in percent, score), and the Pareto front.

    Args:
        front: the configurations of the front, by rising zeros; their markers are numbered, and
            named beside the axes.
        column: the score.
    """
    names = [f"{number}  {literal(c.label)}" for number, c in enumerate(front, 1)]
    width = 6.6 + 0.075 * max(map(len, names))
    figure = new_figure(width, 4.5 + 0.2 * math.ceil(len(curves) / 4))
    axes = figure.subplots()
    look_of = looks(curves)
    for curve in curves:
        look = look_of[curve.label]
        for configuration in curve.configurations:
            zeros = [100 * run.score(ZEROS) for run in configuration.runs]
            scores = [run.score(column) for run in configuration.runs]
            axes.plot(zeros, scores, look.marker, color=look.color, alpha=0.28, ms=3.5, mew=0)
            on_front = any(configuration is member for member in front)
            axes.plot(*_means(configuration, column), **look.face(7), zorder=3 + on_front)
    x, y = zip(*[_means(configuration, column) for configuration in front], strict=True)
    axes.plot(x, y, drawstyle="steps-pre", color=FAINT, linewidth=1.1, zorder=1.5)
    for number, point in enumerate(zip(x, y, strict=True), 1):
        axes.annotate(
            str(number), point, xytext=(4, 3.5), textcoords="offset points", fontsize=8, zorder=5
        )
    axes.set(xlabel="exact zeros among the penalized weights (%)", ylabel="validation mIoU")
    axes.margins(x=0.06, y=0.1)
    line = Line2D([], [], color=FAINT, linewidth=1.1, label="Pareto front of the means")
    add_legend(figure, curves, looks=look_of, extra=[line], lines=False)
    markers = [Line2D([], [], **look_of[c.curve.label].face(5), linestyle="") for c in front]
    figure.legend(
        markers, names, loc="outside right upper", title="Pareto front", alignment="left",
        fontsize=8.5, title_fontproperties={"weight": "bold", "size": 9},
    )  # fmt: skip
    return figure


def _means(configuration: Configuration, column: str) -> tuple[float, float]:
    return 100 * configuration.mean(ZEROS), configuration.mean(column)
