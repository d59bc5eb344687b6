"""Histograms of weights."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from seg_l1.display.style import FAINT, INK, literal, new_figure, styled


@styled
def histograms(panels: Sequence[tuple[str, str, np.ndarray]], bins: int = 81) -> Figure | None:
    """Draws the number of weights per bin, a panel per network, on shared axes; zeros as a bar.

    Args:
        panels: title, color and penalized weights of each network.
        bins: an odd number, so that 0 is at the center of one.
    """
    if not panels:
        return None
    limits = [float(np.quantile(np.abs(weights), 0.999)) for *_, weights in panels if weights.size]
    edges = np.linspace(-1, 1, bins + 1) * (max(limits, default=1.0) or 1.0)
    columns = len(panels) if len(panels) <= 4 else 3
    rows = -(-len(panels) // columns)
    figure = new_figure((3.1 if columns <= 3 else 2.6) * columns + 0.4, 2.8 * rows + 0.5)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, (title, color, weights) in zip(grid.flat, panels, strict=False):
        _draw(axes, weights, edges=edges, color=color)
        axes.set_title(fill(literal(title), 32), fontsize=9)
        axes.set_xlabel("weight")
        axes.tick_params(labelleft=True, labelbottom=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes in grid[:, 0]:
        axes.set_ylabel("weights per bin (log scale)")
    top = max(max((w == 0).sum(), np.histogram(w, edges)[0].max()) for *_, w in panels)
    grid[0, 0].set(yscale="log", ylim=(0.7, 4 * max(1, top)))
    grid[0, 0].minorticks_off()
    handles = [
        Patch(color=FAINT, alpha=0.6, label="weights that are not zero"),
        Patch(color=INK, label="weights that are exactly 0.0"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8.5)
    return figure


def _draw(axes: Axes, weights: np.ndarray, *, edges: np.ndarray, color: str) -> None:
    nonzero = weights[weights != 0]
    zeros = weights.size - nonzero.size
    counts, _ = np.histogram(nonzero, edges)
    axes.stairs(counts, edges, fill=True, color=color, alpha=0.45)
    axes.stairs(counts, edges, color=color, linewidth=0.9)
    text = "no exact zeros"
    if zeros:
        axes.bar(0, zeros, width=edges[1] - edges[0], color=INK, zorder=3)
        text = f"{100 * zeros / weights.size:.1f} % exact zeros"
    axes.annotate(
        text, (0, max(zeros, counts.max(initial=1))), xytext=(0, 5), textcoords="offset points",
        ha="center", fontsize=8.5,
    )  # fmt: skip
