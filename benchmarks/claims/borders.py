"""(b) L1 sharpens borders."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from benchmarks.claims.claim import Claim, Row, intervals, score_rows
from benchmarks.claims.compare import Comparison, Results, Runs, adjusted, of_images, of_runs
from benchmarks.claims.measure import BOUNDARIES, Measured
from benchmarks.claims.trials import SIZES, Study, Trial, grid
from seg_l1.display.style import BLUE, ORANGE, new_figure, styled

COLUMNS = ("test_miou", *BOUNDARIES)
AT_EQUAL = "boundary F1, 1 pixel"
"""The score that is compared at equal mIoU too."""


def trials(study: Study) -> list[Trial]:
    return [t for data in study.data for t in grid(data) if t.contender in ("none", "l1")]


def comparisons(results: Results, study: Study) -> list[Comparison]:
    """Each boundary score at every size, and one of them without what the mIoU explains."""
    rows = []
    for data in study.data:
        beyond = residual(results, data)
        for images in SIZES[data]:
            strength, runs = results.best(data, images, "l1")
            _, others = results.best(data, images, "none")
            pairs = {name: of_images(runs, others, name) for name in BOUNDARIES}
            pairs[f"{AT_EQUAL}, at equal mIoU"] = of_runs(runs, others, beyond)
            rows += [
                Comparison(data, images, "l1", "none", strength, score, 1, **found)
                for score, found in pairs.items()
                if found
            ]
    return adjusted(rows)


def residual(results: Results, data: str):
    """Returns what a run's boundary score has beyond a line in its test mIoU.

    The line is fitted to all runs without a penalty, of all sizes and seeds.
    """
    runs: list[Runs] = [results.best(data, images, "none")[1] for images in SIZES[data]]
    every = [run.numbers for group in runs for run in group.values()]
    if len({numbers["test_miou"] for numbers in every}) < 3:
        return lambda run: float("nan")
    line = np.polyfit(
        [numbers["test_miou"] for numbers in every], [numbers[AT_EQUAL] for numbers in every], 1
    )

    def beyond(run: Measured) -> float:
        return run.numbers[AT_EQUAL] - float(np.polyval(line, run.numbers["test_miou"]))

    return beyond


def scores(results: Results, study: Study) -> list[Row]:
    cells = ((d, n, c) for d in study.data for c in ("none", "l1") for n in SIZES[d])
    return score_rows(results, cells, COLUMNS)


@styled
def picture(results: Results, study: Study) -> Figure | None:
    """Boundary F1 against mIoU of every run, and the differences at each size."""
    rows = comparisons(results, study)
    figure = new_figure(7.2, 3.2 * len(study.data))
    for axes, data in zip(
        figure.subplots(len(study.data), 2, squeeze=False), study.data, strict=True
    ):
        for contender, color in (("none", ORANGE), ("l1", BLUE)):
            runs = [
                run.numbers for images in SIZES[data]
                for run in results.best(data, images, contender)[1].values()
            ]  # fmt: skip
            points = [(run["test_miou"], run[AT_EQUAL]) for run in runs]
            axes[0].plot(*zip(*points, strict=True) if points else ((), ()), "o", ms=3.5,
                         color=color, label=contender)  # fmt: skip
        axes[0].set_xlabel("test mIoU")
        axes[0].set_title(f"{data}: {AT_EQUAL}")
        axes[0].legend(fontsize=7.5)
        shown = [
            row for row in rows
            if row.data == data and row.score in (AT_EQUAL, f"{AT_EQUAL}, at equal mIoU")
        ]  # fmt: skip
        labels = [f"n = {r.images}{', equal mIoU' * r.score.endswith('mIoU')}" for r in shown]
        intervals(axes[1], shown, labels)
        axes[1].set_title("difference l1 − none")
    return figure


CLAIMS = [Claim("b", "L1 sharpens borders", trials, comparisons, scores, picture)]
