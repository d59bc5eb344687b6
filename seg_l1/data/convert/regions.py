"""The pixels that a shape covers, as run lengths of `pycocotools`.

A pixel belongs to a polygon if its center does, which `pycocotools` finds on a grid five times as
fine. All these tools agree on coordinates: (0, 0) is the corner of the first pixel, (0.5, 0.5)
its center.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from seg_l1.errors import UserError

Rle = dict[str, Any]
"""Run lengths of a mask, as pycocotools holds them."""

LARGEST = 1e9
"""Coordinates beyond this are damaged."""


class Unusable(ValueError):
    """A shape that cannot be drawn; the message is a kind for `Remarks`."""


def coco_masks() -> Any:
    """Returns the module `pycocotools.mask`.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return import_module("pycocotools.mask")
    except ImportError:
        raise UserError(
            "convert needs pycocotools; type 'pip install pycocotools', or install the extra:"
            " pip install 'seg-l1[convert]'"
        ) from None


class Region(ABC):
    """What a shape covers."""

    @abstractmethod
    def rle(self, height: int, width: int) -> Rle:
        """Returns the run lengths in an image of this size.

        Raises:
            Unusable: if the shape does not fit the image.
        """

    def beyond(self, height: int, width: int) -> bool:
        """Returns whether the shape goes beyond the image by more than a pixel."""
        return False


@dataclass(frozen=True)
class Polygons(Region):
    """The union of polygons, each (N, 2) with N > 2.

    Attributes:
        relative: whether coordinates are shares of width and height.
    """

    parts: Sequence[np.ndarray]
    relative: bool = False

    def rle(self, height: int, width: int) -> Rle:
        mask = coco_masks()
        parts = [near(part, height, width) for part in self._scaled(height, width)]
        flat = [part.ravel().tolist() for part in parts if len(part) > 2]
        if not flat:
            return _of_array(np.zeros((height, width), dtype=np.uint8))
        merged: Rle = mask.merge(mask.frPyObjects(flat, height, width))
        return merged

    def beyond(self, height: int, width: int) -> bool:
        points = np.concatenate(self._scaled(height, width))
        return bool((points < -1).any() or (points > (width + 1, height + 1)).any())

    def _scaled(self, height: int, width: int) -> list[np.ndarray]:
        return [part * (width, height) if self.relative else part for part in self.parts]


@dataclass(frozen=True)
class Ellipse(Region):
    """An ellipse with its axes along the sides of the image; `angle` in degrees turns it."""

    center: tuple[float, float]
    radii: tuple[float, float]
    angle: float = 0.0

    def rle(self, height: int, width: int) -> Rle:
        pixels = np.zeros((height, width), dtype=np.uint8)
        reach = max(self.radii) + 1
        (left, right), (top, bottom) = (
            (int(np.clip(middle - reach, 0, side)), int(np.clip(middle + reach + 1, 0, side)))
            for middle, side in zip(self.center, (width, height), strict=True)
        )
        x = np.arange(left, right)[None] + 0.5 - self.center[0]
        y = np.arange(top, bottom)[:, None] + 0.5 - self.center[1]
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        along, across = x * cos + y * sin, y * cos - x * sin
        inside = (along / self.radii[0]) ** 2 + (across / self.radii[1]) ** 2 <= 1
        pixels[top:bottom, left:right] = inside
        return _of_array(pixels)

    def beyond(self, height: int, width: int) -> bool:
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        a, b = self.radii
        reach = (math.hypot(a * cos, b * sin), math.hypot(a * sin, b * cos))
        return any(
            middle - r < -1 or middle + r > side + 1
            for middle, r, side in zip(self.center, reach, (width, height), strict=True)
        )


