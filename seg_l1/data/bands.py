"""Number and depth of the bands of images: found, read and checked, and shown as three colors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.Image import Image as Picture

from seg_l1.data.images import (
    FORMATS,
    MODES,
    MOST_PIXELS,
    is_tiff,
    largest_value,
    open_picture,
    remedy,
)
from seg_l1.data.raster import Raster, deep_png
from seg_l1.data.tiff import layout_of, read_tiff
from seg_l1.errors import UserError, first_line

COLORS = (1, 3)
"""Numbers of bands to which Pillow converts pictures of 8 bits: gray and RGB."""

SPREAD = 2.0
"""Images of 16 bits are shown from black to white over the mean -/+ so many standard deviations."""


@dataclass(frozen=True)
class Bands:
    """The bands of the images of a data set, and how they are shown.

    Attributes:
        channels: their number.
        bits: 8 or 16, of each.
        show: the bands, counted from 1, that are shown as red, green and blue; None = the first
            three, or only the first, in gray, where there are fewer.
        limits: per band the values that are shown as black and as white; None = 0 and 255.
    """

    channels: int
    bits: int = 8
    show: list[int] | None = None
    limits: list[list[float]] | None = None

    @classmethod
    def of(
        cls, dataset: Mapping[str, Any], mean: Sequence[float], std: Sequence[float], bits: int
    ) -> Bands:
        """Returns the bands of a data set.

        Args:
            dataset: its configuration, of any version.
            mean, std, bits: see `SegmentationData`.
        """
        limits = None
        if bits == 16:
            limits = [
                [max(255 * (m - SPREAD * s), 0.0), min(255 * (m + SPREAD * s), 65535.0)]
                for m, s in zip(mean, std, strict=True)
            ]
        return cls(len(mean), bits, dataset.get("show"), limits)

    def open(self, path: Path) -> Picture | Raster:
        """Reads an image for a network that was trained on such bands.

        Raises:
            UserError: if it cannot be read, or has other bands.
        """
        image = open_image(path, self.channels, self.bits)
        return image if isinstance(image, Raster) else image.convert("RGB")

    def colors(self, image: Picture | Raster) -> np.ndarray:
        """Returns an image that `open` returned as it is shown, (H, W, 3) uint8."""
        pixels = image.pixels if isinstance(image, Raster) else np.asarray(image)
        if pixels.shape[-1] != self.channels:  # colors, of which the network sees the gray
            return pixels
        return self.paint(pixels)

    def paint(self, pixels: np.ndarray) -> np.ndarray:
        """Returns pixels (H, W, channels) as they are shown, (H, W, 3) uint8."""
        first = [1, 2, 3] if self.channels >= 3 else [1, 1, 1]
        chosen = [number - 1 for number in self.show or first]
        shown = pixels[..., chosen]
        if self.limits is None:
            return shown
        low, high = np.array([self.limits[index] for index in chosen], np.float32).T
        share = (shown.astype(np.float32) - low) / np.maximum(high - low, 1)
        return np.rint(255 * share.clip(0, 1)).astype(np.uint8)


def open_image(path: Path, channels: int, bits: int, upright: bool = True) -> Picture | Raster:
    """Reads an image with all its bands and bits.

    Args:
        channels, bits: expected. For 1 or 3 bands of 8 bits Pillow reads pictures of any number of
            bands, to be converted by `as_pixels`.
        upright: whether to apply the orientation that the file names.

    Returns:
        A picture, or the `channels` bands as they are stored.

    Raises:
        UserError: if it cannot be read, or has other bands.
    """
    plain = channels in COLORS and bits == 8
    try:
        if plain:
            return open_picture(path, upright)
    except UserError as error:
        header = _header(path, channels)
        if header is None and _tifffile_would_do(path, channels):
            tip = "With tifffile it can be read as it is: pip install 'seg-l1[tiff]'"
            raise UserError(f"{error} {tip}") from None
        if header is None or header.plain or (header.bands, header.bits) != (channels, bits):
            raise
    return _raster(path, channels, bits, upright)


def check_bands(paths: Sequence[Path], channels: int, *, to_score: bool = False) -> int:
    """Returns how many bits most of the images have, 8 or 16, from their headers.

    Single images that differ are left to `open_image`.

    Args:
        to_score: whether `channels` are those of a network that exists.

    Raises:
        UserError: if no image has `channels` bands or can be converted to gray or RGB, naming the
            key that reads them; or if tifffile is needed and missing.
    """
    import torch

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        found = [*pool.map(lambda path: _header(path, channels), paths)]
    known = [(path, header) for path, header in zip(paths, found, strict=True) if header]
    bits = Counter(header.bits for _, header in known if header.fits(channels))
    if known and not bits:
        _refuse_all(known, channels, to_score=to_score)
    return 16 if bits[16] > bits[8] else 8


@dataclass(frozen=True)
class _Header:
    """Number and depth of the bands of a file; `plain` = Pillow can make it gray or RGB."""

    bands: int
    bits: int
    plain: bool

    def fits(self, channels: int) -> bool:
        return self.bands == channels or (self.plain and channels in COLORS)

    def __str__(self) -> str:
        return f"{self.bands} {'band' if self.bands == 1 else 'bands'} of {self.bits} bits"


def _header(path: Path, channels: int) -> _Header | None:
    """Returns what the header of a file says; None if it cannot be read, which is reported later.

    Raises:
        UserError: if tifffile is needed and missing.
    """
    try:
        if not is_tiff(path):
            return _header_in_pillow(path)
        if channels in COLORS and (plain := _plain_tiff(path)):
            return plain
        layout = layout_of(path, channels)
    except UserError:
        if channels not in COLORS:
            raise
        return None
    except Exception:
        return None
    if layout.dtype.kind not in "bui" or (channels in COLORS and layout.of_pages):
        return None
    return _Header(layout.bands, 8 if layout.dtype.itemsize == 1 else 16, plain=False)


def _header_in_pillow(path: Path) -> _Header | None:
    with Image.open(path, formats=FORMATS) as picture:
        deep = largest_value(picture) > 255
        if deep and picture.format != "PNG":
            return None
        bands = 1 if picture.mode[0] in "1LI" else 3
        bands += picture.mode in ("LA", "RGBA")
        return _Header(bands, 16 if deep else 8, plain=not deep)


def _plain_tiff(path: Path) -> _Header | None:
    """Returns the header of a TIFF of 8 bits that Pillow knows, else None."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if largest_value(picture) > 255 or picture.mode not in MODES:
                return None
            tags = picture.tag_v2  # type: ignore[attr-defined]
            return _Header(int(tags.get(277, 1)), 8, plain=True)
    except OSError:
        return None


