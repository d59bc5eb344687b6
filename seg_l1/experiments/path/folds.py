"""K folds of the training images: drawn once, before the first run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from seg_l1.data.partition import group_keys, partition
from seg_l1.data.split import SegmentationData, class_pixels, describe
from seg_l1.errors import UserError


def draw_folds(
    data: SegmentationData,
    folds: int,
    repeats: int,
    *,
    seed: int,
    group_pattern: str | None = None,
    stratify: bool = False,
) -> list[list[int]]:
    """Returns for each repeat and each fold the positions of its validation images, in "train".

    The folds of a repeat are disjoint, hold every training image, and are as equal as groups
    allow: see `data.partition.partition`. Groups are `data.groups`, or by `group_pattern`.

    Raises:
        UserError: if there are fewer images or groups than folds.
    """
    train = data.splits["train"]
    groups = data.groups or None
    if group_pattern is not None:
        groups = group_keys(train.names, group_pattern)
    presence = _presence(data) if stratify else np.zeros((len(train), 0), dtype=bool)
    found: list[list[int]] = []
    for repeat in range(repeats):
        parts = partition(
            groups or train.names,
            presence,
            {str(fold): 1.0 for fold in range(folds)},
            seed=seed + repeat,
            group_pattern="^(.*)$" if groups else None,
            stratify=stratify,
        )
        found += parts.values()
    if not all(found):
        many = f"{len(set(groups))} groups" if groups else f"{len(train)} training images"
        raise UserError(f"path.folds={folds}: there are only {many}")
    return found


def fold_data(data: SegmentationData, validation: Sequence[int]) -> SegmentationData:
    """The data of one fold: `validation` are positions in "train", the others are trained on.

    Statistics of the training images (mean, class shares) are those of the remaining images. The
    test split is left out: it is reserved for the selected network.
    """
    train = data.splits["train"]
    held = set(validation)
    indices = {"train": [i for i in range(len(train)) if i not in held], "val": list(validation)}
    splits = {name: train.subset(chosen) for name, chosen in indices.items()}
    described = describe(splits, data.classes, data.notes)
    return replace(described, indices=indices, resize_mode=data.resize_mode)


def without_test(data: SegmentationData) -> SegmentationData:
    """Returns the data without the test split."""
    return replace(data, splits={k: v for k, v in data.splits.items() if k != "test"})


def _presence(data: SegmentationData) -> np.ndarray:
    """bool (N, K): the classes that each training image shows."""
    train = data.splits["train"]
    masks = (train[[index]][1] for index in range(len(train)))
    return np.concatenate([(class_pixels(m, data.num_classes) > 0).numpy() for m in masks])
