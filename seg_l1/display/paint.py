"""Masks in color over their images, as arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from seg_l1.data.labels import IGNORE
from seg_l1.display.colors import distinct


def palette(classes: Sequence[str]) -> np.ndarray:
    """Returns (K, 3) uint8 colors, all different: see `colors.distinct`; background is black."""
    painted = [index for index, name in enumerate(classes) if name.lower() != "background"]
    colors = np.zeros((len(classes), 3), dtype=np.uint8)
    colors[painted] = distinct(len(painted))
    return colors


def overlay(image: np.ndarray, mask: np.ndarray, *, colors: np.ndarray) -> np.ndarray:
    """Returns a mask (H, W) in color over an image (H, W, 3) uint8 in gray.

    Unlabeled pixels, and those of a black class, stay gray.
    """
    gray = image.mean(-1, keepdims=True).astype(np.uint8).repeat(3, -1)
    valid = mask != IGNORE
    paint = colors[np.where(valid, mask, 0)]
    visible = (valid & paint.any(-1))[..., None]
    mixed = (gray.astype(np.uint16) + 3 * paint.astype(np.uint16)) // 4
    return np.where(visible, mixed.astype(np.uint8), gray)
