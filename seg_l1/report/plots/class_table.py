"""The IoU of each class against α, as heat maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from seg_l1.display.style import INK, literal, new_figure, styled
from seg_l1.report.plots.common import number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.image import AxesImage

    from seg_l1.report.runs import Configuration, Curve


@styled
def class_table(
    curves: Sequence[Curve],
    names: Sequence[str],
    *,
    reference: Callable[[Curve], Configuration | None],
) -> Figure | None:
    """Heat maps (class, α), one per curve, of mean IoU less that of its `reference`, in points.

    Where a curve has no reference, all maps show the IoU itself, in percent.
    """
    shown = [curve for curve in curves if curve.penalized]
    if not shown or not names:
        return None
    relative = all(reference(curve) is not None for curve in shown)
    tables = [
        _values(curve, names, reference=reference(curve) if relative else None) for curve in shown
    ]
    layout = _Layout.of([max(table.shape[1], 2) for table in tables], names)
    colors = _colors(tables, relative)
    label = "IoU − IoU of none (points)" if relative else "IoU (%)"
    label = label.replace(" (", "\n(") if layout.cell * len(names) < 2 else label
    figure = new_figure(*layout.size)
    parts = figure.subfigures(len(layout.rows), 1, squeeze=False)[:, 0]
    for part, row in zip(parts, layout.rows, strict=True):
        panels = layout.panels(part, row)
        for axes, index in zip(panels, row, strict=True):
            image = axes.imshow(tables[index], aspect="auto", interpolation="nearest", **colors)
            _write_values(
                axes, image, table=tables[index], relative=relative, size=layout.font_size
            )
            width = max(14, round(16 * layout.column * layout.widths[index]))
            axes.set_title(fill(literal(shown[index].label), width), fontsize=9)
            ticks = names if axes is panels[0] else [""] * len(names)
            _format_axes(axes, shown[index], names=ticks, layout=layout)
        fraction = 0.05 if len(row) > 1 else 0.08
        bar = part.colorbar(image, ax=panels, label=label, pad=0.01, fraction=fraction, aspect=18)
        bar.outline.set_visible(False)
    return figure


def _values(curve: Curve, names: Sequence[str], *, reference: Configuration | None) -> np.ndarray:
    """(classes, configurations): the mean IoU in percent, or its difference to `reference`."""

    def iou(configuration: Configuration) -> np.ndarray:
        return np.array([100 * configuration.mean(f"val/iou/{name}") for name in names])

    offset = 0.0 if reference is None else iou(reference)
    return np.stack([iou(c) - offset for c in curve.configurations], axis=1)


def _colors(tables: Sequence[np.ndarray], relative: bool) -> dict[str, Any]:
    """The color map of all tables: centered at 0 for differences, else from 0 to 100."""
    if not relative:
        return {"cmap": "cividis", "vmin": 0, "vmax": 100}
    finite = [np.abs(table[np.isfinite(table)]) for table in tables]
    limit = max(0.1, *(float(values.max(initial=0.0)) for values in finite))
    return {"cmap": "PuOr", "vmin": -limit, "vmax": limit}


class _Layout(NamedTuple):
    """Sizes in inches, and which maps stand side by side.

    Attributes:
        widths: columns of each map.
        rows: the indices of the maps in each row.
        column: width of a column.
        cell: height of a cell.
        dense: many columns: they are narrow, their labels vertical.
        font_size: of the numbers in the cells; 0 leaves them out.
        size: width and height of the figure.
    """

    widths: list[int]
    rows: list[range]
    column: float
    cell: float
    dense: bool
    font_size: float
    size: tuple[float, float]

    @classmethod
    def of(cls, widths: list[int], names: Sequence[str]) -> _Layout:
        dense = sum(widths) > 16
        across = max(1, min(len(widths), (27 if dense else 16) // max(widths)))
        starts = range(0, len(widths), across)
        rows = [range(start, min(start + across, len(widths))) for start in starts]
        column = 0.31 if dense else 0.52
        if len(names) > 24:
            font_size, cell = 0.0, max(0.11, 6.5 / len(names))
        else:
            font_size, cell = (5.5, 0.2) if dense else (7.0, 0.27)
        cell = max(cell, 1.1 / len(names))
        margin = 0.075 * max(map(len, names)) + 1.35
        width = max(sum(widths[i] * column + 0.35 for i in row) for row in rows) + margin
        height = len(rows) * (cell * len(names) + (1.3 if dense else 0.95)) + 0.1
        return cls(widths, rows, column, cell, dense, font_size, (max(5.2, width), height))

    def panels(self, part: SubFigure, row: range) -> list[Axes]:
        """The axes of a row; a short row leaves free what the longest one has more."""
        ratios = [self.widths[i] for i in row]
        rest = max(sum(self.widths[i] for i in other) for other in self.rows) - sum(ratios)
        ratios += [rest] if rest else []
        grid = part.subplots(1, len(ratios), squeeze=False, width_ratios=ratios)[0]
        for axes in grid[len(row) :]:
            axes.set_axis_off()
        return list(grid[: len(row)])


def _format_axes(axes: Axes, curve: Curve, *, names: Sequence[str], layout: _Layout) -> None:
    """Ticks, labels and white lines between cells; `names` are the labels of the rows."""
    rows, columns = len(names), len(curve.configurations)
    tall = layout.cell > 0.2
    alphas = [number_text(c.alpha or 0.0) for c in curve.configurations]
    axes.set_facecolor("#d9dce0")
    axes.set_xticks(range(columns), alphas, fontsize=8, rotation=90 if layout.dense else 0)
    axes.set_yticks(range(rows), map(literal, names), fontsize=8 if tall else 6)
    axes.set_ylabel("class" if any(names) else "")
    axes.set_xlabel("α", fontsize=9)
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for edge in range(1, columns):
        axes.axvline(edge - 0.5, color="white", linewidth=1.2)
    for edge in range(1, rows):
        axes.axhline(edge - 0.5, color="white", linewidth=1.2 if tall else 0.4)


def _write_values(
    axes: Axes, image: AxesImage, *, table: np.ndarray, relative: bool, size: float
) -> None:
    """Writes the value into each cell, in white where it is dark; a dash where there is none."""
    for (row, column), value in np.ndenumerate(table):
        text, color = "–", INK
        if math.isfinite(value):
            if not size:
                continue
            text = f"{value:+.1f}".replace("-", "−") if relative else f"{value:.0f}"
            text = "0" if relative and abs(value) < 0.05 else text
            brightness = np.dot(image.cmap(image.norm(value))[:3], (0.299, 0.587, 0.114))
            color = "white" if brightness < 0.55 else INK
        axes.text(column, row, text, ha="center", va="center", fontsize=size or 7, color=color)
