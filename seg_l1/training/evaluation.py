"""The scores of a network on a whole split, as training and commands report them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seg_l1 import distributed
from seg_l1.data.batches import Batches
from seg_l1.data.labels import IGNORE
from seg_l1.metrics.per_image import PerImage
from seg_l1.metrics.segmentation import (
    BoundaryF1,
    BoundaryIoU,
    CalibrationError,
    ConfusionMatrix,
    iou_per_class,
    scores,
)
from seg_l1.models.tiles import tiled

Row = dict[str, float]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Batches,
    criterion: nn.Module,
    classes: Sequence[str],
    *,
    tolerance: int = 1,
    tile: Sequence[int] | None = None,
    overlap: float = 0.25,
    autocast: torch.autocast | None = None,
    per_image: PerImage | None = None,
) -> tuple[Row, Tensor]:
    """Evaluates a network on a split; several processes divide the batches.

    Args:
        batches: of the split.
        criterion: the data term.
        classes: their names.
        tolerance: of the boundary scores, in pixels.
        tile, overlap: for images larger than memory, see `tiles.tiled`.
        autocast: the context in which the network computes; None = float32.
        per_image: is given the images of this process.

    Returns:
        The scores pooled over the split: loss (data term, weighted by the valid pixels of each
        batch), miou, dice, pixel_accuracy, boundary_f1, boundary_iou, calibration_error and
        iou/<class>; and the counts of the confusion matrix (K, K), truth along axis 0.
    """
    device = next(model.parameters()).device
    confusion = ConfusionMatrix(len(classes), device)
    boundaries = [kind(len(classes), tolerance, device) for kind in (BoundaryF1, BoundaryIoU)]
    calibration = CalibrationError()
    total, pixels = torch.zeros((), device=device), torch.zeros((), device=device)
    further = [] if per_image is None else [per_image]
    model.eval()
    for images, masks in batches.epoch(start=distributed.rank(), step=distributed.size()):
        with autocast or torch.autocast(device.type, enabled=False):
            logits = tiled(model, images, tile, overlap).float()
        valid = (masks != IGNORE).sum()
        total += criterion(logits, masks) * valid
        pixels += valid
        prediction = logits.argmax(1)
        for metric in (confusion, *boundaries, *further):
            metric.update(prediction, masks)
        calibration.update(logits, masks)
    distributed.all_reduce(total, pixels, confusion.counts, calibration.sums)
    distributed.all_reduce(*(metric.sums for metric in boundaries))
    per_class = iou_per_class(confusion.counts).tolist()
    boundary_f1, boundary_iou = (metric.compute() for metric in boundaries)
    row = {
        "loss": float(total / pixels.clamp_min(1)),
        **scores(confusion.counts),
        "boundary_f1": boundary_f1,
        "boundary_iou": boundary_iou,
        "calibration_error": calibration.compute(),
        **{f"iou/{name}": iou for name, iou in zip(classes, per_class, strict=True)},
    }
    return row, confusion.counts.cpu()
