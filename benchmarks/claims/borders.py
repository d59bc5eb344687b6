"""(b) L1 sharpens borders."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from benchmarks.claims.claim import Claim, Row, intervals, score_rows
from benchmarks.claims.compare import Comparison, Results, Runs, adjusted, of_images, of_values
from benchmarks.claims.measure import BOUNDARIES
from benchmarks.claims.trials import SIZES, Study, Trial, grid
from seg_l1.display.style import BLUE, ORANGE, new_figure, styled

COLUMNS = ("test_miou", *BOUNDARIES)
AT_EQUAL = "boundary F1, 1 pixel"
"""The score that is compared at equal mIoU too."""

EQUAL = f"{AT_EQUAL}, at equal mIoU"


def trials(study: Study) -> list[Trial]:
    return [t for data in study.data for t in grid(data) if t.contender in ("none", "l1")]


def comparisons(results: Results, study: Study) -> list[Comparison]:
    """Each boundary score at every size, and one of them at equal mIoU."""
    rows = []
    for data in study.data:
        for images in SIZES[data]:
            strength, runs = results.best(data, images, "l1")
            _, others = results.best(data, images, "none")
            pairs = {name: of_images(runs, others, name) for name in BOUNDARIES}
            pairs[EQUAL] = of_values(*(beyond(results, data, some) for some in (runs, others)))
            rows += [
                Comparison(data, images, "l1", "none", strength, score, 1, **found)
                for score, found in pairs.items()
                if found
            ]
    return adjusted(rows, needs)


def beyond(results: Results, data: str, runs: Runs) -> dict[int, float]:
    """Returns, by seed, what the boundary score of a run has beyond what its test mIoU explains.

    That is a curve in the mIoU, fitted to the runs without a penalty of all sizes and of the other
    seeds: a parabola where there are three sizes, else a line.
    """
    groups = [found for n in SIZES[data] if (found := results.best(data, n, "none")[1])]
    found = {}
    for seed, run in runs.items():
        others = [one.numbers for group in groups for s, one in group.items() if s != seed]
        if len({one["test_miou"] for one in others}) > min(2, len(groups) - 1) > 0:
            x, y = ([one[name] for one in others] for name in ("test_miou", AT_EQUAL))
            curve = np.polyfit(x, y, min(2, len(groups) - 1))
            found[seed] = run.numbers[AT_EQUAL] - float(np.polyval(curve, run.numbers["test_miou"]))
    return found


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
            row for row in rows if row.data == data and row.score in (AT_EQUAL, EQUAL)
        ]  # fmt: skip
        labels = [f"n = {r.images}{', equal mIoU' * r.score.endswith('mIoU')}" for r in shown]
        intervals(axes[1], shown, labels)
        axes[1].set_title("difference l1 − none")
    return figure


def needs(row: Comparison) -> str | None:
    return row.score if row.score == EQUAL else None


CLAIMS = [Claim("b", "L1 sharpens borders", trials, comparisons, needs, scores, picture)]
