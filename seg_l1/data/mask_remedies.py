"""Finds keys for masks that could not be read, from the values that these masks hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from seg_l1.data.labels import IGNORE
from seg_l1.data.mask_census import Census
from seg_l1.data.mask_values import OTHERS, VOID, Key, text, value
from seg_l1.data.masks import UNKNOWN, level_of, reading_of

_FEW = 16
"""A key names every value if there are at most this many more of them than classes."""


def some(codes: Sequence[int], most: int) -> str:
    """Returns the first of many values as a text."""
    more = f" and {len(codes) - most} more" if len(codes) > most else ""
    return ", ".join(map(text, codes[:most])) + more


_MOST_CLASSES = 64
"""Each value is taken for a class only if there are at most this many values."""


@dataclass(frozen=True)
class Remedies:
    """What is to be typed so that these masks are read.

    Attributes:
        key: what was typed.
        classes: their names, two at least.
    """

    census: Census
    key: Key
    classes: Sequence[str]

    def listing(self) -> str:
        """Returns what the masks hold: the most frequent values, how often, in how many masks."""
        found, masks = self._found, self.census.masks
        total = sum(pixels for pixels, _ in found.values())
        shown = sorted(sorted(found, key=lambda code: -found[code][0])[:6])
        parts = [
            f"{text(code)} ({100 * found[code][0] / total:.3g} % of the pixels,"
            f" in {found[code][1]})"
            for code in shown
        ]
        more = f" and {len(found) - len(shown)} other values" if len(found) > len(shown) else ""
        return f"{f'{masks} masks hold' if masks > 1 else '1 mask holds'} {', '.join(parts)}{more}"

    def advice(self) -> str:
        """Returns up to two sets of overrides, each with the condition under which it is right."""
        typed: dict[str, str] = {}
        for other, condition in self._candidates():
            if len(typed) < 2 and (words := self.changes(other)):
                typed.setdefault(words, condition or self._order(other))
        if typed:
            return "Give " + ", or ".join(f"{words} {why}" for words, why in typed.items())
        return "Export the masks with class ids, or with one exact color per class, as PNG"

    def threshold(self) -> Key | None:
        """Returns the key that cuts masks of two classes, black and white, with soft borders.

        None where the masks are not like that.
        """
        found = self.census.codes(self._by_color, VOID)
        levels = level_of(np.array(list(found)))
        pixels = np.array([pixels for pixels, _ in found.values()], dtype=np.float64)
        if len(self.classes) != 2 or len(levels) <= 3 or np.isnan(levels).any():
            return None
        top = 255 if levels.max() < 256 else levels.max()
        outer = (levels < top / 4) | (levels >= top * 3 / 4)
        if levels.min() >= top / 4 or levels.max() < top * 3 / 4:
            return None
        if pixels[outer].sum() < 0.8 * pixels.sum():
            return None
        cut = float((top + 1) // 2)
        given = replace(self.key, threshold=cut)
        return given if self.census.fits(given, 2) else Key(threshold=cut)

    def listed_codes(self) -> list[int]:
        """Returns the codes that the masks hold."""
        return sorted(self._found)

    def name_all(self) -> str:
        """Returns the overrides by which each value is a class, in their order."""
        return self.changes(replace(self.key, mask_values=self._values(self.listed_codes())))

    def changes(self, key: Key) -> str:
        """Returns what to type in addition to what was typed before."""
        same = {n: None for n in vars(key) if getattr(key, n) == getattr(self.key, n)}
        return replace(key, **same).typed()

    @property
    def _by_color(self) -> bool:
        return self.census.has_colors or self.key.has_colors

    @property
    def _found(self) -> dict[int, tuple[int, int]]:
        gray = VOID in self.census.pixels.get("levels", {}) or self._by_color
        return self.census.codes(self._by_color, 255 if gray else 1)

    def _values(self, codes: Sequence[int]) -> list[Any]:
        return [value(code, as_color=self._by_color) for code in codes]

    def _order(self, key: Key) -> str:
        if len(self.classes) > 8 or key.mask_values is None:
            return "in the order of the classes"
        codes, _ = key.codes(len(self.classes), three_are_color=self._by_color)
        pairs = zip(codes, self.classes, strict=True)
        order = ", ".join(f"{text(code)} = {name}" for (code,), name in _given(pairs))
        return f"if this is the order of the classes ({order})"

    def _candidates(self) -> Iterator[tuple[Key, str]]:
        """Yields keys that read the masks, the most likely first, with the condition of each."""
        soft = self.threshold()
        if soft:
            yield soft, "if the values between are soft borders"
        several = len(self._found) > 1
        any_fits = soft is not None
        for other, why in self._named():
            if self.census.fits(other, len(self.classes)):
                shown = self._meanings(other).keys() - {IGNORE, UNKNOWN}
                if len(shown) > 1 or not several:
                    any_fits = True
                    yield other, why
        rest = replace(self.key, unlabeled_values=OTHERS)
        shown = self._meanings(rest).keys() - {IGNORE, UNKNOWN}
        if not any_fits and len(shown) > 1 and self.census.fits(rest, len(self.classes)):
            any_fits = True
            yield rest, "if all other values are not labeled"
        found = self._found
        frequent = sorted(found, key=lambda code: -found[code][0])[: len(self.classes)]
        last = Key(self._values(sorted(frequent)), OTHERS)
        if not any_fits and self.census.fits(last, len(self.classes)):
            yield last, "if these are the classes, and all else is not labeled"

    def _named(self) -> Iterator[tuple[Key, str]]:
        """Yields keys that name every value, whether they fit or not."""
        void = self.key.unlabeled_values
        void = [] if void is None or isinstance(void, str) else list(void)
        number, found = len(self.classes), self._found
        codes = sorted(found)
        if len(codes) > number + _FEW:
            return
        own_ids = self.key.mask_values is None
        if own_ids and codes == list(range(number + 1)):
            yield Key(codes[1:], [0, *void]), "if 0 is not labeled"
        if number == 2 and {0, VOID} < set(codes) and not self._by_color:
            between = [code for code in codes if code not in (0, VOID)]
            yield Key([0, VOID], between), f"if {some(between, 5)} is not labeled"
        meanings = self._meanings(self.key)
        unknown = sorted(meanings.get(UNKNOWN, ()))
        if unknown and len(meanings.keys() - {IGNORE, UNKNOWN}) > 1:
            added = [*void, *self._values(unknown)]
            yield (
                replace(self.key, unlabeled_values=added),
                f"if {some(unknown, 5)} is not labeled",
            )
        labeled = [code for code in codes if code not in meanings.get(IGNORE, ())]
        for chosen in (codes, labeled):
            if len(chosen) <= number:
                rest: list[Any] = [[]] * (number - len(chosen))
                yield Key([*self._values(chosen), *rest], void or None), ""
        if len(codes) == number + 1:
            outer = [code for code in (0, VOID) if code in found]
            least = outer[0] if outer else min(codes, key=lambda code: found[code][0])
            chosen = [code for code in codes if code != least]
            condition = f"if {text(least)} is not labeled"
            yield Key(self._values(chosen), self._values([least])), condition

    def _meanings(self, key: Key) -> dict[int, set[int]]:
        return self.census.classes(reading_of(key, len(self.classes)))


def _given(pairs: Any) -> Iterator[tuple[list[int], str]]:
    """Yields the classes that have a value."""
    return ((codes, name) for codes, name in pairs if codes)


def number_of_classes(census: Census, key: Key) -> str:
    """Returns overrides that read masks whose classes are not listed, or "" if none do.

    Args:
        key: what was typed, without `mask_values`.
    """
    codes = set(Remedies(census, key, ["", ""]).listed_codes())
    ids = codes - {VOID}
    if len(ids) > 1 and ids == set(range(len(ids))):
        return f"dataset.num_classes={len(ids)}"
    pair = Remedies(census, key, ["class_0", "class_1"])
    soft = pair.threshold()
    if soft:
        return f"dataset.num_classes=2 {pair.changes(soft)}"
    if not 2 <= len(codes) <= _MOST_CLASSES:
        return ""
    names = [f"class_{index}" for index in range(len(codes))]
    return f"dataset.num_classes={len(codes)} " + Remedies(census, key, names).name_all()
