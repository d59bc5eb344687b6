"""Finding the images that annotations name, and the split in the name of a file or folder."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

from seg_l1.data.images import SUFFIXES, suffix_of
from seg_l1.data.layout import SPLITS
from seg_l1.data.listing import walk
from seg_l1.errors import UserError


class Finder:
    """Finds image files by the names that annotations give them.

    Args:
        places: folders, relative to which the name as given is looked up first.
        below: a folder that is then searched, at any depth, for the file name alone; or None.
    """

    def __init__(self, places: Sequence[Path], below: Path | None) -> None:
        self.places = list(dict.fromkeys(places))
        self.below = below
        self._files: dict[str, list[Path]] | None = None

    def find(self, name: str) -> Path | None:
        """Returns the file, or None if it is missing.

        Raises:
            UserError: if several files are meant.
        """
        parts = parts_of(name)
        if not parts:
            return None
        asis = Path(name.replace("\\", "/"))
        candidates = [place / Path(*parts) for place in self.places]
        for path in [*([asis] if asis.is_absolute() else []), *candidates]:
            if _is_file(path):
                return path
        return self._below(parts)

    def _below(self, parts: list[str]) -> Path | None:
        if self.below is None:
            return None
        if self._files is None:
            self._files = defaultdict(list)
            for path in walk(self.below):
                if suffix_of(path) in SUFFIXES:
                    self._files[_key(path.name)].append(path)
        found = self._files.get(_key(parts[-1]), [])
        for count in range(2, len(parts) + 1):
            if len(found) < 2:
                break
            tail = [_key(part) for part in parts[-count:]]
            deeper = [p for p in found if [_key(q) for q in p.parts[-count:]] == tail]
            found = deeper or found
        if len(found) > 1:
            raise UserError(
                f"{'/'.join(parts)}: several files have this name, {found[0]} and {found[1]}. Give"
                " the folder to look in, as images=<folder>."
            )
        return found[0] if found else None


def parts_of(name: str) -> list[str]:
    """Returns the parts of a relative path; of an absolute one the last.

    >>> parts_of("..\\\\imgs\\\\a.jpg"), parts_of("C:\\\\data\\\\a.jpg"), parts_of("/data/a.jpg")
    (['imgs', 'a.jpg'], ['a.jpg'], ['a.jpg'])
    """
    text = name.replace("\\", "/")
    parts = [part for part in text.split("/") if part not in ("", ".", "..")]
    absolute = text.startswith("/") or re.match(r"[A-Za-z]:", text)
    return parts[-1:] if absolute else parts


def split_named(name: str) -> str:
    """Returns the split that is a word of a name, as in `instances_train2017`; "" for none.

    >>> split_named("instances_val2017"), split_named("training"), split_named("trainer")
    ('val', 'train', '')
    """
    words = {word.lower() for word in re.findall(r"[^\W\d_]+", name)}
    for split, names in SPLITS.items():
        if words & {*names}:
            return split
    return ""


def split_folder(name: str) -> str:
    """Returns the split that a folder of this name holds; "" for none."""
    return next((split for split, names in SPLITS.items() if name.lower() in names), "")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        return False


def _key(name: str) -> str:
    return normalize("NFC", name).casefold()
