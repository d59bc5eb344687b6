"""(c) L1 sharpens textures: classes of CamVid whose images have a high local entropy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from scipy.ndimage import uniform_filter

from benchmarks.budget.table import plus_minus
from benchmarks.claims.claim import Claim, Row, intervals
from benchmarks.claims.compare import Comparison, Results, adjusted, of_images
from benchmarks.claims.measure import REGIONS, ious
from benchmarks.claims.trials import SIZES, Study, Trial, grid
from seg_l1.display.style import BLUE, INK, ORANGE, new_figure, styled

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign_symbol", "fence", "car",
    "pedestrian", "bicyclist",
)  # fmt: skip
FLAT = ("sky", "road", "pavement")
"""Chosen by `entropies` before any training; the other classes are textured."""

LEVELS, WINDOW = 32, 9


def textured(counts: np.ndarray) -> np.ndarray:
    """Mean IoU of the textured classes, of counts (..., 3, K)."""
    return np.nanmean(ious(counts)[..., [name not in FLAT for name in CLASSES]], axis=-1)


def flat(counts: np.ndarray) -> np.ndarray:
    """Mean IoU of the flat classes, of counts (..., 3, K)."""
    return np.nanmean(ious(counts)[..., [name in FLAT for name in CLASSES]], axis=-1)


BEYOND = "textured − flat"
SCORES = {
    "IoU of textured classes": textured,
    "IoU of flat classes": flat,
    BEYOND: lambda counts: textured(counts) - flat(counts),
}


def entropies(root: Path) -> dict[str, float]:
    """Returns the mean local entropy in bits of each class of CamVid's training images.

    The local entropy of a pixel is that of the histogram of gray values (32 levels) of the 9×9
    pixels around it, in the images at their full size.
    """
    total, pixels = np.zeros(len(CLASSES)), np.zeros(len(CLASSES))
    for mask in sorted((root / "train/masks").iterdir()):
        ids = np.asarray(Image.open(mask))
        (path,) = (root / "train/images").glob(f"{mask.stem}.*")
        gray = np.asarray(Image.open(path).convert("L")) // (256 // LEVELS)
        entropy = np.zeros(gray.shape)
        for level in range(LEVELS):
            share = uniform_filter((gray == level).astype(np.float64), WINDOW)
            entropy -= share * np.log2(np.maximum(share, 1e-12))
        for number in range(len(CLASSES)):
            total[number] += entropy[ids == number].sum()
            pixels[number] += (ids == number).sum()
    return dict(zip(CLASSES, (total / np.maximum(pixels, 1)).tolist(), strict=True))


def trials(study: Study) -> list[Trial]:
    return [t for t in grid("camvid") if t.contender in ("none", "l1") and t.data in study.data]


def comparisons(results: Results, study: Study) -> list[Comparison]:
    rows = []
    for images in SIZES["camvid"]:
        strength, runs = results.best("camvid", images, "l1")
        _, others = results.best("camvid", images, "none")
        for name, score in SCORES.items():
            if found := of_images(runs, others, REGIONS, score):
                rows.append(Comparison("camvid", images, "l1", "none", strength, name, 1, **found))
    return adjusted(rows, needs)


def scores(results: Results, study: Study) -> list[Row]:
    rows = []
    for contender in ("none", "l1"):
        for images in SIZES["camvid"]:
            for strength, runs in results.strengths("camvid", images, contender).items():
                row = {
                    "data": "camvid", "images": images, "contender": contender,
                    "strength": strength, "seeds": len(runs),
                }  # fmt: skip
                totals = [runs[seed].arrays[REGIONS].sum(0) for seed in sorted(runs)]
                for name, score in SCORES.items():
                    row[name] = plus_minus([float(score(one)) for one in totals])
                per_class = np.mean([ious(one) for one in totals], axis=0)
                row |= dict(zip(CLASSES, per_class.tolist(), strict=True))
                rows.append(row)
    return rows


@styled
def picture(results: Results, study: Study) -> Figure | None:
    """Differences with their intervals, and the mean difference of each class."""
    rows = comparisons(results, study)
    if not rows:
        return None
    figure = new_figure(7.2, 3.4)
    left, right = figure.subplots(1, 2)
    rows.sort(key=lambda row: list(SCORES).index(row.score))
    intervals(left, rows, [f"{row.score}, n = {row.images}" for row in rows])
    left.set_title("difference l1 − none")
    order = sorted(range(len(CLASSES)), key=lambda number: CLASSES[number] in FLAT)
    for images, color in zip(SIZES["camvid"], (ORANGE, BLUE), strict=True):
        ours, theirs = (results.best("camvid", images, name)[1] for name in ("l1", "none"))
        if seeds := ours.keys() & theirs.keys():
            per_class = [
                np.mean([ious(runs[seed].arrays[REGIONS].sum(0)) for seed in seeds], axis=0)
                for runs in (ours, theirs)
            ]
            points = (per_class[0] - per_class[1])[order], range(len(order))[::-1]
            right.plot(*points, "o", color=color, ms=5, label=f"n = {images}")
    right.axvline(0, color=INK, lw=0.8)
    right.axhline(len(FLAT) - 0.5, color=INK, lw=0.8, ls=":")
    names = [CLASSES[number].replace("_", " ") for number in order]
    right.set_yticks(range(len(order))[::-1], names)
    right.set_title("IoU of each class, l1 − none")
    right.legend(fontsize=7.5, loc="center left")
    return figure


def needs(row: Comparison) -> str | None:
    return row.score if row.score == BEYOND else None


CLAIMS = [Claim("c", "L1 sharpens textures", trials, comparisons, needs, scores, picture)]
