"""(e) The zeros of L1 make gradients vanish; clipping, accumulation, or L2 beside L1 help."""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import product

import numpy as np
from matplotlib.figure import Figure

from benchmarks.claims.claim import Claim, Row, score_row
from benchmarks.claims.compare import Comparison, Results, Runs, adjusted, of_images, of_runs
from benchmarks.claims.measure import GRADIENTS, REGIONS, Measured
from benchmarks.claims.trials import Study, Trial
from seg_l1.display.style import BLUE, GREEN, INK, ORANGE, new_figure, styled
from seg_l1.metrics.optimality import gradients
from seg_l1.training.loop import Loop

IMAGES, SEEDS = 512, range(3)
SGD = ("optimizer=sgd", "optimizer.lr=0.5")
WAYS = {
    "none": ("none", None, ()),
    "l1": ("l1", "3e-5", ()),
    "l1 by subgradients": ("l1", "3e-5", ("regularizer.solver=subgradient",)),
    "elastic_net": ("elastic_net", "6e-5", ()),
}
"""Name -> contender, strength and words; the L1 part of the last has the strength of the others."""

NORM = "log10 of the median gradient norm"
LEAST = 1e-8
"""Smaller norms count as vanished, and as this one where logarithms are taken."""

VANISHED = "share of tensors without a gradient"

REMEDIES = {"": (), "clipped": ("trainer.clip_norm=1",), "accumulated": ("trainer.accumulate=4",)}
COLORS = {"none": INK, "l1": BLUE, "l1 by subgradients": ORANGE, "elastic_net": GREEN}


def trial(way: str, remedy: str, seed: int) -> Trial:
    contender, strength, words = WAYS[way]
    variant = " ".join(filter(None, ("sgd", "subgradient" if words else "", remedy)))
    words = (*SGD, *words, *REMEDIES[remedy])
    return Trial("digits", IMAGES, contender, strength, seed, variant.replace(" ", "-"), words)


def trials(study: Study) -> list[Trial]:
    return [trial(way, remedy, seed) for seed, remedy, way in product(SEEDS, REMEDIES, WAYS)]


def recorder(study: Study, one: Trial) -> Callable[[Loop], None]:
    """Returns a function that makes a loop write each penalized tensor's gradient norm per epoch.

    It is the gradient of the data term alone, on the fixed sample of training images.
    """
    path = study.run(one).path / GRADIENTS

    def attach(loop: Loop) -> None:
        tensors = [entry for entry in loop.tensors if entry.penalized]

        def after_step(*_: object) -> None:
            step = loop.step + 1
            if step % loop.steps_per_epoch or not path.parent.is_dir():
                return
            criterion = loop.objective.criterion
            grads = gradients(loop.model, criterion, batches=loop.fixed, tensors=tensors)
            epoch = step // loop.steps_per_epoch
            rows = [
                (epoch, entry.name, float(grad.norm()))
                for entry, grad in zip(tensors, grads, strict=True)
            ]
            with path.open("a", newline="") as file:
                csv.writer(file).writerows(rows)

        loop.optimizer.register_step_post_hook(after_step)

    return attach


def median_norm(run: Measured) -> float:
    """Returns the median norm over tensors and the second half of the epochs."""
    norms = run.arrays["gradients"]
    return float(np.median(norms[len(norms) // 2 :]))


def vanished(run: Measured) -> float:
    """Returns the share of the tensors whose gradient norm is below `LEAST` in the last epoch."""
    return float((run.arrays["gradients"][-1] < LEAST).mean())


def _runs(results: Results, way: str, remedy: str) -> Runs:
    wanted = {seed: trial(way, remedy, seed) for seed in SEEDS}
    return {seed: results.found[one] for seed, one in wanted.items() if one in results.found}


def comparisons(results: Results, study: Study) -> list[Comparison]:
    """Each penalty − none; each remedy − the same penalty without it, for penalties with L1."""
    pairs = [((way, ""), ("none", ""), -1) for way in WAYS if way != "none"]
    pairs += [
        ((way, remedy), (way, ""), 1)
        for way in WAYS
        if "l1" in way
        for remedy in REMEDIES
        if remedy
    ]
    pairs += [(("elastic_net", ""), ("l1", ""), 1)]
    rows = []
    for (way, remedy), other, sign in pairs:
        runs, others = _runs(results, way, remedy), _runs(results, *other)
        found = {
            NORM: (
                sign, of_runs(runs, others, lambda r: float(np.log10(max(median_norm(r), LEAST))))
            ),
            VANISHED: (-sign, of_runs(runs, others, vanished)),
        }  # fmt: skip
        if sign > 0:
            found["test mIoU"] = (1, of_images(runs, others, REGIONS))
        labels = [f"{name} {extra}".strip() for name, extra in ((way, remedy), other)]
        strength = WAYS[way][1]
        rows += [
            Comparison("digits", IMAGES, *labels, strength, score, claimed, **row)
            for score, (claimed, row) in found.items()
            if row
        ]
    return adjusted(rows, needs)


def scores(results: Results, study: Study) -> list[Row]:
    rows = []
    for remedy, way in product(REMEDIES, WAYS):
        if runs := _runs(results, way, remedy):
            measured = {seed: _with_gradients(run) for seed, run in runs.items()}
            columns = ("gradient_norm", "vanished", "test_miou", "zeros", "dead_channels")
            contender, strength, _ = WAYS[way]
            variant = f"{way} {remedy}".strip()
            rows.append(
                score_row("digits", IMAGES, contender, strength, measured, columns, variant)
            )
    return rows


def _with_gradients(run: Measured) -> Measured:
    more = {"gradient_norm": median_norm(run), "vanished": vanished(run)}
    return Measured({**run.numbers, **more}, run.path)


@styled
def picture(results: Results, study: Study) -> Figure | None:
    """Median norm over the tensors after each epoch, and the band between the quartiles."""
    figure = new_figure(7.2, 2.9)
    for axes, remedy in zip(
        figure.subplots(1, len(REMEDIES), sharey=True, squeeze=False)[0], REMEDIES, strict=True
    ):
        for way, color in COLORS.items():
            runs = _runs(results, way, remedy).values()
            if not runs:
                continue
            every = np.concatenate([run.arrays["gradients"] for run in runs], axis=1)
            low, middle, high = np.percentile(every, [25, 50, 75], axis=1)
            epochs = range(1, len(middle) + 1)
            axes.plot(epochs, middle, color=color, label=way, lw=1.4)
            axes.fill_between(epochs, low, high, color=color, alpha=0.12, lw=0)
        axes.set_yscale("log")
        axes.set_xlabel("epoch")
        axes.set_title(remedy or "plain")
        if remedy == "":
            axes.legend(fontsize=7)
    figure.supylabel("norm of the gradient of a tensor", fontsize=9)
    return figure


def needs(row: Comparison) -> str | None:
    """The median norm where L1 makes zeros, which subgradients do not, against no penalty."""
    zeros = row.second == "none" and "subgradients" not in row.first
    return row.score if zeros and row.score == NORM else None


CLAIMS = [
    Claim(
        "e",
        "the zeros of L1 make gradients vanish",
        trials,
        comparisons,
        needs,
        scores,
        picture,
        before=recorder,
    )
]
