"""Data sets that are made of files: pairs of image and mask, read, checked, held in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader

from seg_l1.data.split import IGNORE, SegmentationData, Split, TensorSplit, describe
from seg_l1.data.workers import follow_parent
from seg_l1.errors import UserError, first_line

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")
"""What may be in a file of these names; Pillow knows others, one of which starts a program."""

MOST_PIXELS = 2**30
MANY = 256
"""Pairs from which on it pays to read them in several processes."""

UNKNOWN = 254
"""Marks a mask value that stands for no class, between reading and refusing it."""


@dataclass(frozen=True)
class FileSplit:
    """A split that is read from the disk whenever it is asked for (see `Split`).

    `pairs` are the files of image and mask, `lookup` (256,) maps mask values to class ids
    (see `lookup_table`). `upright` obeys the orientation that a camera wrote into the file.
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
        images, masks = zip(*(self.read(int(index)) for index in indices), strict=True)
        if self.image_size is None:
            height, width = (max(mask.shape[axis] for mask in masks) for axis in (0, 1))
            rest = [(0, width - mask.shape[1], 0, height - mask.shape[0]) for mask in masks]
            images = [pad(x, r) for x, r in zip(images, rest, strict=True)]
            masks = [pad(y, r, value=IGNORE) for y, r in zip(masks, rest, strict=True)]
        return torch.stack(images), torch.stack(masks)

    def subset(self, indices: Sequence[int]) -> FileSplit:
        pairs, names = ([listed[i] for i in indices] for listed in (self.pairs, self.names))
        return replace(self, pairs=pairs, names=names)

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Returns the pair `index` at `image_size`: bilinear for the image, nearest for the mask.

        Raises:
            UserError: naming the file and what is wrong with it.
        """
        from PIL import Image

        image_path, mask_path = self.pairs[index]
        image, mask = (open_picture(path, self.upright) for path in (image_path, mask_path))
        if image.size != mask.size:
            turned = "" if image.size != mask.size[::-1] else _turned(image_path, mask_path)
            raise UserError(
                f"{mask_path}: is {mask.width}x{mask.height} pixels, its image {image_path.name} is"
                f" {image.width}x{image.height}{turned}. Give both the same size."
            )
        if mask.mode not in ("1", "L", "P"):
            raise UserError(
                f"{mask_path}: has mode {mask.mode}; expected 8-bit class ids (L or P), so save it"
                " as a grey or palette PNG"
            )
        if mask_path.suffix.lower() in (".jpg", ".jpeg"):
            raise UserError(f"{mask_path}: JPEG changes class ids; save masks as PNG")
        ids = self.lookup[np.asarray(mask, dtype=np.uint8)]
        if (ids == UNKNOWN).any():
            values = np.unique(np.asarray(mask, dtype=np.uint8)[ids == UNKNOWN])
            raise UserError(f"{mask_path}: {_bad_values(values, self.lookup)}")
        height, width = self.image_size or ids.shape
        ids = np.array(Image.fromarray(ids).resize((width, height), Image.Resampling.NEAREST))
        return as_tensor(image, self.channels, self.image_size), torch.from_numpy(ids)


def assemble(
    sources: Mapping[str, FileSplit],
    classes: list[str],
    drawn: Callable[[list[str], np.ndarray], dict[str, list[int]]] | None,
    *,
    memory_mib: float,
) -> SegmentationData:
    """Checks every file, holds a small data set in memory, and draws what is to be drawn.

    Args:
        sources: "train" and further splits; at least one pair each.
        drawn: (names, bool (N, K) presence of the classes) -> the positions of each split that
            "train" is cut into; None = the sources are the splits.
        memory_mib: a data set up to this size is held in memory as tensors.

    Raises:
        UserError: naming every file that is not as it should be; as `drawn` does.
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
        checked = _check(files, len(classes), in_memory=size <= memory_mib * 2**20)
        splits[name], presence[name], bad = checked
        problems += bad
    if problems:
        more = f" ({len(problems)} bad files in all, listed above)" if len(problems) > 1 else ""
        raise UserError(problems[0] + more, details=problems if more else [])
    indices = {}
    if drawn is not None:
        whole, seen = splits.pop("train"), presence.pop("train")
        indices = drawn(whole.names, seen)
        splits = {part: whole.subset(chosen) for part, chosen in indices.items()} | splits
        presence |= {part: seen[chosen] for part, chosen in indices.items()}
    for name, seen in presence.items():
        if not seen.any():
            masks = sources["train" if name in indices else name].pairs[0][1].parent
            raise UserError(f"{masks}: no mask of '{name}' has a labelled pixel (all 255)")
    data = describe(splits, classes, notes=[])
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
    size = None if image_size is None else tuple(image_size)
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

    Returns the split, held in memory if so asked; bool (N, K), the classes that each image shows;
    and what is wrong.
    """

    workers = torch.get_num_threads() if len(files) >= MANY else 0
    chunks = [range(start, min(start + 64, len(files))) for start in range(0, len(files), 64)]
    loader = DataLoader(
        _Examined(files, num_classes, in_memory),
        sampler=chunks,
        batch_size=None,
        collate_fn=list,
        num_workers=workers if workers > 1 else 0,
        generator=torch.Generator(),  # else it draws from everybody's
        worker_init_fn=follow_parent,
    )
    read = [outcome for chunk in loader for outcome in chunk]
    problems = [outcome for outcome in read if isinstance(outcome, str)]
    if problems:
        return files, np.zeros(0), problems
    presence, pairs = zip(*read, strict=True)
    split: Split = files
    if in_memory:
        images, masks = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
        split = TensorSplit(images, masks, files.names)
    return split, np.stack(presence), []


@dataclass(frozen=True)
class _Examined:
    """What reading each pair brought: what is wrong, or the classes seen and, if kept, the pixels.

    All of it plain or numpy's: tensors of worker processes hold files open.
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
        seen = np.bincount(mask.ravel(), minlength=256)[: self.num_classes] > 0
        return seen, (image, mask) if self.keep else None


