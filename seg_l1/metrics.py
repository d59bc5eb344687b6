"""Metrics pooled over a whole split: one confusion matrix, and boundary counts."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

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
        self.num_classes, self.tolerance = num_classes, tolerance
        self.sums = torch.zeros(4, num_classes, dtype=torch.int64, device=device)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds class ids of shape (N, H, W)."""
        valid = target != IGNORE
        predicted, true = _boundary(prediction, valid), _boundary(target, valid)
        self.sums += torch.stack(
            [
                self._count(predicted[self._near(predicted, true)]),
                self._count(predicted[predicted >= 0]),
                self._count(true[self._near(true, predicted)]),
                self._count(true[true >= 0]),
            ]
        )

    def compute(self) -> float:
        """Mean over the classes that have a boundary in truth or prediction; NaN if none has."""
        precise, predicted, recalled, true = self.sums.double()
        precision, recall = precise / predicted.clamp_min(1), recalled / true.clamp_min(1)
        f1 = 2 * precision * recall / (precision + recall).clamp_min(1e-12)
        return float(f1[(predicted + true) > 0].mean())

    def _count(self, ids: Tensor) -> Tensor:
        return torch.bincount(ids, minlength=self.num_classes)

    def _near(self, edges: Tensor, others: Tensor) -> Tensor:
        """Where `edges` has a pixel of the same class in `others` within the tolerance."""
        reach, (height, width) = self.tolerance, edges.shape[-2:]
        padded = pad(others, (reach, reach, reach, reach), value=-1)
        found = torch.zeros_like(edges, dtype=torch.bool)
        for down in range(-reach, reach + 1):
            for right in range(-reach, reach + 1):
                if down**2 + right**2 <= reach**2:
                    top, left = reach + down, reach + right
                    found |= padded[:, top : top + height, left : left + width] == edges
        return found & (edges >= 0)


def _boundary(ids: Tensor, valid: Tensor) -> Tensor:
    """The class id where a valid neighbour has another one, −1 elsewhere."""
    numbers = ids[:, None].float()
    highest = max_pool2d(numbers.masked_fill(~valid[:, None], -torch.inf), 3, 1, 1)
    lowest = -max_pool2d((-numbers).masked_fill(~valid[:, None], -torch.inf), 3, 1, 1)
    differs = ((highest > numbers) | (lowest < numbers))[:, 0]
    return ids.where(differs & valid, -1)
