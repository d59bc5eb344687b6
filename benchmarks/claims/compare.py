"""Comparisons of contenders: which strength, how large a difference, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from benchmarks.budget import paired as images_and_seeds
from benchmarks.claims.measure import SCORES, Measured
from benchmarks.claims.trials import Trial
from seg_l1.report.statistics import holm
from seg_l1.report.statistics import paired as over_seeds

Runs = dict[int, Measured]
"""Seed -> run, of one contender at one strength."""

LEVEL = 0.05


class Results:
    """The trials that are measured, as the tables ask for them."""

    def __init__(self, found: Mapping[Trial, Measured]) -> None:
        self.found = dict(found)

    def strengths(
        self, data: str, images: int, contender: str, variant: str = ""
    ) -> dict[str | None, Runs]:
        """Returns the runs of a contender by strength."""
        groups: dict[str | None, Runs] = {}
        for trial, run in self.found.items():
            key = (trial.data, trial.images, trial.contender, trial.variant)
            if key == (data, images, contender, variant):
                groups.setdefault(trial.strength, {})[trial.seed] = run
        return groups

    def best(
        self, data: str, images: int, contender: str, variant: str = ""
    ) -> tuple[str | None, Runs]:
        """Returns the strength with the highest mean validation mIoU, and its runs.

        The mean is that over the seeds that all strengths have; later seeds may be trained with the
        best strength alone. (None, {}) where nothing is.
        """
        groups = self.strengths(data, images, contender, variant)
        common = set.intersection(*map(set, groups.values())) if groups else set()
        if not common:
            return None, {}

        def validation(pair: tuple[str | None, Runs]) -> float:
            return fmean(pair[1][seed].numbers["val_miou"] for seed in common)

        return max(groups.items(), key=validation)


def values(runs: Runs, name: str) -> list[float]:
    """Returns a score of each run, by seed."""
    return [runs[seed].numbers[name] for seed in sorted(runs)]


@dataclass(frozen=True)
class Comparison:
    """The difference of two contenders in one score.

    Attributes:
        data, images: what they were trained on.
        first, second: the contenders; the difference is that of the first minus that of the second.
        strength: of the first.
        score: its name.
        claimed: the sign of the difference that the article claims.
        seeds: how many were compared.
        difference, low, high: the mean and its 95 % interval.
        p: by itself.
        adjusted: p, adjusted by Holm's method among the comparisons of its family (`adjusted`).
    """

    data: str
    images: int
    first: str
    second: str
    strength: str | None
    score: str
    claimed: int
    seeds: int
    difference: float
    low: float
    high: float
    p: float
    adjusted: float = math.nan

    @property
    def direction(self) -> int:
        """1 = significant in the claimed direction, -1 = significant against it, 0 = neither."""
        if not self.adjusted < LEVEL:
            return 0
        return 1 if self.difference * self.claimed > 0 else -1


def of_images(
    first: Runs, second: Runs, counts: str, score: Callable[[np.ndarray], np.ndarray] | None = None
) -> dict[str, float]:
    """Compares a score of test images over seeds and images; {} where there is nothing."""
    chosen = score or SCORES[counts]
    pair = images_and_seeds.paired(
        {seed: run.arrays[counts] for seed, run in first.items()},
        {seed: run.arrays[counts] for seed, run in second.items()},
        score=chosen,
    )
    if pair is None:
        return {}
    names = ("seeds", "difference", "low", "high", "p")
    return {name: getattr(pair, name) for name in names}


def of_runs(first: Runs, second: Runs, score: Callable[[Measured], float]) -> dict[str, float]:
    """Compares a score of runs over the seeds; {} where there is nothing."""
    return of_values(
        *({seed: score(run) for seed, run in runs.items()} for runs in (first, second))
    )


def of_values(first: Mapping[int, float], second: Mapping[int, float]) -> dict[str, float]:
    """Compares the scores of seeds by the paired t-test; {} where there is nothing."""
    pair = over_seeds(first, second)
    if not pair.pairs:
        return {}
    return {
        "seeds": pair.pairs, "difference": pair.difference, "low": pair.low, "high": pair.high,
        "p": pair.p,
    }  # fmt: skip


def adjusted(
    comparisons: Iterable[Comparison], needs: Callable[[Comparison], str | None]
) -> list[Comparison]:
    """Adjusts the p-values by Holm's method, in families.

    Of each data set, the comparisons that decide about the claim are one family, and those that are
    only shown are another.

    Args:
        needs: see `Claim`.
    """
    rows = list(comparisons)
    families: dict[tuple[str, bool], list[int]] = {}
    for index, row in enumerate(rows):
        families.setdefault((row.data, needs(row) is not None), []).append(index)
    for places in families.values():
        for index, p in zip(places, holm([rows[i].p for i in places]), strict=True):
            rows[index] = replace(rows[index], adjusted=p)
    return rows


def verdict(groups: Iterable[Sequence[Comparison]]) -> str:
    """Returns what comparisons say about a claim, in the words of the protocol.

    Args:
        groups: for each score that the claim needs, its comparisons.
    """
    signs = [[row.direction for row in group] for group in groups if group]
    if not signs:
        return "not tested"
    every = {sign for group in signs for sign in group}
    if {1, -1} <= every:
        return "mixed"
    if all(2 * group.count(1) >= len(group) for group in signs):
        return "true here"
    if any(2 * group.count(-1) >= len(group) for group in signs):
        return "false here"
    return "not seen here"
