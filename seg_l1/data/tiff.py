"""TIFF files of any number of bands, through tifffile (the extra `tiff`)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from seg_l1.data.images import MOST_PIXELS
from seg_l1.data.raster import Raster
from seg_l1.errors import UserError

REDUCED_OR_MASK = 5
"""Bits of tag 254 that mark a smaller copy of another page, and a transparency mask."""


@dataclass(frozen=True)
class Layout:
    """How the values of a TIFF lie.

    Attributes:
        bands: their number.
        axis: along which they lie; None where there is one band without an axis of its own.
        dtype: of the values.
        of_pages: whether the bands are the pages of the file.
        lengths: of all axes.
    """

    bands: int
    axis: int | None
    dtype: np.dtype
    of_pages: bool
    lengths: tuple[int, ...]


def package(path: Path) -> Any:
    """Returns tifffile.

    Raises:
        UserError: if it is not installed.
    """
    try:
        found = import_module("tifffile")
    except ImportError:
        raise UserError(
            f"{path}: a TIFF of these bands or bits needs tifffile: pip install 'seg-l1[tiff]'"
        ) from None
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what matters is raised
    return found


def layout_of(path: Path, channels: int) -> Layout:
    """Returns how the values of a file lie, from its header.

    Args:
        channels: expected; decides which axis holds the bands where the file does not say so.

    Raises:
        UserError: if tifffile is missing.
        ValueError: if it holds several images. Damaged files raise other exceptions.
    """
    with package(path).TiffFile(path) as file:
        return _layout(_series(file), channels)


def read_tiff(path: Path, channels: int, *, upright: bool = True) -> Raster:
    """Returns the image of a file, with all its values.

    Args:
        channels: as for `layout_of`.
        upright: whether to apply the orientation that the file names.

    Raises:
        UserError: if tifffile is missing, or what it needs to decompress the file.
        ValueError: if it holds several images, or values other than 0 to 65535. Damaged files raise
            other exceptions.
    """
    with package(path).TiffFile(path) as file:
        series = _series(file)
        layout = _layout(series, channels)
        try:
            pixels = series.asarray().reshape(layout.lengths)
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            kind = getattr(series.keyframe.compression, "name", series.keyframe.compression)
            raise UserError(
                f"{path}: is compressed ({kind}), which needs imagecodecs: pip install"
                " 'seg-l1[tiff]'"
            ) from None
        tag = series.keyframe.tags.get(274)
    pixels = pixels[..., None] if layout.axis is None else np.moveaxis(pixels, layout.axis, -1)
    raster = Raster(np.ascontiguousarray(_whole(pixels)))
    return raster.turned(int(tag.value)) if upright and tag is not None else raster


def write_tiff(path: Path, pixels: np.ndarray) -> None:
    """Writes an image (H, W, n) with its bands interleaved.

    Raises:
        UserError: if tifffile is missing.
    """
    package(path).imwrite(path, pixels, photometric="minisblack", planarconfig="contig")


def _series(file: Any) -> Any:
    """Returns the image of a file, beside which there may be smaller copies and masks."""
    series = [s for s in file.series if not s.keyframe.subfiletype & REDUCED_OR_MASK]
    if not series:
        raise ValueError("it holds no picture")
    if len(series) > 1:
        raise ValueError(f"it holds {len(series)} pictures, expected one")
    return series[0]


def _layout(series: Any, channels: int) -> Layout:
    axes = [
        (name, int(length))
        for name, length in zip(series.axes, series.shape, strict=True)
        if length > 1 or name in "YXS"
    ]
    names, lengths = "".join(name for name, _ in axes), tuple(length for _, length in axes)
    axis: int | None
    if len(lengths) == 2:
        axis = None
    elif len(lengths) != 3:
        raise ValueError(f"it has the shape {lengths}, expected height, width and bands")
    elif "S" in names:
        axis = names.index("S")
    elif channels in (lengths[0], lengths[2]):  # pages, or (H, W, n) saved as if rows were pages
        axis = 0 if lengths[0] == channels else 2
    else:
        axis = 0 if lengths[0] <= lengths[2] else 2
    bands = 1 if axis is None else lengths[axis]
    if int(np.prod(lengths)) // bands > MOST_PIXELS:
        raise ValueError(f"it has more than {MOST_PIXELS} pixels")
    of_pages = axis is not None and "S" not in names
    return Layout(bands, axis, series.dtype, of_pages, lengths)


def _whole(pixels: np.ndarray) -> np.ndarray:
    """Returns the values as uint8 where they have 8 bits, else as uint16."""
    if pixels.dtype.kind not in "bui":
        raise ValueError(f"its values are {pixels.dtype}, expected uint8 or uint16")
    low, high = pixels.min(initial=0), pixels.max(initial=0)
    if low < 0 or high > 65535:
        raise ValueError(
            f"its values are {pixels.dtype} from {low} to {high}, expected 0 to 65535 (uint16)"
        )
    return pixels.astype(np.uint8 if pixels.dtype.itemsize == 1 else np.uint16, copy=False)
