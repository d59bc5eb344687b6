"""Choosing alpha from the scores of folds: the best one, and the one-standard-error rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SMALLER_IS_BETTER = ("loss",)


@dataclass(frozen=True)
class Selection:
    """What the scores of several folds say about the values of alpha; see `select`.

    Attributes:
        alphas: the values, in any order.
        mean: the mean score of each alpha, NaN where a fold has no score.
        error: its standard error; NaN without several folds too.
        best: position of the best alpha in `alphas`.
        one_se: position of the choice by the one-standard-error rule; `best` without several folds.
    """

    alphas: list[float]
    mean: np.ndarray
    error: np.ndarray
    best: int
    one_se: int


def select(
    alphas: Sequence[float],
    scores: np.ndarray,
    *,
    folds: int,
    metric: str = "miou",
    allowed: np.ndarray | None = None,
) -> Selection:
    """Returns mean and standard error of each alpha, and both choices.

    The best alpha has the best mean (of equals the largest). The one-standard-error choice is the
    largest alpha whose mean is no more than one standard error of the best one away from it
    (Breiman, Friedman, Olshen & Stone 1984, 3.4.3), so it is never smaller than the best. The
    standard error is sd/√K with ddof = 1; repeated folds enter the sd and not K, since they hold
    the same images.

    Args:
        scores: (repeats · folds, alphas), NaN where a path ended before. An alpha that lacks a
            score is not chosen.
        folds: K.
        metric: name of the score.
        allowed: bool (alphas,), which of them can be chosen; None = all.

    Raises:
        ValueError: if no alpha that can be chosen has all its scores.
    """
    scores = np.asarray(scores, dtype=float)
    complete = np.isfinite(scores).all(0)
    candidates = complete if allowed is None else complete & allowed
    if not candidates.any():
        raise ValueError("no alpha has a score on every fold")
    mean = np.where(complete, scores.mean(0), np.nan)
    error = np.full(len(alphas), np.nan)
    if folds > 1:
        error[complete] = scores[:, complete].std(0, ddof=1) / folds**0.5
    merit = np.where(candidates, -mean if metric in SMALLER_IS_BETTER else mean, -np.inf)
    largest_first = np.argsort(alphas)[::-1]
    best = int(largest_first[merit[largest_first].argmax()])
    near = merit >= merit[best] - np.nan_to_num(error[best])
    one_se = int(largest_first[near[largest_first].argmax()])
    return Selection(list(alphas), mean, error, best, one_se if folds > 1 else best)
