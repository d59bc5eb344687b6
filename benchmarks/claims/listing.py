"""(i) The article's listing, a mean absolute error of the scores, is its regularization."""

from __future__ import annotations

from itertools import product

from matplotlib.figure import Figure

from benchmarks.claims.claim import Claim, Row, score_row
from benchmarks.claims.compare import (
    Comparison,
    Results,
    Runs,
    adjusted,
    of_images,
    of_runs,
    values,
)
from benchmarks.claims.trials import SEEDS, Study, Trial
from seg_l1.display.style import BLUE, GREEN, ORANGE, new_figure, styled

IMAGES = 512
WAYS = {
    "listing": ("none", None, ("experiment=article_listing",)),
    "cross-entropy": ("none", None, ("experiment=article_listing", "loss=cross_entropy")),
    "cross-entropy and L1": ("l1", "1e-5", ("experiment=article_listing", "loss=cross_entropy",
                                            "regularizer.solver=subgradient")),
}  # fmt: skip
LABELS = {"": (), "wrong labels": ("dataset.wrong_labels=0.1",)}
COLORS = {"listing": ORANGE, "cross-entropy": GREEN, "cross-entropy and L1": BLUE}
COLUMNS = ("test_miou", "train_miou", "zeros", "near_zeros")


def trial(way: str, labels: str, seed: int) -> Trial:
    contender, strength, words = WAYS[way]
    variant = f"{way} {labels}".strip().replace(" ", "-")
    return Trial("digits", IMAGES, contender, strength, seed, variant, (*words, *LABELS[labels]))


def trials(study: Study) -> list[Trial]:
    return [
        trial(way, labels, seed) for seed, labels, way in product(SEEDS["digits"], LABELS, WAYS)
    ]


def _runs(results: Results, way: str, labels: str) -> Runs:
    wanted = {seed: trial(way, labels, seed) for seed in SEEDS["digits"]}
    return {seed: results.found[one] for seed, one in wanted.items() if one in results.found}


def comparisons(results: Results, study: Study) -> list[Comparison]:
    """The listing − the penalty of the text, and what wrong labels cost either."""
    rows = []
    for labels in LABELS:
        runs, others = (
            _runs(results, "listing", labels),
            _runs(results, "cross-entropy and L1", labels),
        )
        found = {
            "test mIoU": of_images(runs, others, "confusion"),
            "weights near zero": of_runs(runs, others, lambda run: run.numbers["near_zeros"]),
        }
        names = [f"{way} {labels}".strip() for way in ("listing", "cross-entropy and L1")]
        rows += [
            Comparison("digits", IMAGES, *names, None, score, 1, **row)
            for score, row in found.items()
            if row
        ]
    return adjusted(rows)


def scores(results: Results, study: Study) -> list[Row]:
    rows = []
    for labels, way in product(LABELS, WAYS):
        if runs := _runs(results, way, labels):
            contender, strength, _ = WAYS[way]
            name = f"{way} {labels}".strip()
            rows.append(score_row("digits", IMAGES, contender, strength, runs, COLUMNS, name))
    return rows


@styled
def picture(results: Results, study: Study) -> Figure | None:
    figure = new_figure(5.2, 3.0)
    axes = figure.subplots()
    for place, labels in enumerate(LABELS):
        for shift, (way, color) in zip((-0.15, 0, 0.15), COLORS.items(), strict=True):
            found = values(_runs(results, way, labels), "test_miou")
            axes.plot([place + shift] * len(found), found, "o", color=color, ms=4,
                      label=way if place == 0 else None)  # fmt: skip
    axes.set_xticks([0, 1], ["correct labels", "a tenth wrong"])
    axes.set_title("test mIoU of each seed")
    axes.legend(fontsize=7.5)
    return figure


CLAIMS = [
    Claim(
        "i", "the listing is the regularization of the text", trials, comparisons, scores, picture
    )
]
