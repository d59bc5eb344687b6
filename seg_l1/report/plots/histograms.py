"""Histograms of weights."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Patch

from seg_l1.display.style import FAINT, INK, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def histograms(panels: Sequence[tuple[str, str, np.ndarray]], bins: int = 81) -> Figure | None:
    """Counts of weights per bin, one panel per network, on shared axes; exact zeros as a bar.

    Args:
        panels: title, color and penalized weights of each.
        bins: an odd number, so that one bin is centered at 0.
    """
    if not panels:
        return None
    limit = max((float(np.quantile(np.abs(w), 0.999)) for _, _, w in panels if w.size), default=1.0)
    edges = np.linspace(-1, 1, bins + 1) * (limit or 1.0)
    figure = new_figure(3.1 * len(panels) + 0.4, 3.3)
    all_axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    tops = []
    for axes, (title, color, weights) in zip(all_axes, panels, strict=True):
        tops.append(_histogram(axes, weights, edges=edges, color=color))
        axes.set_title(fill(title, 34), fontsize=9)
    all_axes[0].set(ylabel="weights per bin (log scale)", ylim=(0.7, 4 * max(1, *tops)))
    handles = [Patch(color=FAINT, alpha=0.6, label="weights that are not zero"),
               Patch(color=INK, label="weights that are exactly 0.0")]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8.5)
    return figure


def _histogram(axes: Axes, weights: np.ndarray, *, edges: np.ndarray, color: str) -> int:
    """Draws one panel; returns the height of its highest bar."""
    nonzero = weights[weights != 0]
    counts, _ = np.histogram(nonzero, edges)
    zeros = weights.size - nonzero.size
    axes.stairs(counts, edges, fill=True, color=color, alpha=0.45)
    axes.stairs(counts, edges, color=color, linewidth=0.9)
    if zeros:
        axes.bar(0, zeros, width=edges[1] - edges[0], color=INK, zorder=3)
    share = 100 * zeros / max(1, weights.size)
    top = max(zeros, int(counts.max(initial=1)))
    axes.annotate(
        f"{share:.1f} % exact zeros" if zeros else "no exact zeros", (0, top), xytext=(0, 5),
        textcoords="offset points", ha="center", fontsize=8.5,
    )  # fmt: skip
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.set_xlabel("weight")
    axes.tick_params(labelleft=True)
    return top
