"""(a) L1 reduces overfitting; and (f) random regularization is an alternative."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import product
from statistics import fmean, stdev

import numpy as np
from matplotlib.figure import Figure

from benchmarks.claims.claim import COLORS, Claim, Row, score_rows
from benchmarks.claims.compare import Comparison, Results, adjusted, of_images, of_runs, values
from benchmarks.claims.measure import REGIONS
from benchmarks.claims.trials import CONTENDERS, SIZES, Study, Trial, grid
from seg_l1.display.style import new_figure, styled

GAP, TEST = "train − test mIoU", "test mIoU"
COLUMNS = ("train_miou", "val_miou", "test_miou", "best_test_miou", "zeros", "dead_channels")
RANDOM = ("dropout", "drop_connect")
PENALTIES = tuple(name for name in CONTENDERS if name not in ("none", *RANDOM))
WITHOUT_RANDOM, WITH_RANDOM = ("none", *PENALTIES), ("none", "l1", *RANDOM)


def trials(study: Study) -> list[Trial]:
    return [t for data in study.data for t in grid(data) if t.contender in WITHOUT_RANDOM]


def random_trials(study: Study) -> list[Trial]:
    """All but the other penalties, of the sizes that random regularization is trained at."""
    every = [t for data in study.data for t in grid(data) if t.contender in WITH_RANDOM]
    sizes = {(t.data, t.images) for t in every if t.contender in RANDOM}
    return [t for t in every if (t.data, t.images) in sizes]


def comparisons(
    results: Results,
    study: Study,
    first: tuple[str, ...],
    second: tuple[str, ...],
    needs: Callable[[Comparison], str | None],
) -> list[Comparison]:
    """Gap and test mIoU at every size; of each contender at its best strength."""
    rows = []
    for data in study.data:
        for ours, theirs, images in product(first, second, SIZES[data]):
            if ours == theirs:
                continue
            strength, runs = results.best(data, images, ours)
            _, others = results.best(data, images, theirs)
            pairs = {
                GAP: (-1, of_runs(runs, others, _gap)),
                TEST: (1, of_images(runs, others, REGIONS)),
            }
            rows += [
                Comparison(data, images, ours, theirs, strength, score, sign, **found)
                for score, (sign, found) in pairs.items()
                if found
            ]
    return adjusted(rows, needs)


def _gap(run) -> float:
    return run.numbers["train_miou"] - run.numbers["test_miou"]


def scores(results: Results, study: Study, contenders: tuple[str, ...]) -> list[Row]:
    cells = ((d, n, c) for d in study.data for c in contenders for n in SIZES[d])
    return score_rows(results, cells, COLUMNS)


def center(numbers: list[float]) -> tuple[float, float]:
    """Returns mean and standard deviation, 0 of a single number."""
    return fmean(numbers), stdev(numbers) if len(numbers) > 1 else 0.0


@styled
def picture(results: Results, study: Study, contenders: tuple[str, ...]) -> Figure | None:
    """Test mIoU and gap against the number of training images, with standard deviations."""
    found = {(t.data, t.images) for t in results.found}
    shown = {
        data: sizes for data in study.data
        if (sizes := [n for n in SIZES[data] if (data, n) in found])
    }  # fmt: skip
    figure = new_figure(7.2, 2.9 * len(shown))
    grid_of_axes = figure.subplots(len(shown), 2, squeeze=False)
    for axes, (data, sizes) in zip(grid_of_axes, shown.items(), strict=True):
        for contender in contenders:
            points = []  # NaN, a gap in the line, where the contender is not trained
            for images in sizes:
                _, runs = results.best(data, images, contender)
                test, gap = values(runs, "test_miou"), [_gap(run) for run in runs.values()]
                points.append((*center(test), *center(gap)) if runs else (math.nan,) * 4)
            test, test_sd, gap, gap_sd = np.array(points).T
            if np.isnan(test).all():
                continue
            style = {
                "color": COLORS[contender],
                "fmt": "o-",
                "ms": 3.5,
                "lw": 1.4,
                "elinewidth": 0.8,
            }
            axes[0].errorbar(sizes, test, test_sd, label=contender, **style)
            axes[1].errorbar(sizes, gap, gap_sd, **style)
        for one, title in zip(axes, (TEST, GAP), strict=True):
            one.set_xscale("log", base=2)
            one.set_xticks(sizes, [str(size) for size in sizes])
            one.set_xlabel("training images")
            one.set_title(f"{data}: {title}")
        axes[0].legend(fontsize=7.5)
    return figure


def needs(row: Comparison) -> str | None:
    """Both are needed: a network that learns nothing has no gap either."""
    return row.score if row.first == "l1" else None


def needs_of_random(row: Comparison) -> str | None:
    return row.first if (row.score, row.second) == (TEST, "none") else None


CLAIMS = [
    Claim(
        "a",
        "L1 reduces overfitting",
        trials,
        partial(comparisons, first=PENALTIES, second=("none", "l1"), needs=needs),
        needs,
        partial(scores, contenders=WITHOUT_RANDOM),
        partial(picture, contenders=WITHOUT_RANDOM),
    ),
    Claim(
        "f",
        "random regularization is an alternative to L1",
        random_trials,
        partial(comparisons, first=RANDOM, second=("l1", "none"), needs=needs_of_random),
        needs_of_random,
        partial(scores, contenders=WITH_RANDOM),
        partial(picture, contenders=WITH_RANDOM),
    ),
]
