"""Reading of masks: from the pixels of a picture to class ids, by the language of `mask_values`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.Image import Image as Picture

from seg_l1.data.labels import IGNORE
from seg_l1.data.mask_values import FIRST_COLOR, OTHERS, VOID, Key, packed
from seg_l1.errors import UserError

UNKNOWN = 254
"""Marks a mask value that is no class, between reading and refusing it."""


_NEARLY_GRAY = 24
"""How much the channels of a gray pixel may differ where a threshold is applied."""


@dataclass(frozen=True)
class Pixels:
    """The pixels of a mask, before they have a meaning.

    Attributes:
        kind: "bits" (black and white), "levels" (ids, or gray), "palette" or "colors".
        values: (H, W): 0 and 1, ids, palette indices, or codes of colors (see `mask_values`); uint8
            where they fit, else int64.
        palette: of kind "palette" the code of the color of each index, else None.
    """

    kind: str
    values: np.ndarray
    palette: np.ndarray | None = None

    def counts(self) -> dict[int, int]:
        """Returns how many pixels have each value."""
        if self.values.dtype == np.uint8:
            counted = count_bytes(self.values)
            values = counted.nonzero()[0]
            counts = counted[values]
        else:
            values, counts = np.unique(self.values, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))


def count_bytes(values: np.ndarray) -> np.ndarray:
    """Returns how many of uint8 `values` (H, W) are 0, 1, ..., 255."""
    if values.size < 2**18:
        return np.bincount(values.ravel(), minlength=256)
    return np.array(Image.fromarray(values).histogram())  # needs no copy with 8 bytes per pixel


def pixels_of(picture: Picture, path: Path) -> Pixels:
    """Returns the pixels of a mask, whatever its mode.

    Raises:
        UserError: if they cannot be class ids or colors of classes.
    """
    mode = picture.mode
    if mode == "1":
        return Pixels("bits", np.asarray(picture, dtype=np.uint8))
    if mode == "L":
        return Pixels("levels", np.asarray(picture))
    if mode == "P":
        return Pixels("palette", np.asarray(picture), _palette(picture))
    if mode in ("LA", "RGB", "RGBA"):
        return _without_alpha(np.asarray(picture), path)
    if mode[0] in "IF":
        values = np.asarray(picture)
        whole = values.astype(np.int64)
        if mode == "F" and not (np.isfinite(values).all() and np.array_equal(whole, values)):
            raise UserError(
                f"{path}: holds fractions, expected class ids or colors; save it as an 8-bit PNG"
            )
        small = whole.min() >= 0 and whole.max() < 256
        return Pixels("levels", whole.astype(np.uint8) if small else whole)
    raise UserError(
        f"{path}: has mode {mode}; expected class ids or colors, so save it as a grayscale, palette"
        " or RGB PNG"
    )


def refuse_deep_colors(picture: Picture, path: Path) -> None:
    """Refuses a color picture, not loaded yet, if Pillow would keep only 8 of its 16 bits."""
    tiles = getattr(picture, "tile", [])  # what Pillow is going to decode, and from which form
    if picture.mode in ("LA", "RGB", "RGBA") and any("16" in str(tile[3]) for tile in tiles):
        raise UserError(
            f"{path}: has 16 bits per channel; expected class ids in one channel or 8-bit colors,"
            " so save it as an 8-bit PNG"
        )


def level_of(codes: np.ndarray) -> np.ndarray:
    """Returns the gray level of each code, NaN for a color; JPEG makes gray slightly colored."""
    colors = np.stack([codes >> 16 & 255, codes >> 8 & 255, codes & 255])
    gray = np.where(np.ptp(colors, axis=0) <= _NEARLY_GRAY, colors.mean(0), np.nan)
    return np.where(codes < FIRST_COLOR, codes, gray)


def _palette(picture: Picture) -> np.ndarray:
    entries = np.zeros((256, 3), dtype=np.int64)
    given = np.array(picture.getpalette("RGB") or [], dtype=np.int64).reshape(-1, 3)[:256]
    entries[: len(given)] = given
    return _codes(entries)


def _codes(colors: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(colors.astype(np.int64), -1, 0)
    gray = (red == green) & (green == blue)
    return np.where(gray, red, packed(red, green, blue))


def _without_alpha(channels: np.ndarray, path: Path) -> Pixels:
    """The gray levels or colors; alpha is dropped where no two pixels differ in it alone."""
    bands = channels.shape[-1]
    if bands in (2, 4):
        colors, alpha = channels[..., :-1], channels[..., -1].astype(np.int64)
        if (alpha < 255).any():
            codes = _codes(np.broadcast_to(colors, (*alpha.shape, 3)))
            if len(np.unique(codes << 8 | alpha)) > len(np.unique(codes)):
                raise UserError(
                    f"{path}: has pixels of one color that differ in transparency; save it without"
                    " an alpha channel, as a grayscale, palette or RGB PNG"
                )
        channels = colors
    first = channels[..., 0]
    if bands < 3 or (channels == first[..., None]).all():
        return Pixels("levels", np.ascontiguousarray(first))
    return Pixels("colors", _codes(channels))


@dataclass(frozen=True)
class Meaning:
    """Which class each code has.

    Attributes:
        class_of: code -> class id or `IGNORE`.
        rest: what all other codes are: `UNKNOWN`, or `IGNORE`.
        threshold: None, or the value from which on any other code has the class `sides[1]`; below
            it has `sides[0]`.
    """

    class_of: Mapping[int, int]
    rest: int = UNKNOWN
    threshold: float | None = None
    sides: tuple[int, int] = (0, 1)

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """Returns the class ids, uint8, of codes; `UNKNOWN` for those that have no meaning."""
        return self._table[codes] if codes.dtype == np.uint8 else self._look_up(codes)

    @cached_property
    def _table(self) -> np.ndarray:
        return self._look_up(np.arange(256))

    @cached_property
    def _known(self) -> tuple[np.ndarray, np.ndarray]:
        known = np.array(sorted(self.class_of), dtype=np.int64)
        return known, np.array([self.class_of[code] for code in known.tolist()], dtype=np.uint8)

    def _look_up(self, codes: np.ndarray) -> np.ndarray:
        ids = np.full(codes.shape, self.rest, dtype=np.uint8)
        if self.threshold is not None:
            levels, (below, above) = level_of(codes), self.sides
            ids = np.where(levels < self.threshold, below, above).astype(np.uint8)
            ids[np.isnan(levels)] = self.rest
        known, classes = self._known
        if not len(known):
            return ids
        position = np.searchsorted(known, codes).clip(max=len(known) - 1)
        return np.where(known[position] == codes, classes[position], ids)


@dataclass(frozen=True)
class MaskReading:
    """How the masks of a data set are read.

    Attributes:
        plain: what codes mean in masks of gray levels, ids or palette indices.
        colored: what they mean in masks in color; differs from `plain` where a list of three
            numbers is three ids for `plain`, and a color here.
        by_color: whether the pixels of palette masks are the colors of their palettes, not the
            indices.
        white: the code of white in 1-bit masks; None where it could be several.
        key: what makes this reading; None where the files are those of a known data set.
    """

    plain: Meaning
    colored: Meaning
    by_color: bool
    white: int | None
    key: Key | None = None

    def ids(self, pixels: Pixels) -> np.ndarray:
        """Returns class ids, uint8 (H, W): `IGNORE` where not labeled, `UNKNOWN` where no class."""
        if pixels.kind == "bits":
            return self.meaning_of_bits[pixels.values]
        if pixels.palette is not None and self.by_color:
            return self.colored(pixels.palette)[pixels.values]
        return (self.colored if pixels.kind == "colors" else self.plain)(pixels.values)

    @cached_property
    def meaning_of_bits(self) -> np.ndarray:
        """uint8 (2,), the class ids of black and of white in 1-bit masks."""
        if self.white is None:
            return np.full(2, UNKNOWN, dtype=np.uint8)
        return self.plain(np.array([0, self.white]))


def reading_of(key: Key, num_classes: int) -> MaskReading:
    """Returns how masks are read by a key.

    Raises:
        UserError: if the key contradicts itself, or does not fit the number of classes.
    """
    colored = _meaning(key, num_classes, three_are_color=True)
    plain = colored
    if key.has_three:
        try:
            plain = _meaning(key, num_classes, three_are_color=False)
        except UserError:  # as ids they would name a value twice: they are colors
            plain = colored
    named = {code for codes in _all_codes(key, num_classes) for code in codes}
    white: int | None = 255 if 255 in named or (key.has_colors and 1 not in named) else 1
    if {1, 255} <= named and key.threshold is None:
        white = None
    if key.threshold is not None:
        white = 255
    return MaskReading(plain, colored, key.has_colors, white, key)


def reading_of_ids(class_of: Mapping[int, int]) -> MaskReading:
    """Returns the reading by which ids are classes: mask value -> class id or `IGNORE`."""
    meaning = Meaning({VOID: IGNORE} | dict(class_of))
    return MaskReading(meaning, meaning, by_color=False, white=1)


def _all_codes(key: Key, num_classes: int) -> list[list[int]]:
    of_class, unlabeled = key.codes(num_classes, three_are_color=True)
    return [*of_class, unlabeled]


def _meaning(key: Key, num_classes: int, *, three_are_color: bool) -> Meaning:
    of_class, unlabeled = key.codes(num_classes, three_are_color=three_are_color)
    class_of = {code: index for index, codes in enumerate(of_class) for code in codes}
    void = dict.fromkeys(unlabeled, IGNORE)
    rest = IGNORE if key.unlabeled_values == OTHERS else UNKNOWN
    if key.threshold is None:
        ids_only = not key.has_colors or (key.has_three and not three_are_color)
        default = {VOID: IGNORE} if ids_only else {}
        return Meaning(default | class_of | void, rest)
    return Meaning(void, rest, key.threshold, _sides(key, of_class))


def _sides(key: Key, of_class: list[list[int]]) -> tuple[int, int]:
    """The classes below and above the threshold.

    Raises:
        UserError: if the classes are not two, or their values lie on one side.
    """
    if len(of_class) != 2:
        raise UserError(
            f"dataset.mask_threshold: makes two classes, but there are {len(of_class)};"
            " leave it out"
        )
    if key.mask_values is None:
        return 0, 1
    above = [{code >= (key.threshold or 0) for code in codes} for codes in of_class]
    if above not in ([{False}, {True}], [{True}, {False}]):
        raise UserError(
            "dataset.mask_threshold: expected a dataset.mask_values of one class below"
            f" {key.threshold:g} and one from there on, as [0,255]"
        )
    return (0, 1) if above[1] == {True} else (1, 0)
