"""Where the images go: relative paths, unique and readable, and the splits that they name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from unicodedata import normalize

from seg_l1.data.convert.finder import parts_of, split_folder
from seg_l1.data.convert.source import Item, Remarks
from seg_l1.data.images import SUFFIXES, stem_of

FORMATS = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"BM": ".bmp", b"GI": ".gif", b"RI": ".webp"}
"""Suffixes of embedded images by their first bytes."""


def split_by_folders(items: Sequence[Item]) -> None:
    """Takes the split of each item from its first folder, if all name one, and not all the same."""
    if any(item.split for item in items):
        return
    parts = [parts_of(item.name) for item in items]
    splits = [split_folder(one[0]) if len(one) > 1 else "" for one in parts]
    if all(splits) and len({*splits}) > 1:
        for item, split, one in zip(items, splits, parts, strict=True):
            item.split, item.name = split, "/".join(one[1:])


def targets(items: Sequence[Item], notes: Remarks) -> list[PurePosixPath]:
    """Returns the path of each image below images/; masks have the same with the suffix .png."""
    taken: set[tuple[str, str]] = set()
    found = []
    for item in items:
        path = PurePosixPath(
            *_readable(parts_of(item.name) or ["image"], in_split=bool(item.split))
        )
        stem = stem_of(Path(path.name)) if _suffix(path.name) in SUFFIXES else path.name
        suffix = _suffix(item.image.name) if isinstance(item.image, Path) else ""
        if isinstance(item.image, bytes):
            suffix = FORMATS.get(item.image[:2], ".png")
        number, unique = 1, stem
        while (item.split, _key(path.with_name(f"{unique}.png"))) in taken:
            number += 1
            unique = f"{stem}_{number}"
        if unique != stem:
            notes.add(
                "images renamed, since another has the same name",
                f"{item.name} -> {unique}{suffix}",
            )
        taken.add((item.split, _key(path.with_name(f"{unique}.png"))))
        found.append(path.with_name(f"{unique}{suffix}"))
    return found


def _readable(parts: Sequence[str], *, in_split: bool) -> list[str]:
    """Returns the parts, renamed so that none is skipped or mistaken for a picture or a split."""
    clean = ["".join(c if c.isprintable() else "_" for c in part) for part in parts]
    clean = [f"_{part[1:]}" if part.startswith(".") else part for part in clean]
    folders = [part.replace(".", "_") if _suffix(part) in SUFFIXES else part for part in clean[:-1]]
    if folders and not in_split and split_folder(folders[0]):
        folders[0] += "_"
    return [*folders, clean[-1]]


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _key(path: PurePosixPath) -> str:
    return normalize("NFC", str(path)).casefold()
