"""Metrics pooled over a whole split: confusion matrix, calibration, boundaries."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, pad

from seg_l1.data.labels import IGNORE


class ConfusionMatrix:
    """Counts of (truth, prediction) over all labeled pixels seen since `reset`.

    Attributes:
        counts: int64 (K, K), truth along axis 0.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds class ids of shape (N, H, W)."""
        classes = len(self.counts)
        unlabeled = classes**2  # a last bin, which is cut off
        pairs = (classes * target.long() + prediction).where(target != IGNORE, unlabeled)
        bins = torch.bincount(pairs.flatten(), minlength=unlabeled + 1)
        self.counts += bins[:-1].view(classes, classes)

    def load(self, counts: Tensor) -> None:
        """Goes on from saved `counts`."""
        self.reset()
        self.counts += counts.to(self.counts.device)

    def reset(self) -> None:
        """Starts again at 0; tensors of counts that were handed out keep their numbers."""
        self.counts = torch.zeros_like(self.counts)


def iou_per_class(counts: Tensor) -> Tensor:
    """Returns |truth ∩ prediction| / |truth ∪ prediction| per class; NaN for a class in neither."""
    hit = counts.diag().double()
    return hit / (counts.sum(0) + counts.sum(1) - hit)


def scores(counts: Tensor) -> dict[str, float]:
    """Returns mIoU, mean Dice (over classes in truth or prediction) and pixel accuracy."""
    hit = counts.diag().double()
    return {
        "miou": float(iou_per_class(counts).nanmean()),
        "dice": float((2 * hit / (counts.sum(0) + counts.sum(1))).nanmean()),
        "pixel_accuracy": float(hit.sum() / counts.sum()),
    }


def per_class(counts: Tensor) -> dict[str, list[float]]:
    """Returns iou, dice, precision, recall and true pixels per class; NaN where undefined."""
    hit, true, predicted = counts.diag().double(), counts.sum(1), counts.sum(0)
    return {
        "iou": iou_per_class(counts).tolist(),
        "dice": (2 * hit / (true + predicted)).tolist(),
        "precision": (hit / predicted).tolist(),
        "recall": (hit / true).tolist(),
        "pixels": true.tolist(),
    }


class CalibrationError:
    """Expected calibration error (Guo et al., 2017): Σ_b share_b·|accuracy_b − confidence_b|.

    The confidence of a pixel is its largest softmax probability; bins b divide (0, 1] evenly.
    Pooled over the valid pixels of the split, as sums per bin.
    """

    def __init__(self, bins: int = 15) -> None:
        self.bins = bins
        self.sums = torch.zeros(3, bins, dtype=torch.float64)

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Adds logits (N, K, H, W) with class ids (N, H, W)."""
        valid = target != IGNORE
        best, prediction = logits.float().max(1)
        confidence = (best - logits.float().logsumexp(1)).exp()[valid]
        correct = (prediction == target)[valid].float()
        bins = (confidence * self.bins).ceil().long().clamp(1, self.bins) - 1
        for sums, weights in zip(self.sums, (None, correct, confidence), strict=True):
            sums += torch.bincount(bins, weights, minlength=self.bins).cpu()

    def compute(self) -> float:
        """NaN without a valid pixel."""
        count, correct, confidence = self.sums
        return float((correct - confidence).abs().sum() / count.sum())


class BoundaryIoU:
    """Boundary IoU (Cheng et al., 2021): the IoU of the bands along the boundaries.

    The band of class c is its pixels with another class at most `tolerance` rows and columns away
    (the outside of the image and unlabeled pixels are no other class). Pooled over the split, mean
    over the classes that have a band in truth or prediction. A tolerance of 0 counts as 1.
    """

    def __init__(
        self, num_classes: int, tolerance: int = 1, device: torch.device | str = "cpu"
    ) -> None:
        self.num_classes, self.tolerance = num_classes, tolerance
        self.sums = torch.zeros(3, num_classes, dtype=torch.int64, device=device)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds class ids of shape (N, H, W)."""
        valid = target != IGNORE
        reach = max(1, self.tolerance)
        predicted, true = (_boundary(ids, valid, reach) for ids in (prediction, target))
        both = predicted[predicted == true]
        for sums, ids in zip(self.sums, (both, predicted, true), strict=True):
            sums += torch.bincount(ids[ids >= 0], minlength=self.num_classes)

    def compute(self) -> float:
        """NaN if no class has a boundary."""
        both, predicted, true = self.sums.double()
        return float((both / (predicted + true - both)).nanmean())


class BoundaryF1:
    """Boundary F1 (Csurka et al., 2013), per class, pooled over the split, mean over classes.

    A pixel of class c is on c's boundary if one of its 8 neighbors has another class (the outside
    of the image and unlabeled pixels are no other class). Precision is the share of predicted
    boundary pixels with a true one within `tolerance` pixels (Euclidean), recall the reverse.
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
        """Returns where `edges` has a pixel of the same class in `others` within the tolerance."""
        reach, (height, width) = self.tolerance, edges.shape[-2:]
        padded = pad(others, (reach, reach, reach, reach), value=-1)
        near = torch.zeros_like(edges, dtype=torch.bool)
        for down in range(-reach, reach + 1):
            for right in range(-reach, reach + 1):
                if down**2 + right**2 <= reach**2:
                    top, left = reach + down, reach + right
                    near |= padded[:, top : top + height, left : left + width] == edges
        return near & (edges >= 0)


def _boundary(ids: Tensor, valid: Tensor, reach: int = 1) -> Tensor:
    """Returns the class id of pixels near a valid pixel of another class, −1 elsewhere.

    Near means at most `reach` rows and columns away.
    """
    numbers, window = ids[:, None].float(), (2 * reach + 1, 1, reach)
    highest = max_pool2d(numbers.masked_fill(~valid[:, None], -torch.inf), *window)
    lowest = -max_pool2d((-numbers).masked_fill(~valid[:, None], -torch.inf), *window)
    differs = ((highest > numbers) | (lowest < numbers))[:, 0]
    return ids.where(differs & valid, -1)
