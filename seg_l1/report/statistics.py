"""Means, errors and tests over seeds.

sd is the standard deviation (n − 1), the standard error is sd/√n.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import ttest_rel


@dataclass(frozen=True)
class Paired:
    """A two-sided paired t test.

    Attributes:
        pairs: their number.
        difference: the mean difference.
        low, high: its 95 % confidence interval.
        p: the p value.
    """

    pairs: int
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan


def mean_and_error(values: Iterable[float]) -> tuple[float, float]:
    """Returns the mean and its standard error sd/√n; NaN where there are too few values."""
    values = list(values)
    mean = fmean(values) if values else math.nan
    return mean, stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Paired:
    """Tests whether ours − theirs has mean 0, over the seeds that both have.

    p and interval are NaN with fewer than two pairs, and where all differences are the same.
    """
    seeds = sorted(ours.keys() & theirs.keys())
    differences = [ours[seed] - theirs[seed] for seed in seeds]
    mean, error = mean_and_error(differences)
    if len(seeds) < 2 or error <= 1e-12 * max(1.0, abs(mean)):
        return Paired(len(seeds), mean)
    test = ttest_rel([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds])
    low, high = test.confidence_interval(0.95)
    return Paired(len(seeds), mean, float(low), float(high), float(test.pvalue))


def holm(p: Sequence[float]) -> list[float]:
    """Returns p values adjusted for multiple tests (Holm, 1979); NaN is no test and stays NaN."""
    adjusted, least = [math.nan] * len(p), 0.0
    tested = sorted((value, index) for index, value in enumerate(p) if not math.isnan(value))
    for rank, (value, index) in enumerate(tested):
        least = max(least, min(1.0, (len(tested) - rank) * value))
        adjusted[index] = least
    return adjusted


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Returns the points that no other one dominates, in increasing order of the first coordinate.

    A point dominates another if it is at least as large in both coordinates and larger in one.
    """
    front: list[int] = []
    order = sorted(range(len(points)), key=lambda i: points[i], reverse=True)
    for index in order:
        x, y = points[index]
        if not (math.isfinite(x) and math.isfinite(y)):
            continue
        if not front or y > points[front[-1]][1] or (x, y) == points[front[-1]]:
            front.append(index)
    return front[::-1]
