"""The picture of the images that a network segments worst."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from seg_l1.display.paint import palette
from seg_l1.display.pictures import DPI, Example, class_legend, panels
from seg_l1.display.style import literal, new_figure, png, styled
from seg_l1.errors import printable
from seg_l1.runs.files import write_bytes

SIDE = 400
"""Larger side, in pixels, to which a panel is reduced."""

WIDTH = 6.5
"""Width of a row of panels in inches."""


@styled
def save_worst(
    path: Path, examples: Iterable[tuple[Example, str]], *, classes: Sequence[str], title: str
) -> None:
    """Writes a PNG in which each example is a row of image, mask, prediction and errors.

    Args:
        examples: with the title of each; they are read one at a time, and reduced.
    """
    colors = palette(classes)
    strips = [(_strip(panels(example, colors)), name) for example, name in examples]
    columns = min(2, len(strips))
    lines = [strips[start : start + columns] for start in range(0, len(strips), columns)]
    shapes = [max(strip.shape[0] / strip.shape[1] for strip, _ in line) for line in lines]
    heights = [0.3 + WIDTH * min(shape, 0.4) for shape in shapes]
    figure = new_figure(WIDTH * columns, sum(heights) + 1.2)
    axes = figure.subplots(len(lines), columns, squeeze=False, height_ratios=heights)
    for place in axes.flat[len(strips) :]:
        place.set_axis_off()
    for place, (strip, name) in zip(axes.flat, strips, strict=False):
        _draw(place, strip, name)
    figure.suptitle(
        f"{title}\nfrom left to right: image, mask, prediction, errors (white)", fontsize=10
    )
    class_legend(figure, classes, colors, columns=6 * columns)
    write_bytes(path, png(figure, dpi=DPI))


def _draw(axes: Axes, strip: np.ndarray, name: str) -> None:
    axes.imshow(strip, interpolation="nearest" if max(strip.shape) < SIDE else "antialiased")
    axes.set(xticks=[], yticks=[], anchor="NW")
    axes.spines[:].set_visible(True)  # where all is wrong the errors are as white as the page
    axes.set_title(literal(printable(name)), fontsize=8)


def _strip(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Returns pictures (H, W, 3) side by side, reduced to `SIDE`, with gray between them."""
    height, width = parts[0].shape[:2]
    factor = -(-max(height, width) // SIDE)
    small = [np.asarray(Image.fromarray(part).reduce(factor)) for part in parts]
    gap = np.full((len(small[0]), max(1, small[0].shape[1] // 60), 3), 150, np.uint8)
    return np.concatenate([piece for part in small for piece in (gap, part)][1:], axis=1)
