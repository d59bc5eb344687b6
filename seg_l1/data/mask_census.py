"""Which values the masks of a data set hold, together: what they must have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from seg_l1.data.mask_values import FIRST_COLOR, Key, text
from seg_l1.data.masks import UNKNOWN, MaskReading, Pixels, reading_of
from seg_l1.errors import UserError

MOST_VALUES = 4096
"""Most values kept per file, by frequency; a data set that exceeds it counts no further files."""


@dataclass(frozen=True)
class FileValues:
    """What a mask holds.

    Attributes:
        kind: see `Pixels`.
        counts: pixels per value of `Pixels.values`.
        colors: of a palette mask the code of the color of each index that occurs.
        lossy: whether its format changes values (JPEG).
    """

    path: Path
    kind: str
    counts: dict[int, int]
    colors: dict[int, int]
    lossy: bool

    @classmethod
    def of(cls, path: Path, pixels: Pixels, *, lossy: bool) -> FileValues:
        counts = pixels.counts()
        if len(counts) > MOST_VALUES:
            counts = dict(Counter(counts).most_common(MOST_VALUES))
        palette = pixels.palette
        colors = {} if palette is None else {index: int(palette[index]) for index in counts}
        return cls(path, pixels.kind, counts, colors, lossy)


@dataclass
class Census:
    """The values of all masks of a data set.

    Attributes:
        masks: how many there are.
        pixels, files: per kind the pixels, and the masks, with each value. Palette masks count
            twice: by index as "palette", and by color as "palette colors".
        lossy: the masks in formats that change values.
        clash: what makes the palette indices of a mask doubtful, in words; "" if nothing does.
    """

    masks: int = 0
    pixels: dict[str, Counter[int]] = field(default_factory=dict)
    files: dict[str, Counter[int]] = field(default_factory=dict)
    lossy: list[Path] = field(default_factory=list)
    clash: str = ""
    _first: dict[int, tuple[int, Path]] = field(default_factory=dict)
    _gray_palette: Path | None = None

    @classmethod
    def of(cls, every: Iterable[FileValues]) -> Census:
        """Returns the values of these masks together."""
        census = cls()
        for values in every:
            census._add(values)
        if census._gray_palette and "levels" in census.pixels and not census.clash:
            census.clash = (
                f"{census._gray_palette}: is a palette of grays whose indices are not these grays,"
                " among grayscale masks"
            )
        return census

    def _add(self, values: FileValues) -> None:
        self.masks += 1
        self._count(values.kind, values.counts)
        if values.lossy:
            self.lossy.append(values.path)
        if values.kind != "palette":
            return
        by_color: Counter[int] = Counter()
        for index, color in values.colors.items():
            by_color[color] += values.counts[index]
            before, path = self._first.setdefault(index, (color, values.path))
            if before != color and not self.clash:
                self.clash = (
                    f"{values.path}: index {index} of its palette is the color {text(color)}, but"
                    f" {text(before)} in {path.name}"
                )
        self._count("palette colors", by_color)
        pairs = values.colors.items()
        if all(color < FIRST_COLOR for _, color in pairs) and any(i != c for i, c in pairs):
            self._gray_palette = self._gray_palette or values.path

    def _count(self, kind: str, counts: Mapping[int, int]) -> None:
        pixels = self.pixels.setdefault(kind, Counter())
        files = self.files.setdefault(kind, Counter())
        if len(pixels) <= MOST_VALUES:
            pixels.update(counts)
            files.update(counts.keys())

    @property
    def has_colors(self) -> bool:
        """Whether there are masks in color, or palettes that agree in their colors only."""
        return "colors" in self.pixels or bool(self.clash)

    def codes(self, by_color: bool, white: int | None) -> dict[int, tuple[int, int]]:
        """Returns for each code the pixels and the masks that have it.

        Args:
            by_color: whether palette masks are read through their palettes.
            white: the code of white in 1-bit masks.
        """
        found: dict[int, tuple[int, int]] = {}
        for kind, counts in self.pixels.items():
            if kind == ("palette" if by_color else "palette colors"):
                continue
            for value, count in counts.items():
                code = value * (1 if white is None else white) if kind == "bits" else value
                pixels, files = found.get(code, (0, 0))
                found[code] = pixels + count, min(files + self.files[kind][value], self.masks)
        return dict(sorted(found.items()))

    def classes(self, reading: MaskReading) -> dict[int, set[int]]:
        """Returns for each class id, `IGNORE` and `UNKNOWN` the codes that have it."""
        found: dict[int, set[int]] = {}
        for kind, counts in self.pixels.items():
            if kind == ("palette" if reading.by_color else "palette colors"):
                continue
            values = np.array(sorted(counts), dtype=np.int64)
            codes = values * (reading.white or 1) if kind == "bits" else values
            if kind == "bits":
                ids = reading.meaning_of_bits[values]
            else:
                ids = (reading.colored if "colors" in kind else reading.plain)(codes)
            for code, index in zip(codes.tolist(), ids.tolist(), strict=True):
                found.setdefault(index, set()).add(code)
        return found

    def fits(self, key: Key, num_classes: int) -> bool:
        """Returns whether a key reads all masks."""
        try:
            reading = reading_of(key, num_classes)
        except UserError:
            return False
        return UNKNOWN not in self.classes(reading)
