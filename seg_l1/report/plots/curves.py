"""Scores against α."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.ticker import FixedLocator, NullLocator

from seg_l1.display.style import FAINT, new_figure, styled
from seg_l1.report.plots.common import Look, add_legend, looks, number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from seg_l1.report.runs import Configuration, Curve


@styled
def against_alpha(
    curves: Sequence[Curve], panels: Sequence[tuple[str, str, str]], *, zero_line: bool = False
) -> Figure | None:
    """Means with their spread over seeds against α; a curve without α is a horizontal line.

    Args:
        panels: column, title and label of the y axis of each panel; they share the y axis.
        zero_line: marks y = 0.
    """
    penalized = [curve for curve in curves if curve.penalized]
    panels = [panel for panel in panels if _has_scores(curves, panel[0])]
    if not penalized or not panels:
        return None
    rows = math.ceil(len(curves) / 4)
    height = 3.1 + 0.2 * rows + 0.15 * max(0, len(curves) - 4)
    figure = new_figure(4.6 * len(panels) + 0.6 * (len(panels) == 1), height)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    look_of = looks(curves)
    scale = _AlphaScale.of(penalized)
    shifts = np.linspace(-1, 1, len(penalized)) if len(penalized) > 1 else [0.0]
    factors = [10 ** (shift * min(0.05, scale.step / 8)) for shift in shifts]
    for axes, (name, title, label) in zip(all_axes, panels, strict=True):
        if zero_line:
            axes.axhline(0, color=FAINT, linewidth=0.8)
        for curve in curves:
            if not curve.penalized:
                _level(axes, curve.configurations[0], name=name, look=look_of[curve.label])
        for curve, factor in zip(penalized, factors, strict=True):
            _curve(axes, curve, name=name, scale=scale, factor=factor, look=look_of[curve.label])
        axes.set(title=title, ylabel=label if axes is all_axes[0] else "")
        axes.tick_params(labelleft=True)
        scale.apply(axes)
    add_legend(figure, curves, looks=look_of)
    return figure


def _has_scores(curves: Sequence[Curve], name: str) -> bool:
    return any(c.scores(name) for curve in curves for c in curve.configurations)


def _level(axes: Axes, configuration: Configuration, *, name: str, look: Look) -> None:
    """A horizontal line at the mean, with a band of the spread."""
    if configuration.scores(name):
        mean, spread = configuration.mean(name), configuration.deviation(name)
        axes.axhline(mean, color=look.color, linestyle=look.line, linewidth=1.2, zorder=1.5)
        if math.isfinite(spread):
            axes.axhspan(mean - spread, mean + spread, color=look.color, alpha=0.1, linewidth=0)


def _curve(
    axes: Axes, curve: Curve, *, name: str, scale: _AlphaScale, factor: float, look: Look
) -> None:
    """Means with error bars, and the runs beside them; `factor` moves all of them sideways."""
    scored = [c for c in curve.configurations if c.scores(name)]
    if not scored:
        return
    x = np.array([scale.position(c.alpha or 0.0) for c in scored]) * factor
    for position, configuration in zip(x, scored, strict=True):
        values = list(configuration.scores(name).values())
        beside = [position * 10 ** (scale.step / 50)] * len(values)
        axes.plot(beside, values, look.marker, color=look.color, alpha=0.4, ms=3.2, mew=0, zorder=3)
    means, spreads = zip(*[(c.mean(name), c.deviation(name)) for c in scored], strict=True)
    axes.errorbar(
        x, means, np.nan_to_num(spreads), **look.face(5), linestyle=look.line,
        linewidth=1.4, elinewidth=1, capsize=2.5,
    )  # fmt: skip


class _AlphaScale(NamedTuple):
    """A log axis for `alphas`, on which 0 has a place left of the others.

    `step` is the smallest distance between two of them, in decades.
    """

    alphas: list[float]
    step: float

    @classmethod
    def of(cls, curves: Sequence[Curve]) -> _AlphaScale:
        alphas = sorted({c.alpha or 0.0 for curve in curves for c in curve.configurations})
        steps = np.diff(np.log10([alpha for alpha in alphas if alpha > 0]))
        return cls(alphas, float(steps.min()) if len(steps) else 1.0)

    def position(self, alpha: float) -> float:
        smallest = next((a for a in self.alphas if a > 0), 1.0)
        return alpha if alpha > 0 else smallest / 10 ** max(self.step, 0.5)

    def apply(self, axes: Axes) -> None:
        """Sets scale, limits, ticks and label of the x axis."""
        low, high = self.position(self.alphas[0]), self.position(self.alphas[-1])
        has_zero = self.alphas[0] == 0
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [10.0**e for e in exponents if low * 0.99 <= 10.0**e <= high * 1.01]
        ticks = [tick for tick in ticks if not has_zero or tick > low]
        if len(ticks) < 2 or len(self.alphas) <= 5:
            ticks = [alpha for alpha in self.alphas if alpha > 0]
        zero = [low] if has_zero else []
        apart = "; 0 set apart" if has_zero else ""
        axes.set_xscale("log")
        axes.set_xlim(low / 10 ** (0.35 * self.step), high * 10 ** (0.35 * self.step))
        axes.set_xlabel(f"penalty strength α (log scale{apart})")
        axes.xaxis.set_major_locator(FixedLocator([*zero, *ticks]))
        axes.set_xticklabels(["0"] * len(zero) + [number_text(x) for x in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
