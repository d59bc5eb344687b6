"""Your own images: `images/` and `masks/`, or `train/images`, `train/masks`, `val/...`, `test/...`.

A mask is a single-channel picture (grey or palette) of the same size as its image and with the
same file name up to the suffix; its values are class ids, 255 = not labelled. `classes.txt` holds
a class name per line. Everything is checked before training, and every bad file is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seg_l1.data.split import IGNORE, SegmentationData, Split, TensorSplit, describe
from seg_l1.errors import UserError, first_line

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
SPLITS = ("train", "val", "test")
UNKNOWN = 254
"""Marks a mask value that stands for no class, between reading and refusing it."""


@dataclass(frozen=True)
class FileSplit:
    """A split that is read from the disk whenever it is asked for (see `Split`)."""

    pairs: list[tuple[Path, Path]]
    names: list[str]
    image_size: tuple[int, int]
    channels: int
    lookup: np.ndarray

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        read = [self.read(int(index)) for index in indices]
        return torch.stack([image for image, _ in read]), torch.stack([mask for _, mask in read])

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Returns the pair `index` at `image_size`: bilinear for the image, nearest for the mask.

        Raises:
            UserError: naming the file and what is wrong with it.
        """
        from PIL import Image

        image_path, mask_path = self.pairs[index]
        image, mask = _open(image_path), _open(mask_path)
        if image.size != mask.size:
            raise UserError(
                f"{mask_path}: is {mask.width}x{mask.height} pixels,"
                f" its image {image_path.name} is {image.width}x{image.height}"
            )
        if len(mask.getbands()) != 1 or mask.mode not in ("1", "L", "P"):
            raise UserError(f"{mask_path}: has mode {mask.mode}; expected 8-bit class ids (L or P)")
        ids = self.lookup[np.asarray(mask, dtype=np.uint8)]
        if (ids == UNKNOWN).any():
            values = np.unique(np.asarray(mask, dtype=np.uint8)[ids == UNKNOWN])
            raise UserError(f"{mask_path}: {_bad_values(values, self.lookup)}")
        size, how = (self.image_size[1], self.image_size[0]), Image.Resampling
        image = image.convert("RGB" if self.channels == 3 else "L")
        pixels = np.array(image.resize(size, how.BILINEAR))
        ids = np.array(Image.fromarray(ids).resize(size, how.NEAREST))
        return torch.from_numpy(pixels.reshape(*self.image_size, -1)).movedim(-1, 0), (
            torch.from_numpy(ids)
        )


def load(
    *,
    root: str,
    num_classes: int | None = None,
    image_size: tuple[int, int] = (128, 128),
    channels: int = 3,
    mask_values: Sequence[int] | None = None,
    val_fraction: float = 0.2,
    test_fraction: float = 0.0,
    memory_mib: float = 2048,
    seed: int = 0,
) -> SegmentationData:
    """Finds, checks and (if it is small) reads a folder of images and masks.

    Args:
        root: the folder.
        num_classes: null = as many as `classes.txt` names.
        image_size: (H, W) to which everything is resized.
        channels: 3 (RGB) or 1 (grey).
        mask_values: the pixel value of class 0, 1, ...; null = the class ids themselves.
        val_fraction, test_fraction: shares drawn with `seed` where `root` has no split folders.
        memory_mib: a data set up to this size is held in memory as tensors.

    Raises:
        UserError: if the folder, its layout or any of its files is not as described.
    """
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"dataset.root: there is no folder '{folder}'. Give dataset.root=<folder>.")
    classes = _classes(folder, num_classes)
    lookup = _lookup(len(classes), mask_values)
    pairs = _find(folder, val_fraction, test_fraction, seed)
    splits: dict[str, Split] = {}
    problems: list[str] = []
    pixels = sum(len(found) for found in pairs.values()) * image_size[0] * image_size[1]
    in_memory = pixels * (channels + 1) <= memory_mib * 2**20
    for split, found in pairs.items():
        names = [image.relative_to(folder).as_posix() for image, _ in found]
        files = FileSplit(found, names, tuple(image_size), channels, lookup)
        splits[split], bad = _check(files, in_memory)
        problems += bad
    if problems:
        more = f" ({len(problems)} bad files in all, listed above)" if len(problems) > 1 else ""
        raise UserError(problems[0] + more, details=problems if more else [])
    data = describe(splits, classes, notes=[])
    missing = [n for n, share in zip(classes, data.pixel_shares, strict=True) if share == 0]
    if len(missing) == len(classes) - 1 and data.unlabelled and len(classes) > 1:
        raise UserError(
            f"{folder}: the training masks hold one class and 255 (not labelled) only. If 255 is"
            " a class there (0/255 masks), give dataset.mask_values=[0,255]."
        )
    if missing:
        data.notes.append(f"no training pixel has the class {', '.join(missing)}")
    return data


