"""Wrong labels on purpose: how a loss, a penalty or a network bears mistakes in the masks.

The noise is the symmetric one of Ghosh, Kumar, Sastry (2017): a label is wrong with a given
probability, and then each of the other classes is equally likely. Which labels are wrong together
makes the difference in segmentation:

* "region": all pixels that an image has of a class get the same other class. This is the mistake
  of an annotator who took one class for another, and it does not average out.
* "pixel": each pixel is drawn by itself. A convolutional network shares its weights among pixels,
  most of whose labels around a wrong one are right, and averages over them.

Both give each labeled pixel the same probability. "region" is the default, since masks are drawn,
and classes mistaken, region by region.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from seg_l1.data.labels import IGNORE
from seg_l1.data.split import ClassCounts, SegmentationData, Split, TensorSplit, chunks
from seg_l1.errors import UserError

_STREAM = 2017
"""Keeps the draws apart from others with the same seed."""


@dataclass(frozen=True)
class WrongLabels:
    """A split with some wrong labels, which depend on nothing but the fields (see `Split`).

    A label that is wrong with a small `share` has the same wrong class with every larger one.

    Attributes:
        split: with the labels as they are.
        places: of each pair in the listing that the split was drawn from.
        num_classes: K, at least 2.
        share: probability that a label is wrong.
        by: "region" or "pixel".
        seed: draws the wrong labels.
    """

    split: Split
    places: list[int]
    num_classes: int
    share: float
    by: str
    seed: int

    @property
    def names(self) -> list[str]:
        return self.split.names

    @property
    def image_size(self) -> tuple[int, int] | None:
        return self.split.image_size

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        images, masks = self.split[indices]
        return images, self.changed(masks, indices)

    def subset(self, indices: Sequence[int]) -> WrongLabels:
        places = [self.places[index] for index in indices]
        return replace(self, split=self.split.subset(indices), places=places)

    def changed(self, masks: Tensor, indices: Sequence[int]) -> Tensor:
        """Returns the masks (N, H, W) of the pairs `indices`, with their wrong labels."""
        places = [self.places[index] for index in indices]
        pairs = zip(masks.numpy(), places, strict=True)
        return torch.from_numpy(np.stack([self._changed(mask, place) for mask, place in pairs]))

    def _changed(self, mask: np.ndarray, place: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, place, _STREAM])
        if self.by == "region":
            table = np.arange(256, dtype=np.uint8)
            table[: self.num_classes] = self._drawn(rng, table[: self.num_classes])
            return table[mask]
        mask = mask.copy()
        labeled = mask != IGNORE  # the same pixels in the same order if the mask is padded
        mask[labeled] = self._drawn(rng, mask[labeled])
        return mask

    def _drawn(self, rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
        """Draws for each of the labels (n,) whether it is wrong, and then one of the others."""
        wrong = rng.random(len(labels)) < self.share
        others = (labels + rng.integers(1, self.num_classes, len(labels))) % self.num_classes
        return np.where(wrong, others, labels).astype(labels.dtype)


def with_wrong_labels(
    data: SegmentationData, *, share: float, by: str, seed: int
) -> SegmentationData:
    """Returns the data with wrong labels in "train"; the other splits stay as they are.

    Shares of classes are those of the new labels, and a note says how many are wrong. The
    fingerprint stays that of the true labels, by which a run finds its data again. A split in
    memory stays in memory, others are changed when they are read.

    Args:
        share: probability that a label is wrong; 0 = the data as they are.
        by: "region" or "pixel", see this module.
        seed: draws the wrong labels, for each image by its position in the listing of the images
            that train (and val) are drawn from.

    Raises:
        UserError: if there is one class only.
    """
    if not share or "train" not in data.splits:
        return data
    if data.num_classes < 2:
        raise UserError(
            f"dataset.wrong_labels: got {share:g}, but there is one class only"
            f" ({data.classes[0]}), and no other to take for it; give dataset.wrong_labels=0"
        )
    train = data.splits["train"]
    places = data.indices.get("train") or range(len(train))
    wrong = WrongLabels(train, [*places], data.num_classes, share, by, seed)
    counts, different, kept = ClassCounts(data.num_classes), 0, []
    for part in chunks(train):
        masks = train[part][1]
        changed = wrong.changed(masks, part)
        counts.add(changed)
        different += int((changed != masks).sum())
        if isinstance(train, TensorSplit):
            kept.append(changed)
    split = replace(train, masks=torch.cat(kept)) if isinstance(train, TensorSplit) else wrong
    note = (
        f"{100 * different / max(1, counts.labeled):.1f} % of the labeled training pixels were"
        f" given a wrong class (dataset.wrong_labels={share:g} by {by})"
    )
    return replace(
        data,
        splits={**data.splits, "train": split},
        pixel_shares=counts.pixel_shares,
        present_shares=counts.present_shares,
        notes=[*data.notes, note, *_moved(data, counts.pixel_shares)],
    )


def _moved(data: SegmentationData, shares: Iterable[float]) -> list[str]:
    """Notes on classes that have training pixels by wrong labels alone, or that lost all."""
    rows = [*zip(data.classes, data.pixel_shares, shares, strict=True)]
    gained = [name for name, before, now in rows if now and not before]
    lost = [name for name, before, now in rows if before and not now]
    notes = [f"wrong labels alone have the class {', '.join(gained)}"] if gained else []
    return notes + ([f"wrong labels leave no pixel of {', '.join(lost)}"] if lost else [])
