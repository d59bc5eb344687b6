"""Data sets of image and mask files: reading, checking, holding in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader, Dataset

from seg_l1.data.images import as_tensor, open_picture
from seg_l1.data.resample import resize_ids
from seg_l1.data.split import IGNORE, SegmentationData, Split, TensorSplit, describe
from seg_l1.data.workers import follow_parent
from seg_l1.errors import UserError

MANY = 256
"""From this number of pairs on, several processes read them."""

UNKNOWN = 254
"""Marks a mask value that is no class, between reading and refusing it."""


@dataclass(frozen=True)
class FileSplit:
    """A split that is read from disk at each access (see `Split`).

    Attributes:
        pairs: the files of image and mask.
        names: a name per pair.
        image_size: (H, W) to which pairs are resized; None = each keeps its own size.
        channels: 3 (RGB) or 1 (grayscale).
        lookup: uint8 (256,), mask value -> class id, see `lookup_table`.
        upright: whether to apply the EXIF orientation of an image.
    """

    pairs: list[tuple[Path, Path]]
    names: list[str]
    image_size: tuple[int, int] | None
    channels: int
    lookup: np.ndarray
    upright: bool = True

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        read = [self.read(int(index)) for index in indices]
        images, masks = [image for image, _ in read], [mask for _, mask in read]
        if self.image_size is None:
            height, width = (max(mask.shape[axis] for mask in masks) for axis in (0, 1))
            rest = [(0, width - mask.shape[1], 0, height - mask.shape[0]) for mask in masks]
            images = [pad(x, r) for x, r in zip(images, rest, strict=True)]
            masks = [pad(y, r, value=IGNORE) for y, r in zip(masks, rest, strict=True)]
        return torch.stack(images), torch.stack(masks)

    def subset(self, indices: Sequence[int]) -> FileSplit:
        pairs = [self.pairs[index] for index in indices]
        return replace(self, pairs=pairs, names=[self.names[index] for index in indices])

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Returns the pair `index` at `image_size`: bilinear for the image, nearest for the mask.

        Raises:
            UserError: naming the file and what is wrong with it.
        """
        image_path, mask_path = self.pairs[index]
        image = open_picture(image_path, self.upright)
        mask = open_picture(mask_path, self.upright, mask=True)
        if image.size != mask.size:
            turned = "" if image.size != mask.size[::-1] else _turned(image_path, mask_path)
            raise UserError(
                f"{mask_path}: is {mask.width}x{mask.height} pixels, its image {image_path.name} is"
                f" {image.width}x{image.height}{turned}. Give both the same size."
            )
        if mask.mode not in ("1", "L", "P"):
            raise UserError(
                f"{mask_path}: has mode {mask.mode}; expected 8-bit class ids (L or P), so save it"
                " as a grayscale or palette PNG"
            )
        if mask_path.suffix.lower() in (".jpg", ".jpeg"):
            raise UserError(f"{mask_path}: JPEG changes class ids; save masks as PNG")
        ids = self.lookup[np.asarray(mask, dtype=np.uint8)]
        if (ids == UNKNOWN).any():
            values = np.unique(np.asarray(mask, dtype=np.uint8)[ids == UNKNOWN])
            raise UserError(f"{mask_path}: {_bad_values(values, self.lookup)}")
        ids = resize_ids(ids, self.image_size or ids.shape)
        return as_tensor(image, self.channels, self.image_size), torch.from_numpy(ids)


def assemble(
    sources: Mapping[str, FileSplit],
    classes: list[str],
    draw: Callable[[list[str], np.ndarray], dict[str, list[int]]] | None,
    *,
    memory_mib: float,
) -> SegmentationData:
    """Checks every file, holds a small data set in memory, and draws splits if there are none.

    Args:
        sources: "train" and further splits; at least one pair each.
        draw: (names, bool (N, K) presence of the classes) -> the positions of each split that
            "train" is cut into; None = the sources are the splits.
        memory_mib: a data set up to this size is held in memory as tensors.

    Raises:
        UserError: naming every file that is not as it should be; whatever `draw` raises.
    """
    size = sum(
        len(files) * (files.channels + 1) * files.image_size[0] * files.image_size[1]
        if files.image_size
        else float("inf")
        for files in sources.values()
    )
    splits: dict[str, Split] = {}
    presence: dict[str, np.ndarray] = {}
    problems: list[str] = []
    for name, files in sources.items():
        splits[name], presence[name], errors = _check(
            files, len(classes), in_memory=size <= memory_mib * 2**20
        )
        problems += errors
    if problems:
        more = f" ({len(problems)} bad files in all, listed above)" if len(problems) > 1 else ""
        raise UserError(problems[0] + more, details=problems if more else [])
    indices = {}
    if draw is not None:
        whole, present = splits.pop("train"), presence.pop("train")
        indices = draw(whole.names, present)
        splits = {part: whole.subset(chosen) for part, chosen in indices.items()} | splits
        presence |= {part: present[chosen] for part, chosen in indices.items()}
    for name, present in presence.items():
        if not present.any():
            masks = sources["train" if name in indices else name].pairs[0][1].parent
            raise UserError(f"{masks}: no mask of '{name}' has a labeled pixel (all 255)")
    data = describe(splits, classes)
    missing = [n for n, share in zip(classes, data.pixel_shares, strict=True) if share == 0]
    if missing:
        data.notes.append(f"no training pixel has the class {', '.join(missing)}")
    return replace(data, indices=indices)


