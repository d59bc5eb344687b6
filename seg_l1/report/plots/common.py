"""What the figures of a report share: the look of each curve, the legend, numbers as text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.lines import Line2D

from seg_l1.display.style import (
    BLUE,
    BROWN,
    GREEN,
    INK,
    OLIVE,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    WINE,
    literal,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from seg_l1.report.runs import Curve

COLORS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, WINE, OLIVE, BROWN)
"""Of the regularizers in the order of their curves; INK is the color of `none`."""

MARKERS = "s^DvPX<>phd*"
"""In the same order; a circle is the marker of `none`."""

GLYPHS = dict(zip("o" + MARKERS, "●■▲◆▼✚✖◀▶⬟⬢⬧★", strict=True))
LINES = ("-", "--", "-.", ":")
FILLS = ("full", "none", "left", "top")


class Look(NamedTuple):
    """How a curve is drawn: color and marker tell the regularizer, line and fill the setting."""

    color: str
    marker: str
    line: str
    fill: str

    @property
    def glyph(self) -> str:
        """The letter that looks like the marker, for text."""
        return GLYPHS[self.marker]

    def face(self, size: float) -> dict[str, Any]:
        """Returns the arguments of matplotlib for the marker; a full one has a white rim."""
        full = self.fill == "full"
        return {
            "color": self.color,
            "marker": self.marker,
            "fillstyle": self.fill,
            "markerfacecoloralt": "white",
            "markersize": size + full,
            "markeredgecolor": "white" if full else self.color,
            "markeredgewidth": 0.7 if full else 1.2,
        }


def looks(curves: Sequence[Curve]) -> dict[str, Look]:
    """Returns the look of each curve of a report, by its label.

    `none` is a dark circle; the other regularizers take colors and markers in the order of their
    curves, the curves of one regularizer lines and fills.
    """
    assigned = {}
    regularizers = [name for name in dict.fromkeys(c.regularizer for c in curves) if name != "none"]
    drawn: Counter[str] = Counter()
    for curve in curves:
        color, marker = INK, "o"
        if curve.regularizer != "none":
            place = regularizers.index(curve.regularizer)
            color, marker = COLORS[place % len(COLORS)], MARKERS[place % len(MARKERS)]
        index = drawn[curve.regularizer]
        line, fill = LINES[index % len(LINES)], FILLS[index % len(FILLS)]
        assigned[curve.label] = Look(color, marker, line, fill)
        drawn[curve.regularizer] += 1
    return assigned


def add_legend(
    figure: Figure,
    curves: Sequence[Curve],
    *,
    looks: Mapping[str, Look],
    extra: Sequence[Any] = (),
    lines: bool = True,
) -> None:
    """Adds a legend below the figure: label and number of seeds of each curve.

    Args:
        looks: the look of each curve, by its label.
        extra: handles to add at the end.
        lines: shows the line of a curve too, of one without α only the line.
    """
    handles: list[Any] = []
    for curve in curves:
        look = looks[curve.label]
        seeds = sorted({len(c.runs) for c in curve.configurations})
        count = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        face = look.face(5) | ({"marker": ""} if lines and not curve.penalized else {})
        face["linestyle"] = look.line if lines else "none"
        handles.append(Line2D([], [], **face, label=f"{literal(curve.label)} (n = {count})"))
    handles += extra
    widths = [0.5 + 0.066 * len(handle.get_label()) for handle in handles]
    available = figure.get_figwidth() - 0.2
    fits = sum(widths) <= available
    columns = len(handles) if fits else max(1, int(available / max(widths)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8.5)


def number_text(number: float) -> str:
    """Returns a number for an axis, in powers of ten where it is small: `$3{\\cdot}10^{-5}$`."""
    digits, _, power = f"{number:.3g}".partition("e")
    exponent = int(power or 0)
    if not exponent and 0 < number < 0.1:
        exponent = math.floor(math.log10(number))
        digits = f"{number / 10**exponent:.3g}"
    if not exponent:
        return digits
    return f"$10^{{{exponent}}}$" if digits == "1" else f"${digits}{{\\cdot}}10^{{{exponent}}}$"