def _bad_values(values: np.ndarray, lookup: np.ndarray) -> str:
    allowed = np.flatnonzero(lookup[:IGNORE] != UNKNOWN).tolist()
    found = ", ".join(map(str, values[:5]))
    expected = ", ".join(map(str, allowed))
    if allowed == list(range(allowed[0], allowed[-1] + 1)) and len(allowed) > 1:
        expected = f"{allowed[0]} to {allowed[-1]}"
    return f"holds the value {found}; expected {expected}, or 255 for not labelled"


def open_picture(path: Path, upright: bool = True) -> Picture:
    """Reads a picture, turned upright as the camera noted, or a mask of SBD (.mat).

    Raises:
        UserError: if it cannot be read.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # the user's own files may be large
    try:
        if path.suffix == ".mat":  # a mask of SBD, as torchvision's SBDataset reads it
            from scipy.io import loadmat

            return Image.fromarray(loadmat(path)["GTcls"][0]["Segmentation"][0])
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise ValueError(f"it has more than {MOST_PIXELS} pixels")
            if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO":  # a camera's
                raise ValueError(f"it holds {picture.n_frames} pictures, expected one")
            if picture.mode[0] in "IF":
                raise ValueError(f"it has mode {picture.mode}, expected 8 bits per channel")
            picture.load()
            return ImageOps.exif_transpose(picture) if upright else picture
    except UnidentifiedImageError:
        reason = "it is no picture" if path.stat().st_size else "it is empty"
    except Exception as error:
        reason = getattr(error, "strerror", None) or first_line(error)
    raise UserError(f"{path}: cannot be read as an image ({reason}). Replace it, or take it away.")


def _turned(*paths: Path) -> str:
    """Says which of these pictures a camera's note turns upright, if one does."""
    from PIL import Image

    for path in paths:
        with Image.open(path) as picture:
            if picture.getexif().get(0x0112, 1) > 4:
                return f" ({path.name} is turned upright, as its EXIF orientation says)"
    return ""


def as_tensor(picture: Picture, channels: int, image_size: tuple[int, int] | None) -> Tensor:
    """Returns uint8 (channels, H, W), grey or colour, resized (bilinear) if a size is given."""
    from PIL import Image

    height, width = image_size or (picture.height, picture.width)
    picture = picture.convert("RGB" if channels == 3 else "L")
    pixels = np.array(picture.resize((width, height), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels.reshape(height, width, channels)).movedim(-1, 0)
