"""Metrics pooled over a whole split: one confusion matrix, and boundary counts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, one_hot

from seg_l1.data.split import IGNORE


class ConfusionMatrix:
    """Counts of (truth, prediction) over all valid pixels seen since `reset` (torchmetrics)."""

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        from torchmetrics.classification import MulticlassConfusionMatrix

        self._metric = MulticlassConfusionMatrix(
            num_classes, ignore_index=IGNORE, validate_args=False
        ).to(device)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds class ids of shape (N, H, W)."""
        self._metric.update(prediction, target)

    @property
    def counts(self) -> Tensor:
        """(K, K) int64, truth along axis 0."""
        return self._metric.confmat

    def load(self, counts: Tensor) -> None:
        """Goes on from saved `counts`."""
        self.reset()
        self._metric.confmat += counts.to(self._metric.confmat.device)

    def reset(self) -> None:
        self._metric.reset()


def iou_per_class(counts: Tensor) -> Tensor:
    """|truth ∩ prediction| / |truth ∪ prediction| for each class; NaN for a class in neither."""
    hit = counts.diag().double()
    return hit / (counts.sum(0) + counts.sum(1) - hit)


def scores(counts: Tensor) -> dict[str, float]:
    """mIoU, mean Dice (over classes in truth or prediction) and pixel accuracy, from counts."""
    hit = counts.diag().double()
    return {
        "miou": float(iou_per_class(counts).nanmean()),
        "dice": float((2 * hit / (counts.sum(0) + counts.sum(1))).nanmean()),
        "pixel_accuracy": float(hit.sum() / counts.sum()),
    }


class BoundaryF1:
    """Boundary F1 (Csurka et al., 2013), per class, pooled over the split, mean over classes.

    A pixel of class c is on c's boundary if one of its 8 neighbours is labelled otherwise (outside
    of the image and unlabelled pixels do not count as otherwise). Precision is the share of
    predicted boundary pixels with a true one within `tolerance` pixels (Euclidean), recall the
    reverse.
    """

    def __init__(
        self, num_classes: int, tolerance: int = 1, device: torch.device | str = "cpu"
    ) -> None:
        self.num_classes = num_classes
        self.sums = torch.zeros(4, num_classes, dtype=torch.float64, device=device)
        reach = torch.arange(-tolerance, tolerance + 1, device=device)
        disc = reach[:, None].square() + reach.square() <= tolerance**2
        self.disc = disc.float().expand(num_classes, 1, -1, -1)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds class ids of shape (N, H, W)."""
        valid = target != IGNORE
        predicted, true = self._boundary(prediction, valid), self._boundary(target, valid)
        self.sums += torch.stack(
            [
                (predicted * self._near(true)).sum((0, 2, 3)),
                predicted.sum((0, 2, 3)),
                (true * self._near(predicted)).sum((0, 2, 3)),
                true.sum((0, 2, 3)),
            ]
        ).to(self.sums.dtype)

    def compute(self) -> float:
        """Mean over the classes that have a boundary in truth or prediction; NaN if none has."""
        precise, predicted, recalled, true = self.sums
        precision, recall = precise / predicted.clamp_min(1), recalled / true.clamp_min(1)
        f1 = 2 * precision * recall / (precision + recall).clamp_min(1e-12)
        return float(f1[(predicted + true) > 0].mean())

    def _boundary(self, ids: Tensor, valid: Tensor) -> Tensor:
        """(N, K, H, W) float: 1 on the inner boundary of each class."""
        of_class = one_hot(ids.where(valid, 0), self.num_classes).movedim(-1, 1).float()
        other = (1 - of_class) * valid[:, None]
        return of_class * valid[:, None] * max_pool2d(other, 3, stride=1, padding=1)

    def _near(self, boundary: Tensor) -> Tensor:
        found = conv2d(
            boundary, self.disc, padding=self.disc.shape[-1] // 2, groups=self.num_classes
        )
        return (found > 0.5).float()
