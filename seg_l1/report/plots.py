"""The figures of the report.

Colours are safe for the colour-blind (Okabe and Ito; Tol), every regularizer has its own marker.

Scores in [0, 1] are drawn as they are, shares of zeros in percent. Spread is one standard deviation
over seeds. Every function returns None where there is nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from seg_l1.display.style import (
    BLUE,
    BROWN,
    FAINT,
    GREEN,
    INK,
    OLIVE,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    WINE,
    new_figure,
    styled,
)  # fmt: skip

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from matplotlib.transforms import Bbox

    from seg_l1.report.runs import Configuration, Curve

COLORS = (INK, BLUE, ORANGE, GREEN, RED, PURPLE, SKY, WINE, OLIVE, BROWN)
"""By the place of a regularizer in the report; INK is that of `none`."""

GLYPHS = dict(zip("os^DvPX<>phd*", "●■▲◆▼✚✖◀▶⬟⬢⬧★", strict=True))
"""Markers, by place too, and how they are written in the page."""

LINES = ("-", "--", "-.", ":")
FILLS = ("full", "none", "left", "top")


class Style(NamedTuple):
    """How a curve looks: colour and marker are the regularizer's, line and fill the settings'."""

    colour: str
    marker: str
    line: str
    fill: str

    def face(self, size: float) -> dict[str, Any]:
        """What matplotlib calls such a marker, with a white rim where it is full."""
        edge = "white" if self.fill == "full" else self.colour
        return {
            "color": self.colour,
            "marker": self.marker,
            "fillstyle": self.fill,
            "markerfacecoloralt": "white",
            "markersize": size + (self.fill == "full"),
            "markeredgecolor": edge,
            "markeredgewidth": 0.7 if self.fill == "full" else 1.2,
        }


def style(curve: Curve, curves: Sequence[Curve]) -> Style:
    """The style of `curve` among `curves`."""
    colour, marker = _cyclic(COLORS, curve.place), _cyclic(tuple(GLYPHS), curve.place)
    settings = [other.setting for other in curves if other.regularizer == curve.regularizer]
    index = settings.index(curve.setting)
    return Style(colour, marker, LINES[index % len(LINES)], FILLS[index % len(FILLS)])


def _cyclic(values: Sequence[str], place: int) -> str:
    """The value at a place; the first one, that of `none`, does not come again."""
    return values[place and 1 + (place - 1) % (len(values) - 1)]


@styled
def against_alpha(
    curves: Sequence[Curve], panels: Sequence[tuple[str, str, str]], *, zero_line: bool = False
) -> Figure | None:
    """Means with their spread over seeds against α; what has no α is a horizontal line.

    Args:
        panels: column, title and label of the y axis of each panel; they share the y axis.
        zero_line: marks y = 0.
    """
    penalised = [curve for curve in curves if curve.penalised]
    panels = [panel for panel in panels if _known(curves, panel[0])]
    if not penalised or not panels:
        return None
    rows = math.ceil(len(curves) / 4)
    height = 3.1 + 0.2 * rows + 0.15 * max(0, len(curves) - 4)
    figure = new_figure(4.6 * len(panels) + 0.6 * (len(panels) == 1), height)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    alphas = sorted({c.alpha for curve in penalised for c in curve.configurations})
    place, spacing = _alpha_axis(alphas)
    shifts = np.linspace(-1, 1, len(penalised)) if len(penalised) > 1 else [0.0]
    shift = dict(zip([c.label for c in penalised], shifts, strict=True))
    for axes, (name, title, label) in zip(all_axes, panels, strict=True):
        if zero_line:
            axes.axhline(0, color=FAINT, linewidth=0.8)
        for curve in curves:
            look = style(curve, curves)
            if not curve.penalised:
                _level(axes, curve.configurations[0], name, look)
                continue
            moved = 10 ** (shift[curve.label] * min(0.05, spacing / 8))
            some = [c for c in curve.configurations if c.scores(name)]
            if not some:
                continue
            x = np.array([place(c.alpha) * moved for c in some])
            for at, configuration in zip(x, some, strict=True):
                values = list(configuration.scores(name).values())
                beside = [at * 10 ** (spacing / 50)] * len(values)
                axes.plot(
                    beside,
                    values,
                    look.marker,
                    color=look.colour,
                    alpha=0.4,
                    ms=3.2,
                    mew=0,
                    zorder=3,
                )
            means, spreads = zip(*[(c.mean(name), c.deviation(name)) for c in some], strict=True)
            axes.errorbar(
                x, means, np.nan_to_num(spreads), **look.face(5), linestyle=look.line,
                linewidth=1.4, elinewidth=1, capsize=2.5,
            )  # fmt: skip
        axes.set_xscale("log")
        apart = "; 0 set apart" if alphas[0] == 0 else ""
        axes.set(title=title, xlabel=f"strength of the penalty α (log scale{apart})")
        if axes is all_axes[0]:
            axes.set_ylabel(label)
        axes.tick_params(labelleft=True)
        _alpha_ticks(axes, alphas, place, spacing)
    _legend(figure, curves)
    return figure


def _level(axes: Axes, configuration: Configuration, name: str, look: Style) -> None:
    """A horizontal line at the mean, with a band of the spread."""
    if configuration.scores(name):
        mean, spread = configuration.mean(name), configuration.deviation(name)
        axes.axhline(mean, color=look.colour, linestyle=look.line, linewidth=1.2, zorder=1.5)
        if math.isfinite(spread):
            axes.axhspan(mean - spread, mean + spread, color=look.colour, alpha=0.1, linewidth=0)


def _alpha_axis(alphas: Sequence[float]) -> tuple[Callable[[float], float], float]:
    """Where an α stands on a log axis (0 one step left of the others), and the smallest step."""
    positive = [alpha for alpha in alphas if alpha > 0] or [1.0]
    steps = np.diff(np.log10(positive))
    spacing = float(steps.min()) if len(steps) else 1.0
    left = positive[0] / 10 ** max(spacing, 0.5)
    return lambda alpha: alpha if alpha > 0 else left, spacing


def _alpha_ticks(
    axes: Axes, alphas: Sequence[float], place: Callable[[float], float], spacing: float
) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    low, high = place(alphas[0]), place(alphas[-1])
    axes.set_xlim(low / 10 ** (0.35 * spacing), high * 10 ** (0.35 * spacing))
    decades = [10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    ticks = [x for x in decades if low * 0.99 <= x <= high * 1.01 and (alphas[0] > 0 or x > low)]
    if len(ticks) < 2 or len(alphas) <= 5:
        ticks = [alpha for alpha in alphas if alpha > 0]
    zero = [low] if alphas[0] == 0 else []
    axes.xaxis.set_major_locator(FixedLocator([*zero, *ticks]))
    axes.set_xticklabels(["0"] * len(zero) + [_power(x) for x in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def _power(number: float) -> str:
    digits, _, exponent = f"{number:.3g}".partition("e")
    exponent = int(exponent or 0)
    if not exponent and number < 0.1:
        exponent = math.floor(math.log10(number))
        digits = f"{number / 10**exponent:.3g}"
    if not exponent:
        return digits
    return f"$10^{{{exponent}}}$" if digits == "1" else f"${digits}{{\\cdot}}10^{{{exponent}}}$"


def _known(curves: Sequence[Curve], name: str) -> bool:
    return any(c.scores(name) for curve in curves for c in curve.configurations)


def _legend(figure: Figure, curves: Sequence[Curve], *more: Any, lines: bool = True) -> None:
    handles: list[Any] = []
    for curve in curves:
        look = style(curve, curves)
        seeds = sorted({len(c.runs) for c in curve.configurations})
        count = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
        face = look.face(5) | ({"marker": ""} if lines and not curve.penalised else {})
        line = look.line if lines else "none"
        handles.append(Line2D([], [], **face, linestyle=line, label=f"{curve.label} (n = {count})"))
    handles += more
    widths = [0.5 + 0.066 * len(handle.get_label()) for handle in handles]
    room = figure.get_figwidth() - 0.2
    columns = len(handles) if sum(widths) <= room else max(1, int(room / max(widths)))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8.5)


@styled
def trade_off(curves: Sequence[Curve], front: Sequence[Configuration], metric: str) -> Figure:
    """Runs and configurations as points (zeros in percent, score), with the front joined, named."""
    figure = new_figure(7.4, 4.5 + 0.2 * math.ceil(len(curves) / 4))
    axes = figure.subplots()
    points = []
    for curve in curves:
        look = style(curve, curves)
        for configuration in curve.configurations:
            for run in configuration.runs:
                at = (100 * run.score("sparsity/exact"), run.score(metric))
                axes.plot(*at, look.marker, color=look.colour, alpha=0.28, ms=3.5, mew=0)
            at = _point(configuration, metric)
            points.append(at)
            axes.plot(*at, **look.face(7), zorder=3)
    x, y = zip(*[_point(configuration, metric) for configuration in front], strict=True)
    axes.plot(x, y, drawstyle="steps-pre", color=FAINT, linewidth=1.1, zorder=1.5)
    axes.set(xlabel="exact zeros among the penalised weights (%)", ylabel="validation mIoU")
    axes.margins(x=0.06, y=0.1)
    joined = Line2D([], [], color=FAINT, linewidth=1.1, label="Pareto front of the means")
    _legend(figure, curves, joined, lines=False)
    figure.draw_without_rendering()
    labels = [(c.label, _point(c, metric)) for c in front]
    _place_labels(axes, labels, points)
    return figure


def _point(configuration: Configuration, metric: str) -> tuple[float, float]:
    return 100 * configuration.mean("sparsity/exact"), configuration.mean(metric)


def _place_labels(
    axes: Axes, labels: Sequence[tuple[str, tuple[float, float]]], points: Sequence[Any]
) -> None:
    """Writes each label where it covers the least of the points and of the labels before it."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    renderer = axes.figure.canvas.get_renderer()
    reach = axes.figure.dpi / 72
    taken = [
        Bbox.from_bounds(x - 5 * reach, y - 5 * reach, 10 * reach, 10 * reach)
        for x, y in axes.transData.transform(points)
    ]
    frame = axes.get_window_extent(renderer)
    offsets = [(r * dx, r * dy) for r in (9, 20, 34) for dx, dy in _DIRECTIONS]
    for text, at in labels:
        written = axes.annotate(
            text, at, xytext=(0, 0), textcoords="offset points", fontsize=8, zorder=4,
            va="center", arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.6,
            "shrinkA": 1, "shrinkB": 4}, bbox={"facecolor": "white", "alpha": 0.75,
            "edgecolor": "none", "pad": 0.6},
        )  # fmt: skip
        best: tuple[float, tuple[float, float], str] | None = None
        for distance, (dx, dy) in enumerate(offsets):
            side = "left" if dx > 0 else "right" if dx < 0 else "center"
            written.set(position=(dx, dy), ha=side)
            written.update_positions(renderer)
            box = Text.get_window_extent(written, renderer)  # without its line
            cost = sum(_overlap(box, other) for other in taken) + _outside(box, frame)
            if best is None or cost + distance < best[0]:
                best = (cost + distance, (dx, dy), side)
        written.set(position=best[1], ha=best[2])
        written.update_positions(renderer)
        taken.append(Text.get_window_extent(written, renderer))


