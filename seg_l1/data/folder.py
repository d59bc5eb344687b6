"""Your own images and masks, in one of the layouts of `seg_l1.data.layout`.

A mask is a single-channel image (grayscale or palette) of the same size as its image; its values
are class ids, 255 = not labeled. `classes.txt` holds a class name per line. Everything is checked
before training, and every bad file is named.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from seg_l1.data.files import UNKNOWN, FileSplit, assemble, file_split, lookup_table
from seg_l1.data.images import dropped_bands
from seg_l1.data.layout import check_training, find
from seg_l1.data.partition import draw
from seg_l1.data.split import SegmentationData
from seg_l1.errors import UserError, first_line, short


def load(
    *,
    root: str,
    num_classes: int | None = None,
    image_size: tuple[int, int] | None = (128, 128),
    channels: int = 3,
    mask_values: Sequence[int] | None = None,
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
        num_classes: None = as many as `classes.txt` names.
        image_size: (H, W) to which everything is resized; None = every image keeps its own size.
        channels: 3 (RGB) or 1 (grayscale).
        mask_values: the pixel value of class 0, 1, ...; None = the class ids themselves.
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
    classes = _classes(folder, num_classes)
    values = range(len(classes)) if mask_values is None else mask_values
    if len(values) != len(classes):
        raise UserError(f"dataset.mask_values: {len(values)} values for {len(classes)} classes")
    if len(set(values)) < len(values):
        raise UserError(f"dataset.mask_values: {list(values)} names a value twice; give each once")
    lookup = lookup_table({value: index for index, value in enumerate(values)})
    found = find(folder, image_suffix=image_suffix, mask_suffix=mask_suffix)
    if not to_score or not found.splits:
        check_training(folder, found)
    sources = {
        split: file_split(folder, pairs, image_size, lookup, channels=channels)
        for split, pairs in found.splits.items()
    }
    cut = partial(
        draw,
        fractions={"val": val_fraction, "test": None if "test" in sources else test_fraction},
        seed=seed,
        group_pattern=group_pattern,
        stratify=stratify,
    )
    given = "val" in sources
    read = _assemble_to_score if to_score else assemble
    data = read(sources, classes, None if given or to_score else cut, memory_mib=memory_mib)
    images = [image for pairs in found.splits.values() for image, _ in pairs]
    data.notes[:0] = [*found.notes, *dropped_bands(images)]
    absent = data.pixel_shares.count(0)
    if absent == len(classes) - 1 and data.unlabeled and len(classes) > 1:
        raise UserError(
            f"{folder}: the training masks hold one class and 255 (not labeled) only. If 255 is"
            " a class there (0/255 masks), give dataset.mask_values=[0,255]."
        )
    if given and (group_pattern is not None or stratify):
        data.notes.append(
            "the splits are given by folders: group_pattern and stratify affect folds only"
        )
    if not to_score:
        data.notes.extend(_unused_fractions(sources, val_fraction, test_fraction))
    return data


def _unused_fractions(
    splits: Collection[str], val_fraction: float | None, test_fraction: float
) -> Iterator[str]:
    """Yields notes on shares that are not drawn, or are drawn beside split folders."""
    if test_fraction and {*splits} != {"train"}:
        yield "the splits are given by folders: test_fraction has no effect"
    if "test" in splits and "val" not in splits and val_fraction is not None:
        share = f"dataset.val_fraction={val_fraction:g}"
        yield f"there is no folder of the split 'val': {share} of train is drawn"


def _assemble_to_score(
    sources: Mapping[str, FileSplit], classes: list[str], _: object, *, memory_mib: float
) -> SegmentationData:
    """Reads the splits that are there; if they are "train" alone, it is called "test"."""
    first = "train" if "train" in sources else next(iter(sources))
    name = "test" if {*sources} == {"train"} else first
    others = {split: files for split, files in sources.items() if split != first}
    # the statistics are those of "train", of which there need not be one
    data = assemble({"train": sources[first], **others}, classes, None, memory_mib=memory_mib)
    return replace(data, splits={name: data.splits.pop("train"), **data.splits})


def unnamed(count: int) -> list[str]:
    """Returns the names of classes of which the number alone is given."""
    return [f"class_{index}" for index in range(count)]


def _classes(folder: Path, num_classes: int | None) -> list[str]:
    listing = folder / "classes.txt"
    if not listing.is_file():
        if num_classes is None:
            raise UserError(
                f"{listing}: is missing. Write a class name per line, or give"
                " dataset.num_classes=<number>."
            )
        return unnamed(num_classes)
    try:
        lines = listing.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{listing}: is not UTF-8 ({first_line(error)})") from None
    names = [line.strip() for line in lines if line.strip()]
    if num_classes not in (None, len(names)):
        raise UserError(f"{listing}: names {len(names)} classes, dataset.num_classes={num_classes}")
    if not 1 <= len(names) <= UNKNOWN:
        raise UserError(f"{listing}: names {len(names)} classes; expected 1 to {UNKNOWN}")
    for name in names:
        if len(name) > 100 or not name.isprintable():
            raise UserError(f"{listing}: {short(name)} is no name; expected up to 100 letters")
    if len(set(names)) < len(names):
        raise UserError(f"{listing}: names a class twice")
    return names
