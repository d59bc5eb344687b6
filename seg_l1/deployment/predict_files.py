"""Prediction of files: images in; class ids, overlays and shares of the classes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from math import isnan
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from PIL.Image import Image as Picture

from seg_l1.data.bands import Bands
from seg_l1.data.images import SUFFIXES, foreign_format, suffix_of
from seg_l1.data.raster import Raster
from seg_l1.display.paint import overlay
from seg_l1.errors import UserError
from seg_l1.runs.files import make_folder, write_csv, writing


class PicturePredictor(Protocol):
    """Maps a picture to class ids (H, W) uint8 and the mean confidence, NaN if that is not known.

    `classes` are K names, and `colors` (K, 3) uint8; `bands` opens and shows the pictures.
    """

    @property
    def bands(self) -> Bands: ...

    @property
    def classes(self) -> list[str]: ...

    @property
    def colors(self) -> np.ndarray: ...

    def __call__(self, picture: Picture | Raster) -> tuple[np.ndarray, float]: ...


def predict_files(
    predictor: PicturePredictor,
    source: Path,
    target: Path,
    *,
    on_file: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Predicts an image, or all below a folder; returns which could not be read, and why.

    Writes into `target`, under the names and folders of the images: masks/*.png (grayscale, the
    value is the class id) and overlays/*.png; and shares.csv (a row per image: its size, the share
    of its pixels per class, the mean confidence of the network, empty where that is not known) and
    classes.csv (id, name, color).

    Args:
        on_file: called with the number of images done and of all.

    Raises:
        UserError: if there is no image, or if `target` cannot be written, is inside `source`, or
            holds masks/ or overlays/ that no prediction wrote.
    """
    files = _find(source)
    base = source if source.is_dir() else source.parent
    _check_target(source, target)
    colors = predictor.colors
    names = _names([file.relative_to(base) for file in files])
    rows, unreadable = [], []
    header = ["file", "width", "height", *predictor.classes, "confidence"]
    with writing(target):
        for kind in ("masks", "overlays"):
            for name in names:
                make_folder((target / kind / name).parent)
        write_csv(target / "shares.csv", header, [])  # marks the folder as one of predictions
        on_file(0, len(files))
        for index, (file, name) in enumerate(zip(files, names, strict=True)):
            try:
                picture = predictor.bands.open(file)
            except UserError as error:
                unreadable.append(str(error))
            else:
                row = _predict_picture(predictor, picture, target, name, colors)
                rows.append([file.relative_to(base).as_posix(), *row])
            on_file(index + 1, len(files))
        write_csv(target / "shares.csv", header, rows)
        numbered = enumerate(zip(predictor.classes, colors.tolist(), strict=True))
        listing = [[index, name, *color] for index, (name, color) in numbered]
        write_csv(target / "classes.csv", ["id", "class", "red", "green", "blue"], listing)
    return unreadable


def _predict_picture(
    predictor: PicturePredictor,
    picture: Picture | Raster,
    target: Path,
    name: Path,
    colors: np.ndarray,
) -> list[object]:
    """Writes mask and overlay; returns size, shares of the classes, and confidence."""
    ids, confidence = predictor(picture)
    Image.fromarray(ids).save(target / "masks" / name)
    shown = predictor.bands.colors(picture)
    Image.fromarray(overlay(shown, ids, colors=colors)).save(target / "overlays" / name)
    pixels = np.bincount(ids.ravel(), minlength=len(predictor.classes))
    shares = [f"{number / ids.size:.6f}" for number in pixels]
    return [
        picture.width,
        picture.height,
        *shares,
        "" if isnan(confidence) else f"{confidence:.4f}",
    ]


def _check_target(source: Path, target: Path) -> None:
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"output: '{target}' lies in the input folder; choose another folder")
    for kind in ("masks", "overlays"):
        if (target / kind).exists() and not (target / "shares.csv").is_file():
            raise UserError(
                f"output: '{target / kind}' already exists and was not written by predict;"
                " choose another folder"
            )


def _find(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f"input: there is no file or folder '{source}'")
    files, foreign = [], []
    for path in sorted(source.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            if suffix_of(path) in SUFFIXES:
                files.append(path)
            elif foreign_format(path):
                foreign.append(path)
    if not files and not foreign:
        raise UserError(f"input: there is no image in '{source}' ({', '.join(sorted(SUFFIXES))})")
    return sorted(files + foreign)


def _names(files: Sequence[Path]) -> list[Path]:
    """Returns a name that ends with .png for each file, all of them different.

    A .png keeps its name. Where another file has that name up to the suffix, in capitals or not,
    the others get their suffix, and a number if need be: a.png, a_jpg.png, a_jpg_2.png.
    """
    names: dict[Path, Path] = {}
    taken: set[str] = set()
    for file in sorted(files, key=lambda file: suffix_of(file) != ".png"):
        name = file.with_suffix(".png")
        longer = f"{file.stem}_{file.suffix.lower()[1:]}"
        numbers = count(1)
        while name.as_posix().casefold() in taken:
            number = next(numbers)
            name = file.with_name(f"{longer}{f'_{number}' if number > 1 else ''}.png")
        names[file] = name
        taken.add(name.as_posix().casefold())
    return [names[file] for file in files]