def _tifffile_would_do(path: Path, channels: int) -> bool:
    """Returns whether tifffile is missing, and a TIFF has the expected bands in whole numbers."""
    if find_spec("tifffile") or not is_tiff(path):
        return False
    try:
        with Image.open(path, formats=FORMATS) as picture:
            tags = picture.tag_v2  # type: ignore[attr-defined]
            return bool(tags.get(277, 1) == channels and 3 not in np.ravel(tags.get(339, 1)))
    except OSError:
        return True  # Pillow does not know these bands


def _raster(path: Path, channels: int, bits: int, upright: bool) -> Raster:
    advice = "Replace it, or take it away."
    try:
        raster = (
            read_tiff(path, channels, upright=upright)
            if is_tiff(path)
            else _read_in_pillow(path, upright)
        )
    except UserError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        if "expected" in reason:
            advice = whole_numbers(path, channels)
        raise UserError(f"{path}: cannot be read as an image ({reason}). {advice}") from None
    if (raster.bands, raster.bits) != (channels, bits):
        got, wanted = _Header(raster.bands, raster.bits, False), _Header(channels, bits, False)
        raise UserError(
            f"{path}: has {got}, expected {wanted}. All images of a data set, and those that its"
            " network segments, need the same bands and bits."
        )
    return raster


def _read_in_pillow(path: Path, upright: bool) -> Raster:
    """Reads a picture that is no TIFF, with its alpha band."""
    Image.MAX_IMAGE_PIXELS = None  # the user's own files may be large
    with Image.open(path, formats=FORMATS) as picture:
        if picture.width * picture.height > MOST_PIXELS:
            raise ValueError(f"it has more than {MOST_PIXELS} pixels")
        if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO":
            raise ValueError(f"it holds {picture.n_frames} pictures, expected one")  # type: ignore[attr-defined]
        turn = int(picture.getexif().get(0x0112, 1)) if upright else 1
        deep = largest_value(picture) > 255
        if deep and picture.format != "PNG":
            raise ValueError(f"{picture.format} with more than 8 bits, expected PNG or TIFF")
        if deep and picture.mode in ("LA", "RGB", "RGBA"):
            return Raster(deep_png(path)).turned(turn)
        if not deep and picture.mode not in ("L", "LA", "RGB", "RGBA"):
            picture = picture.convert("L" if picture.mode == "1" else "RGB")  # type: ignore[assignment]
        pixels = np.asarray(picture).astype(np.uint16 if deep else np.uint8)
    return Raster(pixels.reshape(*pixels.shape[:2], -1)).turned(turn)


def whole_numbers(path: Path, channels: int) -> str:
    """Returns a sentence that says how an image of other values is saved so that it can be read."""
    if channels in (*COLORS, 4):
        return remedy(path)
    return remedy(path).replace("as PNG", "as TIFF with 16 bits")


def _refuse_all(known: Sequence[tuple[Path, _Header]], channels: int, *, to_score: bool) -> None:
    """Says which bands the images have, and which key reads them."""
    kinds = Counter(str(header) for _, header in known)
    first = {str(header): (path, header) for path, header in reversed(known)}
    most = kinds.most_common(1)[0][0]
    path, header = first[most]
    wanted = f"{channels} band" if channels == 1 else f"{channels} bands"
    wanted = f"8 bits, or {wanted}" if channels in COLORS and header.bits > 8 else wanted
    if to_score:
        raise UserError(f"{path}: has {most}, expected {wanted}, as in the training of the run")
    key = f"Give dataset.channels={header.bands}"
    if len(kinds) > 1:
        others = ", ".join(f"{count} have {kind}" for kind, count in kinds.most_common(4))
        key = f"The images differ ({others}); keep those of one kind. {key}"
    if channels in COLORS and header.bits > 8 and header.bands in (*COLORS, 4):
        key = f"{key} to read them as they are, or convert them: {remedy(path)}"
    else:
        key += "."
    raise UserError(f"{path}: has {most}, expected {wanted} (dataset.channels={channels}). {key}")
