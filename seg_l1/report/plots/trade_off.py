"""Zeros and cost against the score: which configurations no other one beats in both."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from seg_l1.display.run_text import prefixed
from seg_l1.display.style import FAINT, INK, literal, new_figure, styled
from seg_l1.report.plots.common import add_legend, looks
from seg_l1.report.runs import Configuration, Curve
from seg_l1.runs.summary import COMPACT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ZEROS, MULTIPLY_ADDS = "sparsity/exact", COMPACT[1]

LOGARITHMIC = 8
"""The axis of multiply-adds is logarithmic if the largest is this many times the smallest."""

LINES = 3
"""Of more dense networks, only the largest is drawn as a line."""


LONGEST_NAME = 40
"""Letters of a line of the names beside the axes."""


@styled
def trade_off(
    curves: Sequence[Curve],
    front: Sequence[Configuration],
    *,
    cheap: Sequence[Configuration] = (),
    column: str,
) -> Figure:
    """Draws runs and configurations as points, and the Pareto fronts.

    The first panel has the score against zeros in percent; the second, left out without `cheap`,
    against the multiply-adds of the compact network, with those of the dense one as a line.

    Args:
        front: the configurations of the front of the first panel, by rising zeros. Their markers
            are numbered, and named beside the axes.
        cheap: those of the second panel, by rising multiply-adds; their numbers go on.
        column: the score.
    """
    named = [*front, *(c for c in cheap if not any(c is member for member in front))]
    names = [_name(number, c.label) for number, c in enumerate(named, 1)]
    longest = max(len(line) for name in names for line in name.splitlines())
    width = (6.6 if not cheap else 9.4) + 0.075 * longest
    figure = new_figure(width, 4.5 + 0.2 * math.ceil(len(curves) / 4))
    panels = figure.subplots(1, 2 if cheap else 1, sharey=True, squeeze=False)[0]
    _panel(panels[0], curves, front, named=named, x=ZEROS, y=column)
    panels[0].set(xlabel="exact zeros among the penalized weights (%)", ylabel="validation mIoU")
    handles = [Line2D([], [], color=FAINT, linewidth=1.1, label="Pareto front of the means")]
    if cheap:
        _panel(panels[1], curves, cheap, named=named, x=MULTIPLY_ADDS, y=column)
        handles += _multiply_adds(panels[1], curves)
    for axes in panels:
        axes.margins(x=0.06, y=0.1)
    look_of = looks(curves)
    add_legend(figure, curves, looks=look_of, extra=handles, lines=False)
    markers = [Line2D([], [], **look_of[c.curve.label].face(5), linestyle="") for c in named]
    figure.legend(
        markers, names, loc="outside right upper", title=f"Pareto front{'s' * bool(cheap)}",
        alignment="left", fontsize=8.5, title_fontproperties={"weight": "bold", "size": 9},
    )  # fmt: skip
    return figure


def _name(number: int, label: str) -> str:
    """Returns what stands beside the axes for a numbered marker, in lines of `LONGEST_NAME`."""
    indent = " " * len(f"{number}  ")
    lines = textwrap.wrap(
        literal(label), LONGEST_NAME, subsequent_indent=indent, break_on_hyphens=False
    )
    return f"{number}  " + "\n".join(lines)


def _panel(
    axes: Axes,
    curves: Sequence[Curve],
    front: Sequence[Configuration],
    *,
    named: Sequence[Configuration],
    x: str,
    y: str,
) -> None:
    """Draws the column `y` against `x`; those of the `front` have their numbers in `named`."""
    factor, look_of = (100 if x == ZEROS else 1), looks(curves)
    for curve in curves:
        look = look_of[curve.label]
        for configuration in curve.configurations:
            costs = [factor * run.score(x) for run in configuration.runs]
            scores = [run.score(y) for run in configuration.runs]
            axes.plot(costs, scores, look.marker, color=look.color, alpha=0.28, ms=3.5, mew=0)
            on_front = any(configuration is member for member in front)
            mean = factor * configuration.mean(x), configuration.mean(y)
            axes.plot(*mean, **look.face(7), zorder=3 + on_front)
    points = [(factor * c.mean(x), c.mean(y)) for c in front]
    steps = "steps-pre" if x == ZEROS else "steps-post"
    axes.plot(*zip(*points, strict=True), drawstyle=steps, color=FAINT, linewidth=1.1, zorder=1.5)
    for member, point in zip(front, points, strict=True):
        number = 1 + next(i for i, c in enumerate(named) if c is member)
        axes.annotate(
            str(number), point, xytext=(4, 3.5), textcoords="offset points", fontsize=8, zorder=5
        )


def _multiply_adds(axes: Axes, curves: Sequence[Curve]) -> list[Line2D]:
    """Sets the axis of multiply-adds and draws the dense networks; returns what the legend adds."""
    runs = [run for curve in curves for c in curve.configurations for run in c.runs]
    compact = [run.score(MULTIPLY_ADDS) for run in runs]
    dense = sorted({run.summary.multiply_adds for run in runs if run.summary.multiply_adds})
    dense = dense if len(dense) <= LINES else dense[-1:]
    for value in dense:
        axes.axvline(value, color=INK, linestyle="--", linewidth=1, zorder=1)
    values = [value for value in (*compact, *dense) if value > 0]
    if values and max(values) >= LOGARITHMIC * min(values):
        axes.set_xscale("log")
        many = max(values) > 100 * min(values)
        axes.xaxis.set_major_locator(LogLocator(subs=(1,) if many else (1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axes.set_xlabel("multiply-adds of the compact network, per image")
    label = "dense network" if len(dense) < 2 else "dense networks"
    return [Line2D([], [], color=INK, linestyle="--", linewidth=1, label=label)] * bool(dense)


def _tick(value: float) -> str:
    """Returns a number without zeros at the end of its digits: "5 M"."""
    digits, _, letter = prefixed(value).partition(" ")
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return f"{digits} {letter}".rstrip()
