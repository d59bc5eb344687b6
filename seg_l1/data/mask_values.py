"""The language of `dataset.mask_values`: which value of a mask stands for which class.

A value is an id (7) or a color ("#c83c3c", [200, 60, 60]). `mask_values` holds an entry per class:
a value, or a list of several, which may be empty. `unlabeled_values` is a list of the values that
are not labeled, or "others" for all that `mask_values` does not name.

Values are compared as codes. The code of an id is the id. That of a gray color (v, v, v) is v, so
that a grayscale mask and the same mask in RGB mean the same; other colors have codes above all ids.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from seg_l1.errors import UserError, short

OTHERS = "others"
VOID = 255
"""The id that is not labeled unless a class has it."""

LOWEST, HIGHEST = -(2**31), 2**32 - 1
FIRST_COLOR = 2**32
"""The code of the color (r, g, b) that is not gray is this plus 65536 r + 256 g + b."""

EXPECTED = (
    'a list with an entry per class: an id, a color ("#c83c3c" or [200,60,60]), or a list of these'
)
EXPECTED_UNLABELED = f"a list of ids and colors, or {OTHERS}"
_HEX = re.compile(r"#[0-9a-fA-F]{6}")


def is_entry(value: Any) -> bool:
    """Returns whether a value is an id, a color, or a list of these."""
    if isinstance(value, str):
        return _HEX.fullmatch(value) is not None
    if isinstance(value, list | tuple):
        return all(map(is_entry, value))
    return isinstance(value, int) and not isinstance(value, bool) and LOWEST <= value <= HIGHEST


def is_mask_values(value: Any) -> bool:
    """Returns whether a value can be read as `dataset.mask_values`."""
    return isinstance(_unquoted(value), list | tuple) and is_entry(_unquoted(value))


def is_unlabeled_values(value: Any) -> bool:
    """Returns whether a value can be read as `dataset.unlabeled_values`."""
    return value == OTHERS or is_mask_values(value)


MASK_VALUES = ((list, str), is_mask_values, EXPECTED)
UNLABELED_VALUES = ((list, str), is_unlabeled_values, EXPECTED_UNLABELED)
"""The types that fit, a test for values of these types, and what is expected, in words."""


def _unquoted(value: Any) -> Any:
    """Restores a list of colors whose quotes a shell took away: the text "[#c83c3c,#3cc83c]"."""
    if isinstance(value, str):
        try:
            return json.loads(re.sub(r"#\w*", r'"\g<0>"', value))
        except ValueError:
            return None
    return value


def packed(red: Any, green: Any, blue: Any) -> Any:
    """Returns the code of a color that is not gray; of arrays an array."""
    return FIRST_COLOR + (red << 16) + (green << 8) + blue


def color_code(red: int, green: int, blue: int) -> int:
    """Returns the code of a color."""
    return red if red == green == blue else int(packed(red, green, blue))


def text(code: int) -> str:
    """Returns the value of a code as it is typed.

    >>> text(7), text(color_code(200, 60, 60))
    ('7', '[200,60,60]')
    """
    if code < FIRST_COLOR:
        return str(code)
    return f"[{code >> 16 & 255},{code >> 8 & 255},{code & 255}]"


def _is_three(entry: Any) -> bool:
    """Whether an entry is a color as three numbers, unless it is meant as three ids."""
    return (
        isinstance(entry, list | tuple)
        and len(entry) == 3
        and all(isinstance(value, int) and 0 <= value <= 255 for value in entry)
    )


def _parts(entry: Any) -> Iterable[Any]:
    """Yields an entry and all that is in it."""
    yield entry
    if isinstance(entry, list | tuple):
        for value in entry:
            yield from _parts(value)


def _codes(entry: Any, *, three_are_color: bool) -> list[int]:
    if isinstance(entry, str):
        red, green, blue = bytes.fromhex(entry[1:])
        return [color_code(red, green, blue)]
    if isinstance(entry, int):
        return [entry]
    if three_are_color and _is_three(entry):
        return [color_code(*entry)]
    return [code for value in entry for code in _codes(value, three_are_color=three_are_color)]


@dataclass(frozen=True)
class Key:
    """What was typed, or was read from a listing of classes.

    Attributes:
        mask_values: an entry per class; None = the class ids themselves.
        unlabeled_values: a list of values, "others", or None.
        threshold: None, or the value from which on a pixel belongs to the class of higher value.
    """

    mask_values: Sequence[Any] | None = None
    unlabeled_values: Sequence[Any] | str | None = None
    threshold: float | None = None

    @classmethod
    def of(cls, mask_values: Any, unlabeled_values: Any, threshold: float | None) -> Key:
        """Returns the key of these arguments.

        Raises:
            UserError: naming the argument that is not as described.
        """
        if mask_values is not None and not is_mask_values(mask_values):
            raise UserError(f"dataset.mask_values: got {short(mask_values)}, expected {EXPECTED}")
        if unlabeled_values is not None and not is_unlabeled_values(unlabeled_values):
            raise UserError(
                f"dataset.unlabeled_values: got {short(unlabeled_values)}, expected"
                f" {EXPECTED_UNLABELED}"
            )
        void = unlabeled_values if unlabeled_values == OTHERS else _unquoted(unlabeled_values)
        return cls(_unquoted(mask_values), void, threshold)

    @property
    def has_three(self) -> bool:
        """Whether there is a list of three numbers, a color or three ids."""
        return any(map(_is_three, self._entries()))

    @property
    def has_colors(self) -> bool:
        """Whether palettes are to be looked up: there is a color."""
        return self.has_three or any(
            isinstance(part, str) for entry in self._entries() for part in _parts(entry)
        )

    def _entries(self) -> list[Any]:
        void = [] if self.unlabeled_values in (None, OTHERS) else self.unlabeled_values
        entries = [*(self.mask_values or []), *(void or [])]
        return [part for entry in entries for part in _parts(entry)]

    def codes(
        self, num_classes: int, *, three_are_color: bool
    ) -> tuple[list[list[int]], list[int]]:
        """Returns the codes of each class, and those that are not labeled.

        Args:
            three_are_color: whether a list of three numbers is a color, not three ids.

        Raises:
            UserError: if there is not one entry per class, or if a value occurs twice.
        """
        entries = range(num_classes) if self.mask_values is None else self.mask_values
        if len(entries) != num_classes:
            raise UserError(
                f"dataset.mask_values: {len(entries)} values for {num_classes} classes; give an"
                " entry per class"
            )
        of_class = [_codes(entry, three_are_color=three_are_color) for entry in entries]
        unlabeled: list[int] = []
        if self.unlabeled_values not in (None, OTHERS):
            for entry in self.unlabeled_values or []:
                unlabeled += _codes(entry, three_are_color=three_are_color)
        every = [code for codes in of_class for code in codes]
        twice = [code for code in every if every.count(code) > 1]
        if twice:
            raise UserError(
                f"dataset.mask_values: {short(self.mask_values)} names a value twice"
                f" ({text(twice[0])}); give each once"
            )
        both = [code for code in unlabeled if code in every]
        if both:
            owner = next(index for index, codes in enumerate(of_class) if both[0] in codes)
            shifted = [index for index in range(num_classes + 1) if index not in unlabeled]
            remedy = "leave it out here or in dataset.mask_values"
            if self.mask_values is None and len(shifted) == num_classes:
                remedy = f"give dataset.mask_values={_compact(shifted)} with it"
            raise UserError(
                f"dataset.unlabeled_values: {text(both[0])} is the value of class {owner}; {remedy}"
            )
        return of_class, unlabeled

    def quoted(self) -> str:
        """Returns `mask_values` with all colors as "#rrggbb", in the quotes that a shell needs."""
        entries = json.dumps(list(map(_hex, self.mask_values or [])), separators=(",", ":"))
        return f"'dataset.mask_values={entries}'"

    def typed(self) -> str:
        """Returns the overrides that make this key, as they are typed."""
        words = []
        if self.mask_values is not None:
            words.append(f"dataset.mask_values={_compact(self.mask_values)}")
        if self.unlabeled_values == OTHERS:
            words.append(f"dataset.unlabeled_values={OTHERS}")
        elif self.unlabeled_values is not None:
            words.append(f"dataset.unlabeled_values={_compact(self.unlabeled_values)}")
        if self.threshold is not None:
            words.append(f"dataset.mask_threshold={self.threshold:g}")
        return " ".join(words)


def value(code: int, *, as_color: bool = False) -> Any:
    """Returns the value of a code: an id, or a color as three numbers.

    Args:
        as_color: whether a gray is written as a color too.
    """
    if as_color and 0 <= code < 256:
        return [code, code, code]
    return json.loads(text(code))


def _hex(entry: Any) -> Any:
    """Writes the colors of an entry as "#rrggbb"."""
    if _is_three(entry):
        return "#" + bytes(entry).hex()
    return list(map(_hex, entry)) if isinstance(entry, list | tuple) else entry


def _compact(entries: Any) -> str:
    """Returns a list without blanks, colors as three numbers: it needs no quotes in a shell."""
    if isinstance(entries, str):
        return "[{},{},{}]".format(*bytes.fromhex(entries[1:]))
    if isinstance(entries, list | tuple):
        return f"[{','.join(map(_compact, entries))}]"
    return str(entries)
