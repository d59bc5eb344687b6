"""Your own images: `images/` and `masks/`, or `train/images`, `train/masks`, `val/...`, `test/...`.

A mask is a picture of the same size as its image and with the same file name up to the suffix. Its
values are class ids, 255 = not labeled, or what `mask_values` says. `classes.txt` holds a class
name per line, with or without its color in the masks. Everything is checked before training, and
every bad file is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unicodedata import normalize

import numpy as np

from seg_l1.data.assemble import assemble, suggest_classes
from seg_l1.data.classes import read_classes
from seg_l1.data.files import SUFFIXES, file_split
from seg_l1.data.mask_values import Key
from seg_l1.data.masks import reading_of
from seg_l1.data.partition import draw
from seg_l1.data.split import SegmentationData
from seg_l1.errors import UserError

SPLITS = ("train", "val", "test")


def load(
    *,
    root: str,
    num_classes: int | None = None,
    image_size: tuple[int, int] | None = (128, 128),
    channels: int = 3,
    mask_values: Sequence[Any] | str | None = None,
    unlabeled_values: Sequence[Any] | str | None = None,
    mask_threshold: float | None = None,
    val_fraction: float = 0.2,
    test_fraction: float = 0.0,
    memory_mib: float = 2048,
    seed: int = 0,
    group_pattern: str | None = None,
    stratify: bool = False,
) -> SegmentationData:
    """Finds, checks and (if it is small) reads a folder of images and masks.

    Args:
        root: the folder.
        num_classes: None = as many as `classes.txt` names, or as `mask_values` has entries.
        image_size: (H, W) to which everything is resized; None = every image keeps its own size.
        channels: 3 (RGB) or 1 (grayscale).
        mask_values: the values of class 0, 1, ... in the masks, each an id (7), a color ("#c83c3c"
            or [200, 60, 60]) or a list of several; None = the colors of the listing of classes, or
            the class ids themselves. A list of three numbers is a color; in grayscale masks it is
            three ids, if the key can be read so.
        unlabeled_values: a list of the values that are not labeled, or "others" for all that no
            class has. The id 255 is not labeled unless a class has it.
        mask_threshold: of two classes, the value from which on a gray pixel is class 1 (or the
            class with the higher of two `mask_values`), for masks with soft borders.
        val_fraction, test_fraction: shares drawn with `seed` where `root` has no split folders.
        memory_mib: a data set up to this size is held in memory as tensors, if it has an
            `image_size`.
        group_pattern, stratify: how `seed` draws; see `partition.partition`.

    Raises:
        UserError: if the folder, its layout or any of its files is not as described.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"dataset.root: there is no folder '{folder}'. Give dataset.root=<folder>.")
    key = Key.of(mask_values, unlabeled_values, mask_threshold)
    found = _find(folder)
    every = [pair for pairs in found.values() for pair in pairs]
    classes, colors = read_classes(
        folder, num_classes, key.mask_values, lambda: suggest_classes(every, key)
    )
    if key.mask_values is None and key.threshold is None:
        key = replace(key, mask_values=colors)
    reading = reading_of(key, len(classes))
    sources = {
        split: file_split(folder, pairs, image_size, reading, channels=channels)
        for split, pairs in found.items()
    }
    fractions = {"val": val_fraction, "test": test_fraction}

    def draw_splits(names: Sequence[str], presence: np.ndarray) -> dict[str, list[int]]:
        return draw(
            names, presence, fractions, seed=seed, group_pattern=group_pattern, stratify=stratify
        )

    given = "val" in sources
    data = assemble(sources, classes, None if given else draw_splits, memory_mib=memory_mib)
    if given and (group_pattern is not None or stratify):
        data.notes.append(
            "the splits are given by folders: group_pattern and stratify affect folds only"
        )
    return data


def _find(folder: Path) -> dict[str, list[tuple[Path, Path]]]:
    """The pairs of each split folder, or those of `folder` itself as "train"."""
    if (folder / "images").is_dir():
        splits = {"train": _pairs(folder)}
    else:
        splits = {s: _pairs(folder / s) for s in SPLITS if (folder / s / "images").is_dir()}
        if not splits:
            raise UserError(
                f"{folder}: holds neither images/ and masks/ nor train/images and train/masks"
            )
        splits = {"train": [], "val": []} | splits
    for split in ("train", "val"):
        if not splits.get(split, True):
            raise UserError(
                f"{folder}: the split '{split}' has no images. Fill {split}/images and"
                f" {split}/masks, or put all pairs into images/ and masks/ (dataset.val_fraction)."
            )
    return {split: pairs for split, pairs in splits.items() if pairs}


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    images, masks = (_by_stem(folder / kind) for kind in ("images", "masks"))
    unpaired = sorted(images.keys() ^ masks.keys())
    if unpaired:
        kind, other = ("masks", "image") if unpaired[0] in images else ("images", "mask")
        for path in (folder / kind).iterdir():
            if path.stem == unpaired[0]:
                suffixes = ", ".join(sorted(SUFFIXES))
                raise UserError(f"{path}: is left out; save it as one of {suffixes}")
        raise UserError(
            f"{folder / kind}: nothing belongs to the {other} '{unpaired[0]}'"
            f" ({len(unpaired)} without a partner in all). Names must agree up to the suffix."
        )
    return [(images[stem], masks[stem]) for stem in sorted(images)]


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: this folder is missing")
    paths: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        stem = normalize("NFC", path.stem)  # macOS stores accents apart from their letters
        if stem in paths:
            raise UserError(f"{path}: '{paths[stem].name}' has the same name; keep one")
        paths[stem] = path
    return paths
