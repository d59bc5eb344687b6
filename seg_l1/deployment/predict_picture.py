"""Prediction of one picture: its mask and its overlay as files, and the shares of its classes."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from PIL.Image import Image as Picture

from seg_l1.data.bands import Bands
from seg_l1.data.raster import Raster
from seg_l1.display.paint import overlay


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


def write_prediction(
    predictor: PicturePredictor, picture: Picture | Raster, target: Path, name: Path
) -> tuple[np.ndarray, float]:
    """Writes target/masks/name and target/overlays/name; returns class ids and mean confidence."""
    ids, confidence = predictor(picture)
    painted = overlay(predictor.bands.colors(picture), ids, colors=predictor.colors)
    Image.fromarray(ids).save(target / "masks" / name)
    Image.fromarray(painted).save(target / "overlays" / name)
    return ids, confidence


def shares(pixels: np.ndarray, confidence: float) -> list[str]:
    """Returns the cells of a table: the share of the pixels of each class, and the confidence."""
    cells = [f"{number / pixels.sum():.6f}" for number in pixels]
    return [*cells, "" if isnan(confidence) else f"{confidence:.4f}"]
