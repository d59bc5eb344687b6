"""The common form of all data sets: splits of images and masks, in memory or on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

IGNORE = 255
"""The mask value of a pixel that has no label; it counts in no loss and in no metric."""


class Split(Protocol):
    """Pairs of image and mask, fetched by lists of indices so that a whole batch is one call."""

    names: list[str]

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns uint8 images (N, C, H, W) and uint8 masks (N, H, W) of class ids or `IGNORE`."""
        ...


@dataclass
class TensorSplit:
    """A split held in memory: uint8 `images` (N, C, H, W) and `masks` (N, H, W)."""

    images: Tensor
    masks: Tensor
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = torch.as_tensor(indices)
        return self.images[chosen], self.masks[chosen]


@dataclass
class SegmentationData:
    """A data set ready to train on.

    `mean` and `std` are per channel, of the training images scaled to [0, 1]; `pixel_shares` are
    the training pixels of each class as a share of all labelled ones, `unlabelled` the share of
    the others; `notes` are remarks that a person should read.
    """

    splits: dict[str, Split]
    classes: list[str]
    mean: list[float]
    std: list[float]
    pixel_shares: list[float]
    unlabelled: float
    fingerprint: str
    notes: list[str] = field(default_factory=list)

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def num_classes(self) -> int:
        return len(self.classes)


def describe(splits: dict[str, Split], classes: list[str], notes: list[str]) -> SegmentationData:
    """Measures the training split and fingerprints all, in chunks that fit in memory."""
    import hashlib

    digest = hashlib.sha256("\n".join(name for s in splits.values() for name in s.names).encode())
    total = squares = 0.0
    pixels = 0
    counts = torch.zeros(256, dtype=torch.int64)
    for name, split in splits.items():
        for start in range(0, len(split), 64):
            images, masks = split[range(start, min(start + 64, len(split)))]
            digest.update(images.contiguous().numpy().data)
            digest.update(masks.contiguous().numpy().data)
            if name == "train":
                scaled = images.to(torch.float64) / 255
                total = total + scaled.sum((0, 2, 3))
                squares = squares + scaled.square().sum((0, 2, 3))
                pixels += masks.numel()
                counts += torch.bincount(masks.flatten(), minlength=256)
    mean = total / pixels
    std = (squares / pixels - mean.square()).clamp_min(1e-6).sqrt()
    counts = counts[: len(classes)]
    return SegmentationData(
        splits=splits,
        classes=classes,
        mean=mean.tolist(),
        std=std.tolist(),
        pixel_shares=(counts / counts.sum().clamp_min(1)).tolist(),
        unlabelled=1 - float(counts.sum()) / pixels,
        fingerprint=digest.hexdigest()[:16],
        notes=notes,
    )
