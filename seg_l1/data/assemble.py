"""From pairs of files to a data set: checked, held in memory if small, cut into splits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from seg_l1.data.files import FileSplit, open_mask
from seg_l1.data.mask_census import Census, FileValues
from seg_l1.data.mask_check import check_masks
from seg_l1.data.mask_remedies import number_of_classes
from seg_l1.data.mask_values import Key
from seg_l1.data.masks import count_bytes, pixels_of
from seg_l1.data.split import SegmentationData, Split, TensorSplit, describe
from seg_l1.data.workers import follow_parent
from seg_l1.errors import UserError

MANY = 256
"""From this number of pairs on, several processes read them."""


@dataclass(frozen=True)
class _Pair:
    """A pair that was read, as numpy arrays and plain types: tensors from workers hold files open.

    Attributes:
        values: what the mask holds.
        shown: bool (2, K), the classes of the mask as it is stored, and at `image_size`.
        pixels: image and mask, or None.
    """

    values: FileValues
    shown: np.ndarray
    pixels: tuple[np.ndarray, np.ndarray] | None


def assemble(
    sources: Mapping[str, FileSplit],
    classes: list[str],
    draw: Callable[[list[str], np.ndarray], dict[str, list[int]]] | None,
    *,
    memory_mib: float,
) -> SegmentationData:
    """Checks every file, holds a small data set in memory, and draws splits if there are none.

    Args:
        sources: "train" and further splits; at least one pair each, all with one reading of masks.
        draw: (names, bool (N, K) presence of the classes) -> the positions of each split that
            "train" is cut into; None = the sources are the splits.
        memory_mib: a data set up to this size is held in memory as tensors.

    Raises:
        UserError: naming every file that is not as it should be; whatever `draw` raises.
    """
    size = sum(
        len(files) * (files.channels * files.bits // 8 + 1) * math.prod(files.image_size)
        if files.image_size
        else float("inf")
        for files in sources.values()
    )
    pairs, sources, notes = _read_all(sources, classes, keep=size <= memory_mib * 2**20)
    splits = {name: _split(sources[name], read) for name, read in pairs.items()}
    shown = {name: np.stack([pair.shown for pair in read], 1) for name, read in pairs.items()}
    notes += _lost(sources["train"].image_size, np.concatenate([*shown.values()], 1), classes)
    indices = {}
    if draw is not None:
        whole, present = splits.pop("train"), shown.pop("train")
        indices = draw(whole.names, present[1])
        splits = {part: whole.subset(chosen) for part, chosen in indices.items()} | splits
        shown |= {part: present[:, chosen] for part, chosen in indices.items()}
    for name, present in shown.items():
        if not present[1].any():
            masks = sources["train" if name in indices else name].pairs[0][1].parent
            raise UserError(f"{masks}: no mask of '{name}' has a labeled pixel (all 255)")
    data = describe(splits, classes, notes)
    stored = shown["train"][0].any(0)
    missing = [name for name, there in zip(classes, stored, strict=True) if not there]
    if missing:
        data.notes.append(f"no training pixel has the class {', '.join(missing)}")
    return replace(data, indices=indices)


def suggest_classes(pairs: Sequence[tuple[Path, Path]], key: Key) -> str:
    """Returns overrides that read the masks where no file lists the classes; "" if none do."""
    every = []
    for _, path in pairs:
        try:
            mask, lossy = open_mask(path)
            every.append(FileValues.of(path, pixels_of(mask, path), lossy=lossy))
        except (UserError, OSError):
            return ""  # is named when the masks are read
    return number_of_classes(Census.of(every), key)


def _read_all(
    sources: Mapping[str, FileSplit], classes: Sequence[str], *, keep: bool
) -> tuple[dict[str, list[_Pair]], Mapping[str, FileSplit], list[str]]:
    """Reads every pair.

    Returns:
        The pairs of each source; the sources, with the reading of masks that they were read with;
        notes on this.
    """
    read = {name: _read(files, len(classes), keep=keep) for name, files in sources.items()}
    problems = [pair for part in read.values() for pair in part if isinstance(pair, str)]
    pairs = {
        name: [pair for pair in part if isinstance(pair, _Pair)] for name, part in read.items()
    }
    every = [pair.values for part in pairs.values() for pair in part]
    given = reading = sources["train"].reading
    notes: list[str] = []
    try:
        if every:
            reading, notes = check_masks(every, given, classes)
    except UserError as error:
        if not problems:
            raise
        problems += error.details or [str(error)]
    if problems:
        more = f" ({len(problems)} bad files in all, listed above)" if len(problems) > 1 else ""
        raise UserError(problems[0] + more, details=problems if more else [])
    if reading is given:
        return pairs, sources, notes
    sources = {name: replace(files, reading=reading) for name, files in sources.items()}
    pairs, sources, _ = _read_all(sources, classes, keep=keep)
    return pairs, sources, notes


def _read(files: FileSplit, num_classes: int, *, keep: bool) -> list[_Pair | str]:
    """Reads every pair of a split, with as many processes as torch has threads."""
    workers = torch.get_num_threads() if len(files) >= MANY else 0
    chunks = [range(start, min(start + 64, len(files))) for start in range(0, len(files), 64)]
    loader: DataLoader[Any] = DataLoader(
        _Examined(files, num_classes, keep),
        sampler=chunks,
        batch_size=None,
        collate_fn=list,
        num_workers=workers if workers > 1 else 0,
        generator=torch.Generator(),  # otherwise it would draw from the global one
        worker_init_fn=follow_parent,
    )
    return [result for chunk in loader for result in chunk]


@dataclass(frozen=True)
class _Examined(Dataset[Any]):
    """What was read of each pair, or an error message."""

    files: FileSplit
    num_classes: int
    keep: bool

    def __getitem__(self, indices: Sequence[int]) -> list[_Pair | str]:
        return [self._examine(index) for index in indices]

    def _examine(self, index: int) -> _Pair | str:
        try:
            picture, pixels, lossy = self.files.open_pair(index)
            values = FileValues.of(self.files.pairs[index][1], pixels, lossy=lossy)
            stored = self.files.reading.ids(pixels)
            image, mask = (part.numpy() for part in self.files.tensors(picture, stored))
        except (UserError, OSError) as error:
            return str(error)
        before = count_bytes(stored)
        after = before if mask.shape == stored.shape else count_bytes(mask)
        shown = np.stack([before, after])[:, : self.num_classes] > 0
        return _Pair(values, shown, (image, mask) if self.keep else None)


def _split(files: FileSplit, pairs: Sequence[_Pair]) -> Split:
    """The split, in memory if its pixels were kept."""
    kept = [pair.pixels for pair in pairs if pair.pixels is not None]
    if not kept:
        return files
    images, masks = (torch.from_numpy(np.stack(part)) for part in zip(*kept, strict=True))
    return TensorSplit(images, masks, files.names)


def _lost(size: tuple[int, int] | None, shown: np.ndarray, classes: Sequence[str]) -> list[str]:
    """A note on classes that masks have as they are stored, bool (2, N, K), but not at `size`."""
    stored, lost = shown[0].sum(0), (shown[0] & ~shown[1]).sum(0)
    parts = [
        f"{name} in {gone} of {there} masks"
        for name, there, gone in zip(classes, stored, lost, strict=True)
        if gone
    ]
    if size is None or not parts:
        return []
    return [
        f"image_size {size[0]}x{size[1]} (height x width) loses {', '.join(parts)};"
        " dataset.image_size=null or a larger one keeps them"
    ]
