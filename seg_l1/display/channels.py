"""The channels of each layer before and after compaction, as a PNG file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from seg_l1.display.style import BLUE, FAINT, literal, new_figure, png, styled
from seg_l1.runs.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BARS = 120
"""Deeper networks have a bar for several layers that follow each other."""

TALLEST = 22.0
"""The largest height of the figure, in inches."""


class Bar(NamedTuple):
    """The channels of a layer, or of several layers together.

    Attributes:
        total: before compaction.
        live: those that vary and are read.
        constant: those with the same value for all pixels and images.
        unread: those that vary, and that nothing reads.
        kept: channels of the compact network. They can be more than the live ones: a layer that is
            dead altogether keeps one, for example.
    """

    name: str
    total: int
    live: int
    constant: int
    unread: int
    kept: int

    @property
    def parts(self) -> tuple[int, int, int]:
        """Channels that are kept, removed as constant, and removed as unread.

        Channels that are kept though they are not live are counted as constant ones first.
        """
        more = max(0, self.kept - self.live)
        constant = max(0, self.constant - more)
        return self.kept, constant, self.total - self.kept - constant


def save_channels(
    path: Path, rows: Sequence[tuple[str, int, int, int, int, int]], *, title: str
) -> None:
    """Writes the figure of `channels_figure` as a PNG file."""
    write_bytes(path, png(channels_figure(rows, title=title), dpi=120))


@styled
def channels_figure(rows: Sequence[tuple[str, int, int, int, int, int]], *, title: str) -> Figure:
    """Draws a horizontal bar per layer: its channels that are kept, and those that are removed.

    Args:
        rows: a (name, total, live, constant, unread, kept) per layer, in the order of execution,
            which is drawn from top to bottom; see `Bar`. At least one.
        title: stands above the figure.
    """
    bars = grouped([Bar(*row) for row in rows])
    pitch = min(0.24, (TALLEST - 1.4) / len(bars))
    size = min(8.5, 0.82 * 72 * pitch)
    longest = max(len(bar.name) for bar in bars)
    figure = new_figure(6.2 + min(4.5, 0.0075 * size * longest), 1.4 + pitch * len(bars))
    axes = figure.subplots()
    _draw(axes, bars, size=size)
    _label(axes, bars, size=size)
    if len(bars) < len(rows):
        title += f" ({len(rows)} layers, several to a bar)"
    handles = [Patch(color=color, label=label) for color, label in zip(COLORS, LABELS, strict=True)]
    figure.legend(
        handles=handles, loc="outside upper left", title=literal(title), alignment="left",
        fontsize=8.5, title_fontproperties={"weight": "bold", "size": 9.5},
    )  # fmt: skip
    return figure


COLORS = (BLUE, "#f0c566", "#b2dcf4")
LABELS = (
    "kept",
    "removed as constant: the same value for all pixels and images",
    "removed as unread: nothing reads it",
)


def grouped(bars: Sequence[Bar], most: int = MOST_BARS) -> list[Bar]:
    """Returns at most `most` bars: neighbors are added up, as many to each as necessary."""
    step = -(-len(bars) // most)
    found = []
    for start in range(0, len(bars), step):
        some = bars[start : start + step]
        sums = map(sum, zip(*(bar[1:] for bar in some), strict=True))
        name = some[0].name if len(some) == 1 else f"{some[0].name} to {some[-1].name}"
        found.append(Bar(name, *sums))
    return found


def _draw(axes: Axes, bars: Sequence[Bar], *, size: float) -> None:
    """Draws the parts of each bar side by side, and the numbers behind its end."""
    places = np.arange(len(bars))
    left = np.zeros(len(bars))
    for color, widths in zip(COLORS, zip(*(bar.parts for bar in bars), strict=True), strict=True):
        axes.barh(places, widths, left=left, height=0.74, color=color, linewidth=0)
        left += widths
    for place, bar in enumerate(bars):
        same = bar.kept == bar.total
        axes.annotate(
            str(bar.total) if same else f"{bar.total} \u2192 {bar.kept}",
            (bar.total, place), xytext=(3, 0), textcoords="offset points", va="center_baseline",
            fontsize=size, color=FAINT if same else None,
        )  # fmt: skip


def _label(axes: Axes, bars: Sequence[Bar], *, size: float) -> None:
    """Sets names, limits and grid."""
    axes.set_yticks(range(len(bars)), [literal(bar.name) for bar in bars], fontsize=size)
    axes.set(ylim=(len(bars) - 0.4, -0.6), xlim=(0, 1.14 * max(bar.total for bar in bars)))
    axes.set_xlabel("output channels")
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
