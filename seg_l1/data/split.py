"""The common form of all data sets: splits of images and masks, in memory or on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor


class Split(Protocol):
    """Pairs of image and mask, fetched by lists of indices so that a whole batch is one call.

    `image_size` is the (H, W) of every pair; None where each has its own, so that (H, W) is the
    largest of those asked for and the others are padded at the right and at the bottom, images
    with 0 and masks with `IGNORE`.
    """

    @property
    def names(self) -> list[str]: ...

    @property
    def image_size(self) -> tuple[int, int] | None: ...

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Returns images (N, C, H, W) and masks (N, H, W) uint8, which hold class ids or `IGNORE`.

        Images are uint8, or int32 with values up to 65535 if they have 16 bits: torch has few
        operations for uint16, in which they are stored.
        """
        ...

    def subset(self, indices: Sequence[int]) -> Split:
        """Returns the split of these pairs alone."""
        ...


@dataclass
class TensorSplit:
    """A split held in memory: uint8 or uint16 `images` (N, C, H, W), uint8 `masks` (N, H, W)."""

    images: Tensor
    masks: Tensor
    names: list[str]

    @property
    def image_size(self) -> tuple[int, int]:
        _, height, width = self.masks.shape
        return height, width

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = torch.as_tensor(indices)
        return fetched(self.images[chosen]), self.masks[chosen]

    def subset(self, indices: Sequence[int]) -> TensorSplit:
        chosen = torch.as_tensor(indices)
        names = [self.names[index] for index in indices]
        return TensorSplit(self.images[chosen], self.masks[chosen], names)


def fetched(images: Tensor) -> Tensor:
    """Returns images as a split gives them: uint8 as they are, uint16 as int32."""
    return images.int() if images.dtype == torch.uint16 else images


def stored(images: Tensor) -> Tensor:
    """Returns images of a split as files hold them: uint8 as they are, int32 as uint16."""
    return images.to(torch.uint16) if images.dtype == torch.int32 else images


@dataclass
class SegmentationData:
    """A data set ready to train on.

    Attributes:
        splits: "train", "val" and, where there is one, "test".
        classes: K names.
        mean, std: per channel, of the training images divided by 255, also of those of 16 bits.
        pixel_shares: training pixels of each class as a share of all labeled ones.
        unlabeled: share of the training pixels without a label.
        fingerprint: hash of names, images and masks of all splits.
        notes: remarks that a person should read.
        present_shares: training pixels of each class as a share of the labeled ones of the images
            that show it, 0 for a class that none shows (for the median frequencies of Eigen &
            Fergus 2015).
        indices: for every split that was drawn, its positions in the listing that it was drawn
            from; empty where the splits were given.
        resize_mode: how an image gets the size that the network expects: "resize", or "pad" (with
            0, evenly on all sides).
        groups: for every training image the group that folds keep together; empty where each image
            stands alone.
        bits: of each channel of an image, 8 or 16.
    """

    splits: dict[str, Split]
    classes: list[str]
    mean: list[float]
    std: list[float]
    pixel_shares: list[float]
    unlabeled: float
    fingerprint: str
    notes: list[str] = field(default_factory=list)
    present_shares: list[float] = field(default_factory=list)
    indices: dict[str, list[int]] = field(default_factory=dict)
    resize_mode: str = "resize"
    groups: list[str] = field(default_factory=list)
    bits: int = 8

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def difference(self, fingerprint: object, classes: Sequence[str] | None) -> str | None:
        """Returns in words how other data differ from these; None if they are the same.

        Args:
            fingerprint, classes: of the other data; None for `classes` = not known.
        """
        if fingerprint != self.fingerprint:
            return (
                "it was trained on other data than dataset.root holds now; give"
                " dataset.root=<folder> of those"
            )
        if classes is not None and [*classes] != self.classes:
            names = (", ".join(map(str, some)) for some in (classes, self.classes))
            return (
                "its classes are {}, and those of the data are {} now; write its names into"
                " classes.txt again".format(*names)
            )
        return None


def describe(
    splits: Mapping[str, Split], classes: list[str], notes: Sequence[str] = ()
) -> SegmentationData:
    """Measures the training split and fingerprints all splits, in chunks that fit in memory."""
    names = "\n".join(name for s in splits.values() for name in s.names)
    digest = hashlib.sha256(names.encode(errors="surrogateescape"))
    total = squares = torch.zeros((), dtype=torch.float64)
    pixels, bits, counts = 0, 8, ClassCounts(len(classes))
    for name, split in splits.items():
        for places in chunks(split):
            images, masks = split[places]
            digest.update(stored(images).contiguous().numpy().data)
            digest.update(masks.contiguous().numpy().data)
            if name == "train":
                bits = 8 if images.dtype == torch.uint8 else 16
                scaled = images.to(torch.float64) / 255
                total = total + scaled.sum((0, 2, 3))
                squares = squares + scaled.square().sum((0, 2, 3))
                pixels += masks.numel()
                counts.add(masks)
    mean = total / pixels
    std = (squares / pixels - mean.square()).clamp_min(1e-6).sqrt()
    return SegmentationData(
        splits=dict(splits),
        classes=classes,
        mean=mean.tolist(),
        std=std.tolist(),
        pixel_shares=counts.pixel_shares,
        unlabeled=1 - counts.labeled / pixels,
        fingerprint=digest.hexdigest()[:16],
        notes=list(notes),
        present_shares=counts.present_shares,
        bits=bits,
    )


def chunks(split: Split) -> Iterator[range]:
    """Yields all positions of a split, in parts that fit in memory and need no padding."""
    step = 64 if split.image_size else 1
    for start in range(0, len(split), step):
        yield range(start, min(start + step, len(split)))


class ClassCounts:
    """Counts labeled pixels, in all images and in those that show a class."""

    def __init__(self, num_classes: int) -> None:
        self.pixels = torch.zeros(num_classes, dtype=torch.int64)
        self.in_images = torch.zeros_like(self.pixels)

    def add(self, masks: Tensor) -> None:
        """Counts the masks (N, H, W) of further images."""
        per_image = class_pixels(masks, len(self.pixels))
        self.pixels += per_image.sum(0)
        self.in_images += (per_image.sum(1, keepdim=True) * (per_image > 0)).sum(0)

    @property
    def labeled(self) -> int:
        return int(self.pixels.sum())

    @property
    def pixel_shares(self) -> list[float]:
        """See `SegmentationData`."""
        shares: list[float] = (self.pixels / self.pixels.sum().clamp_min(1)).tolist()
        return shares

    @property
    def present_shares(self) -> list[float]:
        """See `SegmentationData`."""
        shares: list[float] = (self.pixels / self.in_images.clamp_min(1)).tolist()
        return shares


def class_pixels(masks: Tensor, num_classes: int) -> Tensor:
    """Counts the pixels of each class in uint8 masks (N, H, W): int64 (N, num_classes)."""
    rows = 256 * torch.arange(len(masks)).view(-1, 1, 1) + masks
    counts = torch.bincount(rows.flatten(), minlength=256 * len(masks))
    return counts.view(-1, 256)[:, :num_classes]
