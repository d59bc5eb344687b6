"""Your own images: `images/` and `masks/`, or `train/images`, `train/masks`, `val/...`, `test/...`.

A mask is a single-channel image (grayscale or palette) of the same size as its image and with the
same file name up to the suffix; its values are class ids, 255 = not labeled. `classes.txt` holds a
class name per line. Everything is checked before training, and every bad file is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

import numpy as np

from seg_l1.data.files import SUFFIXES, UNKNOWN, assemble, file_split, lookup_table
from seg_l1.data.partition import draw
from seg_l1.data.split import SegmentationData
from seg_l1.errors import UserError, first_line, short

SPLITS = ("train", "val", "test")


def load(
    *,
    root: str,
    num_classes: int | None = None,
    image_size: tuple[int, int] | None = (128, 128),
    channels: int = 3,
    mask_values: Sequence[int] | None = None,
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
        num_classes: None = as many as `classes.txt` names.
        image_size: (H, W) to which everything is resized; None = every image keeps its own size.
        channels: 3 (RGB) or 1 (grayscale).
        mask_values: the pixel value of class 0, 1, ...; None = the class ids themselves.
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
    classes = _classes(folder, num_classes)
    values = range(len(classes)) if mask_values is None else mask_values
    if len(values) != len(classes):
        raise UserError(f"dataset.mask_values: {len(values)} values for {len(classes)} classes")
    if len(set(values)) < len(values):
        raise UserError(f"dataset.mask_values: {list(values)} names a value twice; give each once")
    lookup = lookup_table({value: index for index, value in enumerate(values)})
    sources = {
        split: file_split(folder, pairs, image_size, lookup, channels=channels)
        for split, pairs in _find(folder).items()
    }
    fractions = {"val": val_fraction, "test": test_fraction}

    def draw_splits(names: Sequence[str], presence: np.ndarray) -> dict[str, list[int]]:
        return draw(
            names, presence, fractions, seed=seed, group_pattern=group_pattern, stratify=stratify
        )

    given = "val" in sources
    data = assemble(sources, classes, None if given else draw_splits, memory_mib=memory_mib)
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


def _classes(folder: Path, num_classes: int | None) -> list[str]:
    listing = folder / "classes.txt"
    if not listing.is_file():
        if num_classes is None:
            raise UserError(
                f"{listing}: is missing. Write a class name per line, or give"
                " dataset.num_classes=<number>."
            )
        return [f"class_{index}" for index in range(num_classes)]
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
