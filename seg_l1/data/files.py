"""Pairs of image and mask files, and how they are read."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from PIL.Image import Image as Picture
from torch import Tensor
from torch.nn.functional import pad

from seg_l1.data.bands import open_image
from seg_l1.data.images import FORMATS, MOST_PIXELS, as_tensor, open_picture, unscaled
from seg_l1.data.labels import IGNORE
from seg_l1.data.masks import UNKNOWN, MaskReading, Pixels, pixels_of, refuse_deep_colors
from seg_l1.data.raster import Raster
from seg_l1.data.resample import resize_ids
from seg_l1.data.split import fetched
from seg_l1.errors import UserError


@dataclass(frozen=True)
class FileSplit:
    """A split that is read from disk at each access (see `Split`).

    Attributes:
        pairs: the files of image and mask.
        names: a name per pair.
        image_size: (H, W) to which pairs are resized; None = each keeps its own size.
        channels: 3 (RGB), 1 (grayscale), or as many bands as the images have.
        reading: what the values of the masks mean.
        upright: whether to apply the EXIF orientation of an image.
        bits: of each band, 8 or 16.
    """

    pairs: list[tuple[Path, Path]]
    names: list[str]
    image_size: tuple[int, int] | None
    channels: int
    reading: MaskReading
    upright: bool = True
    bits: int = 8

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
        return fetched(torch.stack(images)), torch.stack(masks)

    def subset(self, indices: Sequence[int]) -> FileSplit:
        pairs = [self.pairs[index] for index in indices]
        return replace(self, pairs=pairs, names=[self.names[index] for index in indices])

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Returns the pair `index` at `image_size`: bilinear for the image, nearest for the mask.

        Raises:
            UserError: naming the file and what is wrong with it.
        """
        image, pixels, _ = self.open_pair(index)
        ids = self.reading.ids(pixels)
        if (ids == UNKNOWN).any():  # the file has changed since it was checked
            raise UserError(f"{self.pairs[index][1]}: holds values that are no class")
        return self.tensors(image, ids)

    def open_pair(self, index: int) -> tuple[Picture | Raster, Pixels, bool]:
        """Returns the image, the mask, and whether the format of the mask changes its values.

        Raises:
            UserError: naming the file and what is wrong with it.
        """
        image_path, mask_path = self.pairs[index]
        image = open_image(image_path, self.channels, self.bits, self.upright)
        mask, lossy = open_mask(mask_path, self.upright)
        if image.size != mask.size:
            turned = "" if image.size != mask.size[::-1] else _turned(image_path, mask_path)
            raise UserError(
                f"{mask_path}: is {mask.width}x{mask.height} pixels, its image {image_path.name} is"
                f" {image.width}x{image.height}{turned}. Give both the same size."
            )
        return image, pixels_of(mask, mask_path), lossy

    def tensors(self, image: Picture | Raster, ids: np.ndarray) -> tuple[Tensor, Tensor]:
        """Returns an image and the class ids of its mask at `image_size`."""
        resized = resize_ids(ids, self.image_size or ids.shape)
        return as_tensor(image, self.channels, self.image_size), torch.from_numpy(resized)


def file_split(
    folder: Path,
    pairs: list[tuple[Path, Path]],
    image_size: Sequence[int] | None,
    reading: MaskReading,
    *,
    channels: int = 3,
    upright: bool = True,
    bits: int = 8,
) -> FileSplit:
    """Returns the split of `pairs`, named after the images by their path below `folder`."""
    names = [image.relative_to(folder).as_posix() for image, _ in pairs]
    size = None if image_size is None else (image_size[0], image_size[1])
    return FileSplit(pairs, names, size, channels, reading, upright, bits)


def open_mask(path: Path, upright: bool = True) -> tuple[Picture, bool]:
    """Returns a mask in its own mode and depth, and whether its format changes values (JPEG).

    Raises:
        UserError: if it cannot be read, or if reading it would change its values.
    """
    try:
        with Image.open(path, formats=FORMATS) as picture:
            refuse_deep_colors(picture, path)
            lossy = picture.format in ("JPEG", "MPO")
            one = getattr(picture, "n_frames", 1) == 1 or picture.format == "MPO"
            if one and picture.width * picture.height <= MOST_PIXELS:
                picture.load()
                ids = unscaled(picture)
                return (ImageOps.exif_transpose(ids) if upright else ids), lossy
    except UserError:
        raise
    except Exception:
        pass  # open_picture says what is wrong
    return open_picture(path, upright, mask=True), False


def _turned(*paths: Path) -> str:
    """Names the image whose EXIF orientation swaps width and height, if there is one."""
    for path in paths:
        with suppress(OSError), Image.open(path) as picture:  # Pillow does not know all bands
            if picture.getexif().get(0x0112, 1) > 4:
                return f" ({path.name} is turned upright, as its EXIF orientation says)"
    return ""
