"""Images of any number of bands with 8 or 16 bits, as arrays: Pillow has no mode for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from seg_l1.data.resample import resize_picture

TURNS = {
    2: (False, (1, -1)),
    3: (False, (-1, -1)),
    4: (False, (-1, 1)),
    5: (True, (1, 1)),
    6: (True, (1, -1)),
    7: (True, (-1, -1)),
    8: (True, (-1, 1)),
}
"""Orientation in EXIF and TIFF -> whether rows become columns, and then the steps along both."""


@dataclass(frozen=True)
class Raster:
    """An image (H, W, n) uint8 or uint16, with the attributes of a PIL image that are needed."""

    pixels: np.ndarray

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def size(self) -> tuple[int, int]:
        """(W, H), as of a PIL image."""
        return self.width, self.height

    @property
    def bands(self) -> int:
        return int(self.pixels.shape[2])

    @property
    def bits(self) -> int:
        return 8 * self.pixels.dtype.itemsize

    def resized(self, size: tuple[int, int]) -> Raster:
        """Returns the image at (H, W), each band like `resample.resize_picture`."""
        if size == (self.height, self.width):
            return self
        mode = np.float32 if self.bits == 16 else np.uint8  # Pillow resizes no 16 bits
        bands = [
            np.asarray(resize_picture(Image.fromarray(band.astype(mode)), size))
            for band in np.moveaxis(self.pixels, -1, 0)
        ]
        pixels = np.stack(bands, -1)
        return Raster(pixels if self.bits == 8 else np.rint(pixels).astype(np.uint16))

    def turned(self, orientation: int) -> Raster:
        """Returns the image upright, by the orientation of EXIF or TIFF."""
        if orientation not in TURNS:
            return self
        across, (down, along) = TURNS[orientation]
        pixels = self.pixels.swapaxes(0, 1) if across else self.pixels
        return Raster(np.ascontiguousarray(pixels[::down, ::along]))


def deep_png(path: Path) -> np.ndarray:
    """Returns the values (H, W, 3 or 4) uint16 of a color PNG of 16 bits.

    Pillow unpacks one byte of each value: the upper one as "RGB;16B", which is how it opens the
    file, and the lower one under the name of the other byte order, "RGB;16L".

    Raises:
        ValueError: if it is gray with an alpha band.
    """
    halves = []
    for order in ("B", "L"):
        with Image.open(path) as picture:
            rawmode = f"{picture.mode};16B"
            if [tile[3] for tile in picture.tile] != [rawmode]:
                raise ValueError("it is gray with an alpha band of 16 bits")
            picture.tile = [(*picture.tile[0][:3], f"{rawmode[:-1]}{order}")]  # type: ignore[list-item]
            halves.append(np.asarray(picture).astype(np.uint16))
    return 256 * halves[0] + halves[1]
