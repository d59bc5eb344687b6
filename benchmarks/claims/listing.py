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
from benchmarks.claims.measure import REGIONS
from benchmarks.claims.trials import Study, Trial
from seg_l1.display.style import BLUE, GREEN, ORANGE, new_figure, styled

IMAGES = 512
SEEDS = {"article's": range(1), "default": range(3)}
"""By network: in this budget the article's learns little but the background (docs/study.md)."""

ARTICLE = ("experiment=article_listing",)
SUBGRADIENT = ("regularizer.solver=subgradient",)
NETS = {
    "article's": {
        "listing": ("none", None, ARTICLE),
        "cross-entropy": ("none", None, (*ARTICLE, "loss=cross_entropy")),
        "cross-entropy and L1": ("l1", "1e-5", (*ARTICLE, "loss=cross_entropy", *SUBGRADIENT)),
    },
    "default": {
        "listing": ("none", None, ("loss=mae",)),
        "cross-entropy": ("none", None, ()),
        "cross-entropy and L1": ("l1", "3e-5", ()),
    },
}
"""Network -> way -> contender, strength and words."""

LABELS = {"": (), "wrong labels": ("dataset.wrong_labels=0.1",)}
COLORS = {"listing": ORANGE, "cross-entropy": GREEN, "cross-entropy and L1": BLUE}
NEAR_ZERO = "weights near zero"
COLUMNS = ("test_miou", "train_miou", "zeros", "near_zeros")


def trial(net: str, way: str, labels: str, seed: int) -> Trial:
    contender, strength, words = NETS[net][way]
    words = (*words, *LABELS[labels])
    if net == "default" and way != "listing" and not labels:
        return Trial("digits", IMAGES, contender, strength, seed)  # a trial of other claims
    short = net.removesuffix("'s")
    variant = f"{short} {way} {labels}".strip().replace(" ", "-")
    return Trial("digits", IMAGES, contender, strength, seed, variant, words)


def trials(study: Study) -> list[Trial]:
    every = product(range(3), NETS, LABELS, COLORS)
    return [trial(net, way, labels, s) for s, net, labels, way in every if s in SEEDS[net]]


def _runs(results: Results, net: str, way: str, labels: str) -> Runs:
    wanted = {seed: trial(net, way, labels, seed) for seed in SEEDS[net]}
    return {seed: results.found[one] for seed, one in wanted.items() if one in results.found}


def name_of(net: str, way: str, labels: str) -> str:
    return f"{net} network, {way}{', ' * bool(labels)}{labels}"


def comparisons(results: Results, study: Study) -> list[Comparison]:
    """The listing − the penalty of the text, with correct and with wrong labels."""
    rows = []
    for net, labels in product([net for net in NETS if len(SEEDS[net]) > 1], LABELS):
        ways = ("listing", "cross-entropy and L1")
        runs, others = (_runs(results, net, way, labels) for way in ways)
        found = {
            "test mIoU": of_images(runs, others, REGIONS),
            NEAR_ZERO: of_runs(runs, others, lambda run: run.numbers["near_zeros"]),
        }
        names = [name_of(net, way, labels) for way in ways]
        rows += [
            Comparison("digits", IMAGES, *names, None, score, 1, **row)
            for score, row in found.items()
            if row
        ]
    return adjusted(rows, needs)


def scores(results: Results, study: Study) -> list[Row]:
    rows = []
    for net, labels, way in product(NETS, LABELS, COLORS):
        if runs := _runs(results, net, way, labels):
            contender, strength, _ = NETS[net][way]
            name = name_of(net, way, labels)
            rows.append(score_row("digits", IMAGES, contender, strength, runs, COLUMNS, name))
    return rows


@styled
def picture(results: Results, study: Study) -> Figure | None:
    """Test mIoU of each seed, by network and labels."""
    figure = new_figure(7.2, 3.0)
    for axes, net in zip(figure.subplots(1, 2), NETS, strict=True):
        for place, labels in enumerate(LABELS):
            for shift, (way, color) in zip((-0.15, 0, 0.15), COLORS.items(), strict=True):
                runs = _runs(results, net, way, labels)
                found = values(runs, "test_miou") if runs else []
                axes.plot([place + shift] * len(found), found, "o", color=color, ms=4,
                          label=way if place == 0 else None)  # fmt: skip
        axes.set_xticks([0, 1], ["correct labels", "a tenth wrong"])
        axes.set_xlim(-0.5, 1.5)
        axes.set_ylim(0, 1)
        axes.set_title(f"{net} network: test mIoU")
    figure.axes[0].legend(fontsize=7.5)
    return figure


def needs(row: Comparison) -> str | None:
    return row.score if row.score == NEAR_ZERO else None


CLAIMS = [
    Claim(
        "i",
        "the listing is the regularization of the text",
        trials,
        comparisons,
        needs,
        scores,
        picture,
    )
]
