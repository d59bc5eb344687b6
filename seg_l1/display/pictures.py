"""Masks in color over their images, as arrays, image grids and PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor, nn

from seg_l1.data.bands import Bands
from seg_l1.data.batches import Batches
from seg_l1.data.labels import IGNORE
from seg_l1.display.paint import overlay, palette
from seg_l1.display.style import literal, new_figure, png, styled
from seg_l1.models.tiles import tiled
from seg_l1.runs.files import write_bytes

DPI = 120
"""Pixels per inch of the PNG files."""


class Example(NamedTuple):
    """An image (H, W, 3) uint8 with its mask and the predicted one, (H, W) class ids."""

    image: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray


@torch.no_grad()
def predict_examples(
    model: nn.Module,
    batches: Batches,
    *,
    count: int,
    tile: Sequence[int] | None = None,
    overlap: float = 0.25,
    bands: Bands | None = None,
) -> list[Example]:
    """Returns up to `count` examples, evenly spaced over the split.

    Smaller ones are padded to the size of the largest, with black and "not labeled".

    Args:
        bands: how images are shown; None = in their first three bands, or in gray.
    """
    total = len(batches.split)
    chosen = torch.linspace(0, total - 1, min(count, total)).long().tolist()
    images, masks = batches.split[chosen]
    predicted = torch.full_like(masks, IGNORE, dtype=torch.int64)
    model.eval()
    for index, prediction in zip(chosen, predicted, strict=True):
        image = batches.split[[index]][0]
        logits = tiled(model, batches.normalize(image), tile, overlap)
        prediction[: image.shape[2], : image.shape[3]] = logits[0].argmax(0).cpu()
    bands = bands or Bands(images.shape[1])
    return [
        Example(bands.paint(image.permute(1, 2, 0).numpy()), mask.numpy(), prediction.numpy())
        for image, mask, prediction in zip(images, masks, predicted, strict=True)
    ]


def image_grid(examples: Sequence[Example], colors: np.ndarray, *, height: int = 160) -> Tensor:
    """Returns a (3, H, W) uint8 image: a column per example of image, truth and prediction.

    Args:
        height: about how many pixels high each of the three rows is.
    """
    columns = [
        np.concatenate(
            [e.image, *(overlay(e.image, mask, colors=colors) for mask in (e.truth, e.prediction))]
        )
        for e in examples
    ]
    grid = torch.from_numpy(np.concatenate(columns, axis=1)).permute(2, 0, 1)
    zoom = max(1, round(height / examples[0].image.shape[0]))
    return grid.repeat_interleave(zoom, 1).repeat_interleave(zoom, 2)


@styled
def save_confusion(path: Path, counts: Tensor, *, classes: Sequence[str], title: str) -> None:
    """Writes a PNG of the confusion matrix (K, K), truth along rows, each row in percent."""
    share = 100 * counts.double() / counts.sum(1, keepdim=True)
    side = max(4.5, 0.45 * len(classes) + 2)
    figure = new_figure(side + 1, side)
    axes = figure.subplots()
    image = axes.imshow(share.numpy(), cmap="cividis", vmin=0, vmax=100)
    bar = figure.colorbar(image, label="share of the true pixels (%)", shrink=0.8)
    bar.outline.set_visible(False)
    ticks = range(len(classes))
    names = list(map(literal, classes))
    axes.set(xticks=ticks, yticks=ticks, yticklabels=names, xlabel="prediction", ylabel="truth")
    axes.set_xticklabels(names, rotation=60, ha="right", rotation_mode="anchor")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    for truth, prediction in (share >= 0.5).nonzero().tolist():
        value = float(share[truth, prediction])
        color = "black" if value > 60 else "white"
        text = axes.text(prediction, truth, f"{value:.0f}", ha="center", va="center", color=color)
        text.set_fontsize(8)
    axes.set_title(title.replace(": ", "\n", 1))
    write_bytes(path, png(figure, dpi=DPI))


@styled
def save_preview(
    path: Path, examples: Sequence[Example], *, classes: Sequence[str], title: str
) -> None:
    """Writes a PNG with image, truth, prediction and errors in rows, and a legend."""
    colors = palette(classes)
    rows = ("image", "truth", "prediction", "errors (white)")
    ratio = examples[0].image.shape[0] / examples[0].image.shape[1]
    figure = new_figure(2 * len(examples), 2 * ratio * len(rows) + 1.2)
    axes = figure.subplots(len(rows), len(examples), squeeze=False)
    for column, example in enumerate(examples):
        for row, panel in enumerate(panels(example, colors)):
            axes[row, column].imshow(panel, interpolation="nearest")
            axes[row, column].set(xticks=[], yticks=[])  # and so no grid
            axes[row, column].spines[:].set_visible(True)
    for row, name in enumerate(rows):
        axes[row, 0].set_ylabel(name)
    figure.suptitle(title.replace(": ", "\n", 1), fontsize=10)
    class_legend(figure, classes, colors, columns=2 * len(examples))
    write_bytes(path, png(figure, dpi=DPI))


def panels(example: Example, colors: np.ndarray) -> list[np.ndarray]:
    """Returns the image, the masks in color over it, and the errors in white: (H, W, 3) uint8."""
    image, truth, prediction = example
    wrong = (truth != prediction) & (truth != IGNORE)
    masks = [overlay(image, mask, colors=colors) for mask in (truth, prediction)]
    return [image, *masks, np.where(wrong[..., None], 255, image // 3).astype(np.uint8)]


def class_legend(
    figure: Figure, classes: Sequence[str], colors: np.ndarray, *, columns: int
) -> None:
    """Draws the colors of the classes below a figure, in at most `columns` columns."""
    handles = [
        Patch(color=color / 255, label=literal(name) + ("" if color.any() else " (not painted)"))
        for name, color in zip(classes, colors, strict=True)
    ]
    columns = min(len(handles), columns)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=8)
