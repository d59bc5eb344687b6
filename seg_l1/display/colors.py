"""Colors of classes that a person can tell apart."""

from __future__ import annotations

from functools import cache

import numpy as np
from matplotlib import colormaps

GRAY = 30.0
"""Smallest chroma in CIELAB of a color: what is not painted is gray."""


def lab(colors: np.ndarray) -> np.ndarray:
    """Returns sRGB colors (..., 3), from 0 to 255, in CIELAB (D65): L from 0 to 100, a and b."""
    share = np.asarray(colors) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    relative = linear @ np.array(to_xyz).T / [0.9505, 1.0, 1.089]
    root = np.where(
        relative > (6 / 29) ** 3, np.cbrt(relative), relative * (29 / 6) ** 2 / 3 + 4 / 29
    )
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


@cache
def _ordered(count: int) -> np.ndarray:
    """Returns `count` colors; the first of them do not depend on `count`.

    They begin with matplotlib's tab10 without its gray. Each further one is that of a grid which
    is farthest in CIELAB from all before it (Gonzalez 1985).
    """
    strong = [index for index in range(10) if index != 7]
    chosen = [*(colormaps["tab10"](strong)[:, :3] * 255).astype(np.uint8)]
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    places = lab(grid)
    colorful = (np.hypot(places[:, 1], places[:, 2]) >= GRAY) & (places[:, 0] >= 20)
    grid, places = grid[colorful], places[colorful]
    nearest = np.full(len(grid), np.inf)
    for color in chosen:
        nearest = np.minimum(nearest, np.linalg.norm(places - lab(color), axis=1))
    while len(chosen) < count:
        best = int(nearest.argmax())
        chosen.append(grid[best])
        nearest = np.minimum(nearest, np.linalg.norm(places - places[best], axis=1))
    return np.stack(chosen[:count]) if count else np.zeros((0, 3), dtype=np.uint8)


def distinct(count: int) -> np.ndarray:
    """Returns (count, 3) uint8 colors, none gray, that are far from each other; see `_ordered`."""
    return _ordered(count).copy()