_DIRECTIONS = ((1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1.3), (0, -1.3), (1, 0), (-1, 0))


def _overlap(one: Bbox, other: Bbox) -> float:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(0.0, width) * max(0.0, height)


def _outside(box: Bbox, frame: Bbox) -> float:
    return box.width * box.height - _overlap(box, frame)


@styled
def classes(
    curves: Sequence[Curve],
    names: Sequence[str],
    reference: Callable[[Curve], Configuration | None],
) -> Figure | None:
    """Heat maps (class, α) per curve of the mean IoU, less that of its `reference`, in points.

    Without a reference for every curve the IoU itself is shown, in percent.
    """
    shown = [curve for curve in curves if curve.penalised]
    if not shown or not names:
        return None
    relative = all(reference(curve) is not None for curve in shown)
    tables = [_class_table(curve, names, reference(curve) if relative else None) for curve in shown]
    widths = [max(table.shape[1], 2) for table in tables]
    dense = sum(widths) > 16
    across = max(1, min(len(shown), (27 if dense else 16) // max(widths)))
    rows = [range(i, min(i + across, len(shown))) for i in range(0, len(shown), across)]
    numbers = len(names) <= 24
    cell = max(0.11, 6.5 / len(names)) if not numbers else 0.2 if dense else 0.27
    cell = max(cell, 1.1 / len(names))
    column = 0.31 if dense else 0.52
    label = 0.075 * max(map(len, names)) + 0.35
    width = max(sum(widths[i] * column for i in row) + 0.35 * len(row) for row in rows) + label + 1
    figure = new_figure(
        max(5.2, width), len(rows) * (cell * len(names) + (1.3 if dense else 0.95)) + 0.1
    )
    limit = max((float(np.nanmax(np.abs(t))) for t in tables if np.isfinite(t).any()), default=1.0)
    limit = max(limit, 0.1)
    colours = {"cmap": "PuOr", "vmin": -limit, "vmax": limit} if relative else {
        "cmap": "cividis", "vmin": 0, "vmax": 100}  # fmt: skip
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    panels, drawn = [], None
    for part, row in zip(parts, rows, strict=True):
        share = [widths[i] for i in row]
        filler = max(sum(widths[i] for i in r) for r in rows) - sum(share)
        ratios = [*share, filler] if filler else share
        grid = part.subplots(1, len(ratios), squeeze=False, width_ratios=ratios)[0]
        for spare in grid[len(row) :]:
            spare.set_axis_off()
        for position, index in enumerate(row):
            axes, curve, table = grid[position], shown[index], tables[index]
            axes.set_facecolor("#d9dce0")
            drawn = axes.imshow(table, aspect="auto", interpolation="nearest", **colours)
            _annotate(axes, drawn, table, relative, (5.5 if dense else 7) if numbers else 0)
            axes.set_title(_wrap(curve.label, round(16 * column * widths[index])), fontsize=9)
            strengths = [_power(c.alpha) if c.alpha else "0" for c in curve.configurations]
            axes.set_xticks(
                range(len(strengths)), strengths, fontsize=8, rotation=90 if dense else 0
            )
            marks = names if position == 0 else [""] * len(names)
            axes.set_ylabel("" if position else "class")
            axes.set_yticks(range(len(names)), marks, fontsize=8 if cell > 0.2 else 6)
            axes.set_xlabel("α", fontsize=9)
            axes.grid(False)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            for edge in range(1, len(strengths)):
                axes.axvline(edge - 0.5, color="white", linewidth=1.2)
            for edge in range(1, len(names)):
                axes.axhline(edge - 0.5, color="white", linewidth=1.2 if cell > 0.2 else 0.4)
            panels.append(axes)
    text = "IoU − IoU of none (points)" if relative else "IoU (%)"
    text = text.replace(" (", "\n(") if cell * len(names) < 2 else text
    for part, row in zip(parts, rows, strict=True):
        mine = [axes for axes in panels if axes.figure is part]
        part.colorbar(drawn, ax=mine, label=text, pad=0.01, fraction=0.05 if len(row) > 1 else 0.08,
                      aspect=18).outline.set_visible(False)  # fmt: skip
    return figure


def _class_table(curve: Curve, names: Sequence[str], reference: Configuration | None) -> np.ndarray:
    columns = []
    for configuration in curve.configurations:
        values = np.array([100 * configuration.mean(f"val/iou/{name}") for name in names])
        if reference is not None:
            values = values - [100 * reference.mean(f"val/iou/{name}") for name in names]
        columns.append(values)
    return np.array(columns).T


def _annotate(axes: Axes, drawn: AxesImage, table: np.ndarray, relative: bool, size: float) -> None:
    for (row, column), value in np.ndenumerate(table):
        text, ink = "–", INK
        if math.isfinite(value):
            if not size:
                continue
            text = f"{value:+.1f}".replace("-", "−") if relative else f"{value:.0f}"
            text = "0" if relative and abs(value) < 0.05 else text
            brightness = np.dot(drawn.cmap(drawn.norm(value))[:3], (0.299, 0.587, 0.114))
            ink = "white" if brightness < 0.55 else INK
        axes.text(column, row, text, ha="center", va="center", fontsize=size or 7, color=ink)


def _wrap(text: str, width: int) -> str:
    from textwrap import fill

    return fill(text, max(width, 14))


@styled
def histograms(panels: Sequence[tuple[str, Curve, np.ndarray]], bins: int = 81) -> Figure | None:
    """Counts of weights per bin, one panel per network, on shared axes; exact zeros as a bar.

    Args:
        panels: title, curve (for the colour) and the penalised weights.
        bins: an odd number, so that a bin is centred at 0.
    """
    if not panels:
        return None
    limit = max((float(np.quantile(np.abs(w), 0.999)) for _, _, w in panels if w.size), default=1.0)
    edges = np.linspace(-1, 1, bins + 1) * (limit or 1.0)
    figure = new_figure(3.1 * len(panels) + 0.4, 3.3)
    all_axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    curves = [curve for _, curve, _ in panels]
    for axes, (title, curve, weights) in zip(all_axes, panels, strict=True):
        colour = style(curve, curves).colour
        alive = weights[weights != 0]
        counts, _ = np.histogram(alive, edges)
        zeros = weights.size - alive.size
        axes.stairs(counts, edges, fill=True, color=colour, alpha=0.45)
        axes.stairs(counts, edges, color=colour, linewidth=0.9)
        if zeros:
            axes.bar(0, zeros, width=edges[1] - edges[0], color=INK, zorder=3)
        share = 100 * zeros / max(1, weights.size)
        said = f"{share:.1f} % exact zeros" if zeros else "no exact zero"
        axes.annotate(
            said, (0, max(zeros, counts.max(initial=1))), xytext=(0, 5),
            textcoords="offset points", ha="center", fontsize=8.5,
        )  # fmt: skip
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.set_title(_wrap(title, 34), fontsize=9)
        axes.set_xlabel("weight")
        axes.tick_params(labelleft=True)
    top = max(max((w == 0).sum(), np.histogram(w, edges)[0].max()) for _, _, w in panels)
    all_axes[0].set(ylabel="weights per bin (log scale)", ylim=(0.7, 4 * max(1, top)))
    handles = [Patch(color=FAINT, alpha=0.6, label="weights that are not zero"),
               Patch(color=INK, label="weights that are exactly 0.0")]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8.5)
    return figure
