"""(e) The zeros of L1 make gradients vanish; clipping, accumulation, or L2 beside L1 help."""

from __future__ import annotations

import csv
from collections.abc import Callable
from itertools import product
from statistics import fmean

import numpy as np
from matplotlib.figure import Figure

from benchmarks.claims.claim import Claim, Row, score_row
from benchmarks.claims.compare import Comparison, Results, Runs, adjusted, of_images, of_runs
from benchmarks.claims.measure import Measured
from benchmarks.claims.trials import Study, Trial
from seg_l1.display.style import BLUE, GREEN, INK, ORANGE, new_figure, styled
from seg_l1.metrics.optimality import gradients
from seg_l1.training.loop import Loop

IMAGES, SEEDS = 512, range(3)
SGD = ("optimizer=sgd", "optimizer.lr=0.05")
WAYS = {
    "none": ("none", None, ()),
    "l1": ("l1", "3e-5", ()),
    "l1 by subgradients": ("l1", "3e-5", ("regularizer.solver=subgradient",)),
    "elastic_net": ("elastic_net", "6e-5", ()),
}
"""Name -> contender, strength and words; the L1 part of the last has the strength of the others."""

REMEDIES = {"": (), "clipped": ("trainer.clip_norm=1",), "accumulated": ("trainer.accumulate=4",)}
COLORS = {"none": INK, "l1": BLUE, "l1 by subgradients": ORANGE, "elastic_net": GREEN}
FILE = "gradients.csv"


def trial(way: str, remedy: str, seed: int) -> Trial:
    contender, strength, words = WAYS[way]
    variant = " ".join(filter(None, ("sgd", "subgradient" if words else "", remedy)))
    words = (*SGD, *words, *REMEDIES[remedy])
    return Trial("digits", IMAGES, contender, strength, seed, variant.replace(" ", "-"), words)


def trials(study: Study) -> list[Trial]:
    return [trial(way, remedy, seed) for seed, remedy, way in product(SEEDS, REMEDIES, WAYS)]


def recorder(study: Study, one: Trial) -> Callable[[Loop], None]:
    """Returns what makes a training write the gradient of each penalized tensor after each epoch.

    It is the gradient of the data term alone, on the fixed sample of training images.
    """
    path = study.run(one).path / FILE

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


def norms(study: Study, one: Trial) -> dict[str, list[float]]:
    """Returns the norm of the gradient of each tensor after each epoch; {} where none was written.

    What an interrupted epoch wrote is replaced by what the resumed one wrote.
    """
    path, rows = study.run(one).path / FILE, {}
    if path.is_file():
        with path.open(newline="") as file:
            for epoch, name, norm in csv.reader(file):
                rows.setdefault(name, {})[int(epoch)] = float(norm)
    return {name: [by[epoch] for epoch in sorted(by)] for name, by in rows.items()}


def median_norm(study: Study, one: Trial) -> float:
    """Returns the median over tensors and the second half of the epochs; NaN without any."""
    every = list(norms(study, one).values())
    return float(np.median([norm[len(norm) // 2 :] for norm in every])) if every else float("nan")


def vanished(study: Study, one: Trial) -> float:
    """Returns the share of the tensors whose gradient is exactly 0 after the last epoch."""
    every = list(norms(study, one).values())
    return fmean(norm[-1] == 0 for norm in every) if every else float("nan")


def _runs(results: Results, way: str, remedy: str) -> Runs:
    wanted = {seed: trial(way, remedy, seed) for seed in SEEDS}
    return {seed: results.found[one] for seed, one in wanted.items() if one in results.found}


def comparisons(results: Results, study: Study) -> list[Comparison]:
    """Norms with each penalty − those without; each remedy − none, for the penalties with L1."""
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
        logs: dict[int, float] = {}
        for name, seeds in (((way, remedy), runs), (other, others)):
            for seed, run in seeds.items():
                logs[id(run)] = float(np.log10(median_norm(study, trial(*name, seed))))
        found = {
            "log10 of the median gradient norm": of_runs(
                runs, others, lambda run, logs=logs: logs[id(run)]
            ),
        }
        if sign > 0:
            found["test mIoU"] = of_images(runs, others, "confusion")
        labels = [f"{name} {extra}".strip() for name, extra in ((way, remedy), other)]
        strength = WAYS[way][1]
        rows += [
            Comparison("digits", IMAGES, *labels, strength, score, sign, **row)
            for score, row in found.items()
            if row
        ]
    return adjusted(rows)


def scores(results: Results, study: Study) -> list[Row]:
    rows = []
    for remedy, way in product(REMEDIES, WAYS):
        if runs := _runs(results, way, remedy):
            measured = {
                seed: Measured(
                    {**run.numbers, **_gradient_scores(study, trial(way, remedy, seed))}, run.path
                )
                for seed, run in runs.items()
            }
            columns = ("gradient_norm", "vanished", "test_miou", "zeros", "dead_channels")
            contender, strength, _ = WAYS[way]
            variant = f"{way} {remedy}".strip()
            rows.append(
                score_row("digits", IMAGES, contender, strength, measured, columns, variant)
            )
    return rows


def _gradient_scores(study: Study, one: Trial) -> dict[str, float]:
    return {"gradient_norm": median_norm(study, one), "vanished": vanished(study, one)}


@styled
def picture(results: Results, study: Study) -> Figure | None:
    """Median norm over the tensors after each epoch, and the band between the quartiles."""
    figure = new_figure(7.2, 2.9)
    for axes, remedy in zip(
        figure.subplots(1, len(REMEDIES), sharey=True, squeeze=False)[0], REMEDIES, strict=True
    ):
        for way, color in COLORS.items():
            every = [
                norm for seed in SEEDS for norm in norms(study, trial(way, remedy, seed)).values()
            ]
            if not every:
                continue
            low, middle, high = np.percentile(every, [25, 50, 75], axis=0)
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


CLAIMS = [
    Claim(
        "e",
        "the zeros of L1 make gradients vanish",
        trials,
        comparisons,
        scores,
        picture,
        before=recorder,
    )
]
