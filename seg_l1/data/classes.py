"""The classes of a folder: `classes.txt`, or `class_dict.csv`, with or without colors."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from seg_l1.data.masks import UNKNOWN
from seg_l1.errors import UserError, first_line, short

LISTINGS = ("classes.txt", "class_dict.csv")
_COLORED = re.compile(r"(?P<name>.*?)\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})")
_HEADER = re.compile(r"[^,]+(,\s*[A-Za-z]\w*\s*){3}")


def read_classes(
    folder: Path,
    num_classes: int | None,
    mask_values: Sequence[Any] | None = None,
    suggest: Callable[[], str] = str,
) -> tuple[list[str], list[list[int]] | None]:
    """Returns the names of the classes, and their colors in the masks where the listing has them.

    A line is a name, or a name and a color (name, r, g, b); a header of these four is left out.

    Args:
        num_classes: their number, checked against the listing; without one, classes are numbered.
        mask_values: an entry per class; their number, where nothing else gives it.
        suggest: returns the overrides that a person can give who has no listing, or "".

    Raises:
        UserError: if neither listing nor number is given, or if a line is malformed.
    """
    listing = next((folder / name for name in LISTINGS if (folder / name).is_file()), None)
    if listing is None:
        if num_classes is None and mask_values is not None:
            num_classes = len(mask_values)
        if num_classes is None:
            raise UserError(
                f"{folder / LISTINGS[0]}: is missing. Write a class name per line, or give"
                f" {suggest() or 'dataset.num_classes=<number>'}"
            )
        return unnamed(num_classes), None
    names, colors = _read(listing)
    if num_classes not in (None, len(names)):
        raise UserError(f"{listing}: names {len(names)} classes, dataset.num_classes={num_classes}")
    if not 1 <= len(names) <= UNKNOWN:
        raise UserError(f"{listing}: names {len(names)} classes; expected 1 to {UNKNOWN}")
    for name in names:
        if len(name) > 100 or not name.isprintable():
            raise UserError(f"{listing}: {short(name)} is no name; expected up to 100 letters")
    if len(set(names)) < len(names):
        raise UserError(f"{listing}: names a class twice; rename one")
    return names, colors


def unnamed(count: int) -> list[str]:
    """Returns the names of classes of which the number alone is given."""
    return [f"class_{index}" for index in range(count)]


def _read(listing: Path) -> tuple[list[str], list[list[int]] | None]:
    try:
        lines = [line.strip() for line in listing.read_text("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{listing}: is not UTF-8 ({first_line(error)})") from None
    lines = [line.replace('"', "") if listing.suffix == ".csv" else line for line in lines if line]
    matches = [_COLORED.fullmatch(line) for line in lines]
    if not any(matches):
        if listing.suffix == ".csv":
            raise UserError(f"{listing}: holds no line 'name, r, g, b' with a color of 0 to 255")
        return lines, None
    if matches[0] is None and _HEADER.fullmatch(lines[0]):
        del lines[0], matches[0]
    names, colors = [], []
    for line, match in zip(lines, matches, strict=True):
        color = [int(part) for part in match.groups()[1:]] if match else [256]
        if match is None or max(color) > 255 or not match["name"]:
            raise UserError(
                f"{listing}: {short(line)} is not like the lines with a color; expected"
                " 'name, r, g, b' with numbers from 0 to 255 in all lines, or in none"
            )
        names.append(match["name"])
        colors.append(color)
    twice = next((color for color in colors if colors.count(color) > 1), None)
    if twice:
        raise UserError(f"{listing}: gives the color {twice} to two classes; give each its own")
    return names, colors