@dataclass(frozen=True)
class Bitmap(Region):
    """An array (H, W) of 0 and 1 whose first pixel lies at (`left`, `top`)."""

    left: int
    top: int
    pixels: np.ndarray

    def rle(self, height: int, width: int) -> Rle:
        whole = np.zeros((height, width), dtype=np.uint8)
        rows, columns = self.pixels.shape
        top, left = max(self.top, 0), max(self.left, 0)
        bottom, right = min(self.top + rows, height), min(self.left + columns, width)
        if bottom > top and right > left:
            seen = self.pixels[top - self.top : bottom - self.top, left - self.left :]
            whole[top:bottom, left:right] = seen[:, : right - left]
        return _of_array(whole)

    def beyond(self, height: int, width: int) -> bool:
        rows, columns = self.pixels.shape
        over = self.top + rows > height + 1 or self.left + columns > width + 1
        return over or min(self.top, self.left) < -1


@dataclass(frozen=True)
class RunLengths(Region):
    """Run lengths of COCO: a list of counts, or their compressed text; `size` is [H, W]."""

    counts: Sequence[int] | str
    size: Sequence[int]

    def rle(self, height: int, width: int) -> Rle:
        counts = uncompressed(self.counts) if isinstance(self.counts, str) else [*self.counts]
        if [*self.size] != [height, width]:
            raise Unusable("run lengths (RLE) of another size than their image")
        whole = all(isinstance(n, int) and n >= 0 for n in counts)
        # pycocotools reads memory that is not its own where counts are missing
        if not whole or sum(counts) != height * width:
            raise Unusable("damaged run lengths (RLE)")
        rle: Rle = coco_masks().frPyObjects(
            {"size": [height, width], "counts": counts}, height, width
        )
        return rle


def decoded(rle: Rle) -> np.ndarray:
    """Returns the pixels (H, W) of run lengths, as bools."""
    with warnings.catch_warnings():  # pycocotools 2.0.11 hands numpy 2 an array of the old kind
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.asarray(coco_masks().decode(rle)).astype(bool)


def uncompressed(text: str) -> list[int]:
    """Returns the counts of COCO's compressed run lengths.

    A count is a number of 5-bit digits, the lowest first, each a character from "0" on; bit 6 says
    that more follow. From the fourth on, it is stored as the difference from the count two before.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        digit = ord(character) - 48
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value |= -1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    return counts


def near(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns a polygon without what is far outside of the image.

    The memory that pycocotools needs grows with the coordinates.
    """
    low, high = (-float(width), -float(height)), (2.0 * width, 2.0 * height)
    if (points >= low).all() and (points <= high).all():
        return points
    from matplotlib.path import Path
    from matplotlib.transforms import Bbox

    closed = Path(np.concatenate([points, points[:1]]), closed=True)
    clipped = closed.clip_to_bbox(Bbox([low, high])).to_polygons()
    return np.concatenate(clipped) if clipped else np.zeros((0, 2))


def points_of(values: Any) -> np.ndarray:
    """Returns (N, 2) coordinates of a polygon, from pairs or from a flat list.

    Raises:
        Unusable: if they are no finite numbers in pairs, or fewer than three points.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise Unusable("shapes with coordinates that are no numbers") from None
    if array.size % 2 or array.ndim > 2 or (array.ndim == 2 and array.shape[1] != 2):
        raise Unusable("shapes with an odd number of coordinates")
    if not (np.abs(array) < LARGEST).all():
        raise Unusable("shapes with coordinates that are no finite numbers")
    points = array.reshape(-1, 2)
    if len(points) < 3:
        raise Unusable("polygons of fewer than three points")
    return points


def rectangle(left: float, top: float, right: float, bottom: float, angle: float = 0) -> Polygons:
    """Returns a rectangle, turned about its center by `angle` in degrees, clockwise."""
    corners = points_of([[left, top], [right, top], [right, bottom], [left, bottom]])
    if angle:
        turn = math.radians(angle)
        matrix = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
        corners = (corners - corners.mean(0)) @ matrix + corners.mean(0)
    return Polygons([corners])


def _of_array(pixels: np.ndarray) -> Rle:
    rle: Rle = coco_masks().encode(np.asfortranarray(pixels))
    return rle
