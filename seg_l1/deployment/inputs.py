"""What `predict` is given: files, folders and patterns, and the names of what it writes."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from seg_l1.data.images import SUFFIXES, foreign_format, suffix_of
from seg_l1.errors import UserError

VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm"}
"""Suffixes of the videos that are read."""


@dataclass(frozen=True)
class Inputs:
    """The files to predict.

    Attributes:
        files: each once, as it was typed or below what was typed.
        names: the path of each below the deepest folder that holds all that was typed.
    """

    files: list[Path]
    names: list[Path]


def find_inputs(sources: Sequence[str | Path], target: Path) -> Inputs:
    """Finds the images and videos of `sources`.

    Args:
        sources: files, folders, of which all images and videos are taken, and patterns (`*`, `?`,
            `[...]`, and `**` for folders in any depth). A path that exists is no pattern.
        target: a folder whose files no pattern matches.

    Raises:
        UserError: naming the first of `sources` that has no image or video, or holds `target`.
    """
    found: dict[Path, Path] = {}
    tops = []
    for source in map(Path, sources):
        if source.is_file():
            top, files = source.parent, [source]
        elif source.is_dir():
            if target.resolve().is_relative_to(source.resolve()):
                raise UserError(
                    f"output: '{target}' lies in the input folder; choose another folder"
                )
            top, files = source, _below(source)
            if not files:
                raise UserError(f"input: there is no image or video in '{source}' ({_known()})")
        else:
            top, files = _matches(source, target)
        tops.append(_absolute(top))
        for file in files:
            found.setdefault(_absolute(file), file)
    base = Path(os.path.commonpath(tops))
    return Inputs([*found.values()], [path.relative_to(base) for path in found])


def is_video(path: Path) -> bool:
    """Returns whether the suffix is one of `VIDEOS`."""
    return suffix_of(path) in VIDEOS


def output_names(
    files: Sequence[Path], suffix: str = ".png", *, taken: Iterable[Path] = ()
) -> list[Path]:
    """Returns a name that ends with `suffix` for each file, all of them different.

    A file with this suffix keeps its name. Where names differ only in suffix or case, the others
    get their own suffix as part of the name, and a number if need be: a.png, a_jpg.png,
    a_jpg_2.png.

    Args:
        taken: names that none gets.
    """
    names: dict[Path, Path] = {}
    used = {path.as_posix().casefold() for path in taken}
    for file in sorted(files, key=lambda file: suffix_of(file) != suffix):
        name = file.with_suffix(suffix)
        longer = f"{file.stem}_{file.suffix.lower()[1:]}"
        numbers = count(1)
        while name.as_posix().casefold() in used:
            number = next(numbers)
            name = file.with_name(f"{longer}{f'_{number}' if number > 1 else ''}{suffix}")
        names[file] = name
        used.add(name.as_posix().casefold())
    return [names[file] for file in files]


def _matches(pattern: Path, target: Path) -> tuple[Path, list[Path]]:
    """Returns the folder above what a pattern leaves open, and the files that it matches."""
    top, rest = Path(), [*pattern.parts]
    while len(rest) > 1 and (top / rest[0]).is_dir():  # a folder whose name has brackets, too
        top /= rest.pop(0)
    text = "/".join(rest)
    if not glob.has_magic(text):
        raise UserError(f"input: there is no file or folder '{pattern}'")
    outside = target.resolve()
    files = {}
    # Path.glob would take hidden files and folders too
    for match in sorted(glob.iglob(text, root_dir=top, recursive=True)):  # noqa: PTH207
        path = top / match
        for file in _below(path) if path.is_dir() else [path]:
            if file.resolve().is_relative_to(outside):
                continue
            files[file] = _is_known(file)
    known = [file for file, good in files.items() if good]
    if not known:
        what = f"matches no image or video ({_known()})" if files else "matches no file"
        raise UserError(f"input: '{pattern}' {what}; case matters, and ** matches folders")
    return top, known


def _below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and _is_known(path))


def _is_known(path: Path) -> bool:
    """Returns whether a file is an image, of a format that can be read or not, or a video."""
    suffix = suffix_of(path)
    known = suffix in SUFFIXES or suffix in VIDEOS or bool(foreign_format(path))
    return known and not path.name.startswith(".")


def _known() -> str:
    return ", ".join([*sorted(SUFFIXES), *sorted(VIDEOS)])


def _absolute(path: Path) -> Path:
    """Returns the path from the root, without following links."""
    return Path(os.path.normpath(path.absolute()))
