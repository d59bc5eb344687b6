"""Pictures for people: masks in colour over their images, and the preview of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.patches import Patch
from torch import Tensor, nn

from seg_l1.data.batches import Batches
from seg_l1.data.split import IGNORE
from seg_l1.display.style import literal, new_figure, png
from seg_l1.models.tiles import tiled
from seg_l1.runs.files import write_bytes


def palette(classes: Sequence[str]) -> np.ndarray:
    """(K, 3) uint8 colours: black for a class called background, else tab20 without its greys."""
    strong_first = [i for i in (*range(0, 20, 2), *range(1, 20, 2)) if i not in (14, 15)]
    available = (np.array(colormaps["tab20"].colors)[strong_first] * 255).astype(np.uint8)
    named = [index for index, name in enumerate(classes) if name.lower() != "background"]
    colours = np.zeros((len(classes), 3), dtype=np.uint8)
    colours[named] = available[np.arange(len(named)) % len(available)]
    return colours


def overlay(image: np.ndarray, mask: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Lays a mask (H, W) in colour over the grey of an image (H, W, 3) uint8.

    Unlabeled pixels, and those of a black class, show the grey alone.
    """
    grey = image.mean(-1, keepdims=True).astype(np.uint8).repeat(3, -1)
    valid = mask != IGNORE
    paint = colours[np.where(valid, mask, 0)]
    visible = (valid & paint.any(-1))[..., None]
    mixed = (grey.astype(np.uint16) + 3 * paint.astype(np.uint16)) // 4
    return np.where(visible, mixed.astype(np.uint8), grey)


@torch.no_grad()
def predictions(
    model: nn.Module,
    batches: Batches,
    count: int,
    tile: Sequence[int] | None = None,
    overlap: float = 0.25,
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns (image (H, W, 3), truth, prediction) of `count` pictures, evenly over the split.

    Those that differ in size are padded to the largest, with black and "not labeled".
    """
    total = len(batches.split)
    chosen = torch.linspace(0, total - 1, min(count, total)).long().tolist()
    images, masks = batches.split[chosen]
    predicted = torch.full_like(masks, IGNORE, dtype=torch.int64)
    model.eval()
    for index, answer in zip(chosen, predicted, strict=True):
        image = batches.split[[index]][0]
        logits = tiled(model, batches.normalize(image), tile, overlap)
        answer[: image.shape[2], : image.shape[3]] = logits[0].argmax(0).cpu()
    rgb = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
    return [
        (image.permute(1, 2, 0).numpy(), mask.numpy(), answer.numpy())
        for image, mask, answer in zip(rgb, masks, predicted, strict=True)
    ]


def sheet(
    shown: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    colours: np.ndarray,
    height: int = 160,
) -> Tensor:
    """A (3, h, w) uint8 picture: a row for each of image, truth, prediction; a column per scene."""
    columns = [
        np.concatenate([image, overlay(image, truth, colours), overlay(image, answer, colours)])
        for image, truth, answer in shown
    ]
    grid = np.concatenate(columns, axis=1)
    zoom = max(1, round(height / shown[0][0].shape[0]))
    return (
        torch.from_numpy(grid)
        .permute(2, 0, 1)
        .repeat_interleave(zoom, 1)
        .repeat_interleave(zoom, 2)
    )


def save_confusion(path: Path, counts: Tensor, classes: Sequence[str], title: str) -> None:
    """Writes a PNG of the confusion matrix (K, K), truth along rows, each row in percent."""
    share = 100 * counts.double() / counts.sum(1, keepdim=True)
    side = max(4.5, 0.45 * len(classes) + 2)
    figure = new_figure(side + 1, side)
    axes = figure.subplots()
    drawn = axes.imshow(share.numpy(), cmap="cividis", vmin=0, vmax=100)
    figure.colorbar(drawn, label="share of the true pixels (%)", shrink=0.8)
    ticks = range(len(classes))
    names = list(map(literal, classes))
    axes.set(xticks=ticks, yticks=ticks, yticklabels=names, xlabel="prediction", ylabel="truth")
    axes.set_xticklabels(names, rotation=60, ha="right")
    for truth, answer in (share >= 0.5).nonzero().tolist():
        value = float(share[truth, answer])
        ink = "black" if value > 60 else "white"
        axes.text(answer, truth, f"{value:.0f}", ha="center", va="center", fontsize=8, color=ink)
    axes.set_title(title.replace(": ", "\n", 1), fontsize=9)
    write_bytes(path, png(figure, dpi=120))


def save_preview(
    path: Path,
    shown: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    classes: Sequence[str],
    title: str,
) -> None:
    """Writes a PNG with image, truth, prediction and errors in rows, and a legend."""
    colours = palette(classes)
    rows = ("image", "truth", "prediction", "errors (white)")
    ratio = shown[0][0].shape[0] / shown[0][0].shape[1]
    size = (2 * len(shown), 2 * ratio * len(rows) + 1.2)
    figure = new_figure(*size)
    axes = figure.subplots(len(rows), len(shown), squeeze=False)
    for column, (image, truth, answer) in enumerate(shown):
        wrong = (truth != answer) & (truth != IGNORE)
        errors = np.where(wrong[..., None], 255, image // 3).astype(np.uint8)
        panels = (image, overlay(image, truth, colours), overlay(image, answer, colours), errors)
        for row, panel in enumerate(panels):
            axes[row, column].imshow(panel, interpolation="nearest")
            axes[row, column].set(xticks=[], yticks=[])
    for row, name in enumerate(rows):
        axes[row, 0].set_ylabel(name)
    figure.suptitle(title.replace(": ", "\n", 1), fontsize=10)
    named = [
        (literal(name) if colour.any() else f"{literal(name)} (not painted)", colour / 255)
        for name, colour in zip(classes, colours, strict=True)
    ]
    figure.legend(
        handles=[Patch(color=colour, label=name) for name, colour in named],
        loc="outside lower center",
        ncols=min(len(named), 2 * len(shown)),
        fontsize=8,
        frameon=False,
    )
    write_bytes(path, png(figure, dpi=120))
