"""What all figures have in common: colors, fonts and sizes, and how one becomes a PNG file.

The colors are safe for color-blind readers: those of Okabe and Ito (2008), and some of Tol (2021).
"""

from __future__ import annotations

import io
import warnings
from typing import Any

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, FAINT = "#1f2328", "#8a9099"
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, WINE, OLIVE, BROWN = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#882255", "#999933",
    "#6f4e37",
)  # fmt: skip

RC_PARAMS: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelcolor": INK,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 200,
}
"""Settings of matplotlib for all figures."""

styled = rc_context(RC_PARAMS)
"""Decorates a function that draws: while it does, `RC_PARAMS` are in force."""


def new_figure(width: float, height: float) -> Figure:
    """Returns an empty figure of this size in inches, which opens no window."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Figure, *, dpi: float | None = None) -> bytes:
    """Returns the figure as a PNG file; `dpi` are pixels per inch, None those of `RC_PARAMS`."""
    file = io.BytesIO()
    with rc_context(RC_PARAMS), warnings.catch_warnings():
        # a letter that the font lacks is drawn as a box
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def literal(text: str) -> str:
    """Returns text that matplotlib shows as it is, without reading `$` as mathematics."""
    return text.replace("$", r"\$")
