"""The files below a folder of images or of masks, by name."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from seg_l1.data.images import SUFFIXES, foreign_format, remedy, stem_of, suffix_of
from seg_l1.errors import UserError

IGNORED = {"thumbs.db", "desktop.ini"}
"""Files that systems leave in folders."""

KEPT = ".original"
"""The suffix of what `to_png` has replaced."""


@dataclass
class Listing:
    """The files of a folder and of those in it.

    Attributes:
        folder: where they lie.
        mask: whether they are masks.
        paths: relative path without suffix -> the pictures of that name.
        foreign: files in formats of images that cannot be read.
        others: suffix -> the number of files that are no pictures.
    """

    folder: Path
    mask: bool
    paths: dict[str, list[Path]]
    foreign: list[Path]
    others: Counter[str]

    @classmethod
    def of(cls, folder: Path, *, mask: bool = False) -> Listing:
        if not folder.is_dir():
            raise UserError(f"{folder}: this folder is missing")
        listing = cls(folder, mask, defaultdict(list), [], Counter())
        for path in walk(folder):
            if suffix_of(path) in SUFFIXES:
                listing.paths[key_of(folder, path)].append(path)
            elif foreign_format(path):
                listing.foreign.append(path)
            elif suffix_of(path) != KEPT:
                listing.others[suffix_of(path)] += 1
        return listing

    def check_formats(self) -> None:
        """Refuses files in formats that cannot be read, unless a picture has the same name."""
        lonely = [path for path in self.foreign if key_of(self.folder, path) not in self.paths]
        if lonely:
            path = lonely[0]
            more = f" ({len(lonely)} such files in all)" if len(lonely) > 1 else ""
            raise UserError(
                f"{path}: is {foreign_format(path)}, which cannot be read{more}."
                f" {remedy(path, mask=self.mask)}"
            )

    @property
    def note(self) -> str:
        counts = self.others + Counter(suffix_of(path) for path in self.foreign)
        if not counts:
            return ""
        kinds = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in counts.items())
        return f"{self.folder}: files that are no pictures are left out ({kinds})"


def walk(folder: Path) -> Iterator[Path]:
    """Yields the files below `folder`, sorted; links are followed, each folder is visited once."""
    visited = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        here = os.path.realpath(where)
        pictures = [name for name in folders if Path(name).suffix.lower() in SUFFIXES]
        folders[:] = sorted(n for n in set(folders) - {*pictures} if not n.startswith("."))
        if here in visited:
            folders.clear()
            continue
        visited.add(here)
        for name in sorted(names + pictures):
            if not name.startswith(".") and name.lower() not in IGNORED:
                yield Path(where) / name


def key_of(folder: Path, path: Path) -> str:
    """Returns the relative path without suffix; macOS stores accents apart from their letters."""
    return normalize("NFC", path.relative_to(folder).with_name(stem_of(path)).as_posix())