def _check(files: FileSplit, in_memory: bool) -> tuple[Split, list[str]]:
    """Reads every pair once; returns the split, held in memory if so asked, and what is wrong."""

    def attempt(index: int) -> tuple[Tensor, Tensor] | bool | str:
        try:
            image, mask = files.read(index)
        except UserError as error:
            return str(error)
        return (image, mask) if in_memory else bool((mask != IGNORE).any())

    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(attempt, range(len(files))))
    problems = [outcome for outcome in read if isinstance(outcome, str)]
    if problems:
        return files, problems
    split: Split = files
    labelled = any(read)
    if in_memory:
        images, masks = zip(*read, strict=True)
        split = TensorSplit(torch.stack(images), torch.stack(masks), files.names)
        labelled = bool((split.masks != IGNORE).any())
    first = files.pairs[0][1]
    return split, [] if labelled else [f"{first.parent}: no mask has a labelled pixel (all 255)"]


def _find(
    folder: Path, val_fraction: float, test_fraction: float, seed: int
) -> dict[str, list[tuple[Path, Path]]]:
    if (folder / "images").is_dir():
        pairs = _pairs(folder)
        order = np.random.default_rng(seed).permutation(len(pairs))
        num_test, num_val = (round(share * len(pairs)) for share in (test_fraction, val_fraction))
        cuts = {"test": order[:num_test], "val": order[num_test : num_test + num_val]}
        cuts["train"] = order[num_test + num_val :]
        found = {split: [pairs[i] for i in sorted(cuts[split])] for split in SPLITS}
    else:
        found = {s: _pairs(folder / s) for s in SPLITS if (folder / s / "images").is_dir()}
        if not found:
            raise UserError(
                f"{folder}: holds neither images/ and masks/ nor train/images and train/masks"
            )
    for split in ("train", "val"):
        if not found.get(split):
            raise UserError(
                f"{folder}: the split '{split}' has no images. Fill {split}/images and"
                f" {split}/masks, or put all pairs into images/ and masks/ (dataset.val_fraction)."
            )
    return {split: pairs for split, pairs in found.items() if pairs}


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    images, masks = (_by_stem(folder / kind) for kind in ("images", "masks"))
    lonely = sorted(images.keys() ^ masks.keys())
    if lonely:
        kind, other = ("masks", "image") if lonely[0] in images else ("images", "mask")
        raise UserError(
            f"{folder / kind}: nothing belongs to the {other} '{lonely[0]}'"
            f" ({len(lonely)} without a partner in all). Names must agree up to the suffix."
        )
    return [(images[stem], masks[stem]) for stem in sorted(images)]


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: this folder is missing")
    files = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    found: dict[str, Path] = {}
    for path in sorted(files):
        if path.stem in found:
            raise UserError(f"{path}: '{found[path.stem].name}' has the same name; keep one")
        found[path.stem] = path
    return found


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
        lines = listing.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{listing}: is not UTF-8 ({first_line(error)})") from None
    names = [line.strip() for line in lines if line.strip()]
    if num_classes not in (None, len(names)):
        raise UserError(f"{listing}: names {len(names)} classes, dataset.num_classes={num_classes}")
    if not 1 <= len(names) <= UNKNOWN:
        raise UserError(f"{listing}: names {len(names)} classes; expected 1 to {UNKNOWN}")
    if len(set(names)) < len(names):
        raise UserError(f"{listing}: names a class twice")
    return names


def _lookup(num_classes: int, mask_values: Sequence[int] | None) -> np.ndarray:
    """A table of 256 entries: mask value to class id, `IGNORE` or `UNKNOWN`."""
    values = list(range(num_classes)) if mask_values is None else list(mask_values)
    if len(values) != num_classes:
        raise UserError(f"dataset.mask_values: {len(values)} values for {num_classes} classes")
    lookup = np.full(256, UNKNOWN, dtype=np.uint8)
    lookup[IGNORE] = IGNORE
    lookup[values] = np.arange(num_classes, dtype=np.uint8)
    return lookup


def _bad_values(values: np.ndarray, lookup: np.ndarray) -> str:
    num_classes = int((lookup < UNKNOWN).sum())
    found = ", ".join(map(str, values[:5]))
    return f"holds the value {found}; expected 0 to {num_classes - 1}, or 255 for not labelled"


def _open(path: Path):
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            picture.load()
            return ImageOps.exif_transpose(picture)
    except Exception as error:
        raise UserError(f"{path}: cannot be read as an image ({error})") from None
