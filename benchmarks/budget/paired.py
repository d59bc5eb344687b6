"""Whether two contenders differ, over the same test images and the same seeds.

The statistic is the difference of the test mIoU (or of another score of summed counts), pooled over
images and averaged over seeds, as in the table. It varies for two reasons, both of which a
statement about the contenders must allow for: with other seeds the networks would be others, and
other test images would rate them differently. The first variance is estimated from the S
differences of the seeds, as in a paired t-test; the second by a bootstrap of the images, which
belong to all seeds alike and do not average out over them. The sum of both has about as many
degrees of freedom as Satterthwaite (1946) gives it; with three seeds hardly more than two, so that
the interval is about as wide as that of a t-test over the seeds.

A bootstrap of seeds does not do: the mean of three values, drawn from three values, has two thirds
of the variance, and is never on the other side of 0 where all three are on one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from scipy import stats

from benchmarks.budget.measure import mious

Score = Callable[[np.ndarray], np.ndarray]
"""A score of summed counts, (..., *C) -> (...)."""


@dataclass(frozen=True)
class Paired:
    """The difference of two contenders, first minus second.

    Attributes:
        difference: of the mean score.
        low, high: the 95 % interval; NaN with one seed.
        p: two-sided; NaN with one seed.
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
    resamples: int = 1000,
    draw: int = 0,
) -> Paired | None:
    """Compares two contenders; None if they share no seed.

    Args:
        first, second: seed -> counts (N, K, K) of the test images, in the same order.
        score: of counts that are summed over images.
        resamples: of the images.
        draw: seed of the bootstrap.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    counts = [np.stack([one[seed] for seed in seeds]) for one in (first, second)]
    count, images = counts[0].shape[:2]
    by_seed = differences(counts, np.ones((1, images)), score)[0]
    difference = float(by_seed.mean())
    if count == 1:
        return Paired(difference, nan, nan, nan, count, images)
    weights = np.random.default_rng(draw).multinomial(
        images, np.full(images, 1 / images), size=resamples
    )
    of_seeds = float(by_seed.var(ddof=1)) / count
    of_images = float(differences(counts, weights, score).mean(1).var(ddof=1))
    variance = of_seeds + of_images
    if variance == 0:
        return Paired(difference, difference, difference, float(difference == 0), count, images)
    freedom = variance**2 / (of_seeds**2 / (count - 1) + of_images**2 / (images - 1))
    error = sqrt(variance)
    half = float(stats.t.ppf(0.975, freedom)) * error
    p = float(2 * stats.t.sf(abs(difference) / error, freedom))
    return Paired(difference, difference - half, difference + half, p, count, images)


def differences(counts: list[np.ndarray], weights: np.ndarray, score: Score = mious) -> np.ndarray:
    """Returns the differences (R, S) of the scores of two contenders, for R samples of images.

    Args:
        counts: two arrays (S, N, *C).
        weights: (R, N), how often an image was drawn.
        score: (..., *C) -> (...).
    """
    scores = []
    for one in counts:
        flat = one.reshape(*one.shape[:2], -1).astype(float)
        pooled = np.einsum("rn,snk->rsk", weights, flat, optimize=True)
        scores.append(score(pooled.reshape(*pooled.shape[:2], *one.shape[2:])))
    return scores[0] - scores[1]