def file_split(
    folder: Path,
    pairs: list[tuple[Path, Path]],
    image_size: Sequence[int] | None,
    lookup: np.ndarray,
    *,
    channels: int = 3,
    upright: bool = True,
) -> FileSplit:
    """Returns the split of `pairs`, named after the images by their path below `folder`."""
    names = [image.relative_to(folder).as_posix() for image, _ in pairs]
    size = None if image_size is None else (image_size[0], image_size[1])
    return FileSplit(pairs, names, size, channels, lookup, upright)


def lookup_table(class_of: Mapping[int, int]) -> np.ndarray:
    """Returns uint8 (256,): mask value to class id or `IGNORE`, and `UNKNOWN` for all others."""
    lookup = np.full(256, UNKNOWN, dtype=np.uint8)
    lookup[IGNORE] = IGNORE
    lookup[list(class_of)] = list(class_of.values())
    return lookup


def _check(
    files: FileSplit, num_classes: int, *, in_memory: bool
) -> tuple[Split, np.ndarray, list[str]]:
    """Reads every pair once, with as many processes as torch has threads.

    Returns:
        The split, in memory if requested; bool (N, K), the classes that each image shows; the
        messages of errors.
    """
    workers = torch.get_num_threads() if len(files) >= MANY else 0
    chunks = [range(start, min(start + 64, len(files))) for start in range(0, len(files), 64)]
    loader: DataLoader[Any] = DataLoader(
        _Examined(files, num_classes, in_memory),
        sampler=chunks,
        batch_size=None,
        collate_fn=list,
        num_workers=workers if workers > 1 else 0,
        generator=torch.Generator(),  # otherwise it would draw from the global one
        worker_init_fn=follow_parent,
    )
    read = [result for chunk in loader for result in chunk]
    problems = [result for result in read if isinstance(result, str)]
    if problems:
        return files, np.zeros(0), problems
    presence, pairs = zip(*read, strict=True)
    split: Split = files
    if in_memory:
        images, masks = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
        split = TensorSplit(images, masks, files.names)
    return split, np.stack(presence), []


@dataclass(frozen=True)
class _Examined(Dataset[Any]):
    """Per pair: an error message, or the classes that it shows (and the pixels, if `keep`).

    All in numpy arrays and plain types: tensors of worker processes keep files open.
    """

    files: FileSplit
    num_classes: int
    keep: bool

    def __getitem__(self, indices: Sequence[int]) -> list[tuple[np.ndarray, Any] | str]:
        return [self._examine(index) for index in indices]

    def _examine(self, index: int) -> tuple[np.ndarray, Any] | str:
        try:
            image, mask = (part.numpy() for part in self.files.read(index))
        except (UserError, OSError) as error:
            return str(error)
        present = np.bincount(mask.ravel(), minlength=256)[: self.num_classes] > 0
        return present, (image, mask) if self.keep else None


def _bad_values(values: np.ndarray, lookup: np.ndarray) -> str:
    allowed = np.flatnonzero(lookup[:IGNORE] != UNKNOWN).tolist()
    got = ", ".join(map(str, values[:5]))
    expected = ", ".join(map(str, allowed))
    if allowed == list(range(allowed[0], allowed[-1] + 1)) and len(allowed) > 1:
        expected = f"{allowed[0]} to {allowed[-1]}"
    return f"holds the value {got}; expected {expected}, or 255 for not labeled"


def _turned(*paths: Path) -> str:
    """Names the image whose EXIF orientation swaps width and height, if there is one."""
    for path in paths:
        with Image.open(path) as picture:
            if picture.getexif().get(0x0112, 1) > 4:
                return f" ({path.name} is turned upright, as its EXIF orientation says)"
    return ""
