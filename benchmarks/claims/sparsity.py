"""(d) L1 gives sparse weights and L2 smooth ones; (h) L1 by subgradients gives zeros too."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from benchmarks.claims.claim import COLORS, Claim, Row, score_row, score_rows
from benchmarks.claims.compare import Comparison, Results, Runs, adjusted, of_images, of_runs
from benchmarks.claims.measure import EDGES, REGIONS
from benchmarks.claims.trials import Study, Trial, grid
from seg_l1.display.style import BLUE, ORANGE, new_figure, styled

IMAGES, ALPHA = 512, "3e-5"
NAMES = {"zeros": "exact zeros", "near_zeros": "weights near zero",
         "total_variation": "total variation of kernels"}  # fmt: skip
COLUMNS = ("test_miou", "val_miou", *NAMES, "dead_channels")
CONTENDERS = ("none", "l1", "l2")
CLAIMED = {
    ("l1", "none", "zeros"): 1,
    ("l1", "none", "near_zeros"): 1,
    ("l2", "none", "total_variation"): -1,
    ("l2", "l1", "total_variation"): -1,
}
SUBGRADIENT, SEEDS = "subgradient", range(3)


def trials(study: Study) -> list[Trial]:
    return [t for t in grid("digits") if t.images == IMAGES and t.contender in CONTENDERS]


def comparisons(results: Results, study: Study) -> list[Comparison]:
    rows = []
    for (ours, theirs, name), sign in CLAIMED.items():
        strength, runs = results.best("digits", IMAGES, ours)
        _, others = results.best("digits", IMAGES, theirs)
        if found := of_runs(runs, others, lambda run, name=name: run.numbers[name]):
            rows.append(
                Comparison("digits", IMAGES, ours, theirs, strength, NAMES[name], sign, **found)
            )
    return adjusted(rows, needs)


def scores(results: Results, study: Study) -> list[Row]:
    return score_rows(results, (("digits", IMAGES, c) for c in CONTENDERS), COLUMNS)


@styled
def picture(results: Results, study: Study) -> Figure | None:
    """Histograms of the kernels at the last epoch, relative to the largest weight of each layer."""
    figure = new_figure(7.2, 3.4)
    chosen = {c: results.best("digits", IMAGES, c) for c in CONTENDERS}
    for axes, (contender, (strength, runs)) in zip(
        figure.subplots(1, len(chosen), sharey=True), chosen.items(), strict=True
    ):
        if not runs:
            axes.set_visible(False)
            continue
        run = runs[min(runs)]
        histogram = run.arrays["histogram"]
        axes.stairs(histogram / histogram.sum(), EDGES, fill=True, color=COLORS[contender])
        axes.set_yscale("log")
        axes.set_title(f"{contender} {strength or ''}\n{run.numbers['zeros']:.0%} exactly 0")
        axes.set_xlabel("w / largest of its layer")
    figure.supylabel("share of the weights", fontsize=9)
    return figure


def subgradient_trials(study: Study) -> list[Trial]:
    words = (f"regularizer.solver={SUBGRADIENT}",)
    return [
        trial
        for seed in SEEDS
        for trial in (
            Trial("digits", IMAGES, "l1", ALPHA, seed),
            Trial("digits", IMAGES, "l1", ALPHA, seed, SUBGRADIENT, words),
        )
    ]


def _both(results: Results) -> tuple[Runs, Runs]:
    """Runs by subgradients, and by proximal steps."""
    groups = (results.strengths("digits", IMAGES, "l1", variant) for variant in (SUBGRADIENT, ""))
    ours, theirs = (group.get(ALPHA, {}) for group in groups)
    return ours, theirs


def subgradient_comparisons(results: Results, study: Study) -> list[Comparison]:
    """The textbook method is claimed to give as many zeros and as high an mIoU."""
    ours, theirs = _both(results)
    found = {
        "exact zeros": of_runs(ours, theirs, lambda run: run.numbers["zeros"]),
        "weights near zero": of_runs(ours, theirs, lambda run: run.numbers["near_zeros"]),
        "test mIoU": of_images(ours, theirs, REGIONS),
    }
    label = "l1 by subgradients"
    rows = [
        Comparison("digits", IMAGES, label, "l1", ALPHA, score, 1, **row)
        for score, row in found.items()
        if row
    ]
    return adjusted(rows, needs_of_subgradients)


def subgradient_scores(results: Results, study: Study) -> list[Row]:
    ours, theirs = _both(results)
    return [
        score_row("digits", IMAGES, "l1", ALPHA, runs, COLUMNS, variant)
        for variant, runs in ((SUBGRADIENT, ours), ("proximal", theirs))
        if runs
    ]


@styled
def subgradient_picture(results: Results, study: Study) -> Figure | None:
    """Sorted sizes of the weights of both solvers."""
    figure = new_figure(4.6, 3.0)
    axes = figure.subplots()
    labels = (("subgradient", ORANGE), ("proximal step", BLUE))
    for (label, color), runs in zip(labels, _both(results), strict=True):
        if runs:
            sizes = runs[min(runs)].arrays["quantiles"]
            shares = np.linspace(0, 1, len(sizes))
            axes.plot(shares, np.maximum(sizes, 1e-10), color=color, label=label)
    axes.set_yscale("log")
    axes.set_ylim(1e-8, 1.5)
    axes.set_xlabel("share of the weights, largest first")
    axes.set_title("|w| / largest of its layer")
    axes.legend()
    return figure


def needs(row: Comparison) -> str | None:
    return None if row.score == NAMES["near_zeros"] else row.score


def needs_of_subgradients(row: Comparison) -> str | None:
    return row.score if row.score == NAMES["zeros"] else None


CLAIMS = [
    Claim(
        "d", "L1 gives sparse weights, L2 smooth ones", trials, comparisons, needs, scores, picture
    ),
    Claim(
        "h",
        "L1 by subgradients gives zeros too",
        subgradient_trials,
        subgradient_comparisons,
        needs_of_subgradients,
        subgradient_scores,
        subgradient_picture,
    ),
]
