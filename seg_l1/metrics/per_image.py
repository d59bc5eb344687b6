"""Scores of every image by itself, which show where a network fails."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seg_l1.data.labels import IGNORE


@dataclass(frozen=True)
class ImageScores:
    """Scores of N images, each over its labeled pixels.

    A class occurs in an image if a labeled pixel has it in the mask or in the prediction. The mIoU
    of an image is the mean of the IoU over the classes that occur in it. The mean of these mIoU is
    not the mIoU of the split, which is computed from the pixels of all images together.

    Attributes:
        labeled: int64 (N,), labeled pixels.
        accuracy: float64 (N,), share of the labeled pixels whose class is predicted; NaN where no
            pixel is labeled.
        iou: float64 (N, K), |mask ∩ prediction| / |mask ∪ prediction| per class; NaN for a class
            that does not occur.
    """

    labeled: Tensor
    accuracy: Tensor
    iou: Tensor

    @property
    def miou(self) -> Tensor:
        """float64 (N,), NaN where no pixel is labeled."""
        return self.iou.nanmean(1)

    def worst_first(self) -> list[int]:
        """Returns image indices, lowest mIoU first; ties in order, images without an mIoU last."""
        return torch.argsort(self.miou, stable=True).tolist()


class PerImage:
    """Collects the `ImageScores` of images that come in batches.

    Args:
        count: images in all.
        num_classes: K.
    """

    def __init__(self, count: int, num_classes: int) -> None:
        # made at once: a tensor kept per batch would hold on to the memory freed around it
        self._labeled = torch.zeros(count, dtype=torch.int64)
        self._accuracy = torch.zeros(count, dtype=torch.float64)
        self._iou = torch.zeros(count, num_classes, dtype=torch.float64)
        self._seen = 0

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Adds class ids of shape (N, H, W)."""
        count, classes = len(target), self._iou.shape[1]
        valid = target != IGNORE
        first_bin = classes * torch.arange(count, device=target.device).view(-1, 1, 1)

        def pixels(ids: Tensor, where: Tensor) -> Tensor:
            bins = torch.bincount((first_bin + ids.long())[where], minlength=count * classes)
            return bins.view(count, classes).cpu()

        true, predicted = pixels(target, valid), pixels(prediction, valid)
        hit = pixels(target, valid & (prediction == target)).double()
        labeled = true.sum(1)
        rows = slice(self._seen, self._seen + count)
        self._labeled[rows], self._accuracy[rows] = labeled, hit.sum(1) / labeled
        self._iou[rows] = hit / (true + predicted - hit)
        self._seen += count

    def compute(self) -> ImageScores:
        """Returns the scores of the images so far, in the order of the updates."""
        seen = slice(self._seen)
        return ImageScores(self._labeled[seen], self._accuracy[seen], self._iou[seen])
