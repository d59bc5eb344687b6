"""What the figures of the report show, in words, and the weights of the best runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seg_l1.display.style import png
from seg_l1.errors import UserError
from seg_l1.report import plots
from seg_l1.report.plots.common import looks
from seg_l1.report.reading import Collection
from seg_l1.report.runs import Configuration, Curve, Run, baseline
from seg_l1.report.statistics import pareto_front

if TYPE_CHECKING:
    from seg_l1.runs.directory import RunDirectory


def figures(found: Collection, all_curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """Name, title, caption and PNG of each figure; where "png" is None the caption says why."""
    several = max(len(c.runs) for curve in all_curves for c in curve.configurations) > 1
    spread = (
        "Large markers are means over n seeds, bars one standard deviation over them, faint dots"
        " the runs; all are set slightly apart sideways, so that none hides another. A regularizer"
        " without α is a horizontal line, its band one standard deviation."
        if several
        else "One seed each, so there is no spread to show. The curves are set slightly apart"
        " sideways; a regularizer without α is a horizontal line."
    )
    configurations = [c for curve in all_curves for c in curve.configurations]
    means = [(c.mean("sparsity/exact"), c.mean("val/miou")) for c in configurations]
    front = [configurations[index] for index in pareto_front(means)]
    names = _classes(found.runs)
    panels, missing = _weight_panels(all_curves)
    absent = "No run here has a regularizer with an α, so there is nothing to draw against it."
    relative = all(baseline(curve, all_curves) for curve in all_curves if curve.penalised)
    heat = (
        "Difference of the validation IoU of each class to that of none, in points of 100, means"
        " over seeds. Purple: better than none. Orange: this class pays."
        if relative
        else "Validation IoU of each class in percent, mean over seeds. (Without a run of none to"
        " every curve there is no difference to show.)"
    )
    scores = [
        ("val/miou", "validation (best epoch)", "mIoU"),
        ("test/miou", "test (weights of that epoch)", "mIoU"),
    ]
    gap = [("gap/miou", "", "train mIoU − validation mIoU")]
    drawn = [
        ("miou", "mIoU against α", plots.against_alpha(all_curves, scores), spread, absent),
        (
            "trade_off",
            "Zeros against mIoU",
            plots.trade_off(all_curves, front, "val/miou"),
            "Faint: single runs. Large: means over the seeds of a configuration. No other"
            " configuration has both more zeros and a higher mean than one on the Pareto front,"
            " whose members carry their names. Up and to the right is better.",
            "",
        ),
        (
            "gap",
            "Generalisation gap against α",
            plots.against_alpha(all_curves, gap, zero_line=True),
            "mIoU on the training images, as they were trained on, less mIoU in validation, at the"
            f" best epoch. Smaller is less overfitting. {spread}",
            absent,
        ),
        (
            "classes",
            "Which classes pay",
            plots.class_table(all_curves, names, lambda curve: baseline(curve, all_curves)),
            f"{heat} A dash: the class is in neither truth nor prediction.",
            absent if names else "The runs name no classes that they share.",
        ),
        (
            "weights",
            "The weights, sparse against smooth",
            plots.histograms(panels),
            "All penalised weights of the best run of each (by validation mIoU). The dark bar"
            " counts the weights that are exactly 0.0, the others are binned without them. The x"
            " axis is shared, and ends where 99.9\u00a0% of the widest network's weights do."
            f" {missing}",
            f"No weights could be read. {missing}",
        ),
    ]
    return [
        {
            "name": name,
            "title": title,
            "caption": (caption if figure else why).strip(),
            "png": png(figure) if figure else None,
            "width": min(100, round(10.2 * figure.get_figwidth())) if figure else 0,
        }
        for name, title, figure, caption, why in drawn
    ]


def _classes(runs: Sequence[Run]) -> list[str]:
    """The classes that all runs have, in their order."""
    start = "val/iou/"
    named = [[k[len(start) :] for k in run.summary.best if k.startswith(start)] for run in runs]
    return [name for name in named[0] if all(name in others for others in named)]


def _weight_panels(all_curves: Sequence[Curve]) -> tuple[list[tuple[str, str, np.ndarray]], str]:
    """The weights of the best runs of none, l1 and l2, or of the first three there are."""
    best: dict[str, Configuration] = {}
    for configuration in (c for curve in all_curves for c in curve.configurations):
        rival = best.setdefault(configuration.curve.regularizer, configuration)
        if _highest(configuration) > _highest(rival):
            best[configuration.curve.regularizer] = configuration
    chosen = [name for name in ("none", "l1", "l2") if name in best]
    chosen += [name for name in best if name not in chosen][: max(0, 3 - len(chosen))]
    look_of = looks(all_curves)
    panels, missing = [], []
    for configuration in (best[name] for name in chosen):
        run = configuration.best_run()
        try:
            weights = penalised_weights(run.files)
        except UserError as error:
            missing.append(f"{error}.")
        else:
            title = f"{configuration.label}, seed\u00a0{run.seed}"
            panels.append((title, look_of[configuration.curve.label].color, weights))
    return panels, " ".join(missing)


def _highest(configuration: Configuration) -> float:
    return configuration.best_run().score("val/miou")


def penalised_weights(files: RunDirectory) -> np.ndarray:
    """All penalised weights of a run in one array, float32.

    Raises:
        UserError: if `model.safetensors` or `scope.csv` cannot be read, or do not fit.
    """
    try:
        weights = files.read_weights(files.penalized_tensors())
    except UserError as error:
        raise UserError(f"{files.path.name}: no weights ({error})") from None
    parts = [tensor.ravel() for tensor in weights.values()]
    return np.concatenate([np.zeros(0), *parts]).astype(np.float32)
