"""Whether two contenders differ, over the same test images and the same seeds.

The statistic is the difference of the test mIoU (or of another score of summed counts), pooled over
images and averaged over seeds, as in the table. It is no mean over images, so neither Wilcoxon's
test nor a t-test fits it; a bootstrap does. Images and seeds are drawn anew, both with replacement
and independently of each other, and each drawn image takes part with the networks of all drawn
seeds (Owen, 2007, "The pigeonhole bootstrap"): the scores of an image are alike for all seeds, and
those of a seed for all images, so that no single score is independent of the others. Three seeds
are few: then the interval is too narrow rather than too wide, as resampling n of n values has
(n - 1)/n of their variance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.budget.measure import mious

Score = Callable[[np.ndarray], np.ndarray]
"""A score of summed counts, (..., *C) -> (...)."""


@dataclass(frozen=True)
class Paired:
    """The difference of two contenders, first minus second.

    Attributes:
        difference: of the mean score.
        low, high: the 95 % interval, between percentiles of the bootstrap.
        p: twice the smaller share of resamples on one side of 0, at most 1.
        seeds, images: how many were compared.
    """

    difference: float
    low: float
    high: float
    p: float
    seeds: int
    images: int


def paired(
    first: Mapping[int, np.ndarray],
    second: Mapping[int, np.ndarray],
    *,
    score: Score = mious,
    resamples: int = 2000,
    draw: int = 0,
) -> Paired | None:
    """Compares two contenders; None if they share no seed.

    Args:
        first, second: seed -> counts (N, K, K) of the test images, in the same order.
        score: of counts that are summed over images.
        resamples: of the bootstrap.
        draw: seed of the bootstrap.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    counts = [np.stack([one[seed] for seed in seeds]) for one in (first, second)]
    count, images = counts[0].shape[:2]
    values = differences(counts, np.ones((1, images)), np.full((1, count), 1 / count), score)
    rng = np.random.default_rng(draw)
    weights = rng.multinomial(images, np.full(images, 1 / images), size=resamples)
    shares = rng.multinomial(count, np.full(count, 1 / count), size=resamples) / count
    drawn = differences(counts, weights, shares, score)
    low, high = np.percentile(drawn, [2.5, 97.5])
    sides = [int((drawn <= 0).sum()), int((drawn >= 0).sum())]
    p = min(1.0, 2 * (min(sides) + 1) / (resamples + 1))
    return Paired(float(values[0]), float(low), float(high), p, count, images)


def differences(
    counts: list[np.ndarray], weights: np.ndarray, shares: np.ndarray, score: Score = mious
) -> np.ndarray:
    """Returns the difference of the mean score of two contenders, for R resamples.

    Args:
        counts: two arrays (S, N, *C).
        weights: (R, N), how often an image was drawn.
        shares: (R, S), the weight of a seed in the mean.
        score: (..., *C) -> (...).
    """
    scores = []
    for one in counts:
        flat = one.reshape(*one.shape[:2], -1).astype(float)
        pooled = np.einsum("rn,snk->rsk", weights, flat, optimize=True)
        scores.append((score(pooled.reshape(*pooled.shape[:2], *one.shape[2:])) * shares).sum(1))
    return scores[0] - scores[1]
