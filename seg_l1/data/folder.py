"""Your own images and masks, in one of the layouts of `seg_l1.data.layout`.

A mask is a picture of the same size as its image. Its values are class ids, 255 = not labeled, or
what `mask_values` says. `classes.txt` holds a class name per line, with or without its color in the
masks. Everything is checked before training, and every bad file is named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from seg_l1.data.assemble import assemble, suggest_classes
from seg_l1.data.bands import COLORS, check_bands
from seg_l1.data.classes import read_classes
from seg_l1.data.files import FileSplit, file_split
from seg_l1.data.images import dropped_bands
from seg_l1.data.layout import check_training, find
from seg_l1.data.mask_values import Key
from seg_l1.data.masks import MaskReading, reading_of
from seg_l1.data.partition import draw
from seg_l1.data.split import SegmentationData
from seg_l1.errors import UserError


def load(
    *,
    root: str,
    num_classes: int | None = None,
    image_size: tuple[int, int] | None = (128, 128),
    channels: int = 3,
    mask_values: Sequence[Any] | str | None = None,
    unlabeled_values: Sequence[Any] | str | None = None,
    mask_threshold: float | None = None,
    image_suffix: str | None = None,
    mask_suffix: str | None = None,
    val_fraction: float | None = 0.2,
    test_fraction: float = 0.0,
    memory_mib: float = 2048,
    seed: int = 0,
    group_pattern: str | None = None,
    stratify: bool = False,
    to_score: bool = False,
) -> SegmentationData:
    """Finds, checks and (if it is small) reads a folder of images and masks.

    Args:
        root: the folder.
        num_classes: None = as many as `classes.txt` names, or as `mask_values` has entries.
        image_size: (H, W) to which everything is resized; None = every image keeps its own size.
        channels: 3 (RGB), 1 (grayscale), or the number of bands that every image has. Images of 16
            bits keep their depth, and must have exactly this many bands.
        mask_values: the values of class 0, 1, ... in the masks, each an id (7), a color ("#c83c3c"
            or [200, 60, 60]) or a list of several; None = the colors of the listing of classes, or
            the class ids themselves. A list of three numbers is a color; in grayscale masks it is
            three ids, if the key can be read so.
        unlabeled_values: a list of the values that are not labeled, or "others" for all that no
            class has. The id 255 is not labeled unless a class has it.
        mask_threshold: of two classes, the value from which on a gray pixel is class 1 (or the
            class with the higher of two `mask_values`), for masks with soft borders.
        image_suffix, mask_suffix: what follows the common part of the names of image and mask; None
            = found, see `layout.find`.
        val_fraction, test_fraction: shares drawn with `seed` from the training pairs where `root`
            has no folders for them; None = no validation.
        memory_mib: a data set up to this size is held in memory as tensors, if it has an
            `image_size`.
        group_pattern, stratify: how `seed` draws; see `partition.partition`.
        to_score: draw nothing, and ask for no training pairs; without split folders all are "test".

    Raises:
        UserError: if the folder, its layout or any of its files is not as described.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"dataset.root: there is no folder '{folder}'. Give dataset.root=<folder>.")
    key = Key.of(mask_values, unlabeled_values, mask_threshold)
    found = find(folder, image_suffix=image_suffix, mask_suffix=mask_suffix)
    if not to_score or not found.splits:
        check_training(folder, found)
    every = [pair for pairs in found.splits.values() for pair in pairs]
    classes, reading = _classes_and_reading(folder, every, num_classes, key)
    images = [image for image, _ in every]
    bits = check_bands(images, channels, to_score=to_score)
    sources = {
        split: file_split(folder, pairs, image_size, reading, channels=channels, bits=bits)
        for split, pairs in found.splits.items()
    }
    if to_score:
        data = _assemble_to_score(sources, classes, memory_mib=memory_mib)
    else:
        cut = partial(
            draw,
            fractions={"val": val_fraction, "test": None if "test" in sources else test_fraction},
            seed=seed,
            group_pattern=group_pattern,
            stratify=stratify,
        )
        cut_now = None if "val" in sources else cut
        data = assemble(sources, classes, cut_now, memory_mib=memory_mib)
        grouped = group_pattern is not None or stratify
        data.notes += _unused_keys(sources, val_fraction, test_fraction, grouped=grouped)
    dropped = dropped_bands(images) if channels in COLORS and bits == 8 else []
    data.notes[:0] = [*found.notes, *dropped]
    return data


def _classes_and_reading(
    folder: Path, pairs: Sequence[tuple[Path, Path]], num_classes: int | None, key: Key
) -> tuple[list[str], MaskReading]:
    """The names of the classes, and what the values of the masks mean."""
    classes, colors = read_classes(
        folder, num_classes, key.mask_values, lambda: suggest_classes(pairs, key)
    )
    if key.mask_values is None and key.threshold is None:
        key = replace(key, mask_values=colors)
    return classes, reading_of(key, len(classes))


def _unused_keys(
    splits: Collection[str], val_fraction: float | None, test_fraction: float, *, grouped: bool
) -> Iterator[str]:
    """Yields notes on keys that draw no split, or draw one beside split folders.

    Args:
        grouped: whether the splits are to be drawn by groups or classes.
    """
    if grouped and "val" in splits:
        yield "the splits are given by folders: group_pattern and stratify affect folds only"
    if test_fraction and {*splits} != {"train"}:
        yield "the splits are given by folders: test_fraction has no effect"
    if "test" in splits and "val" not in splits and val_fraction is not None:
        share = f"dataset.val_fraction={val_fraction:g}"
        yield f"there is no folder of the split 'val': {share} of train is drawn"


def _assemble_to_score(
    sources: Mapping[str, FileSplit], classes: list[str], *, memory_mib: float
) -> SegmentationData:
    """Reads the splits that are there; if they are "train" alone, it is called "test"."""
    first = "train" if "train" in sources else next(iter(sources))
    name = "test" if {*sources} == {"train"} else first
    others = {split: files for split, files in sources.items() if split != first}
    # the statistics are those of "train", of which there need not be one
    data = assemble({"train": sources[first], **others}, classes, None, memory_mib=memory_mib)
    return replace(data, splits={name: data.splits.pop("train"), **data.splits})
