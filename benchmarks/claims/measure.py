"""What is measured of a finished run, with the weights of its last epoch.

All that the tables and pictures of the study need, so that they can be made again without the runs.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.budget.measure import predicted
from seg_l1.data.batches import Batches
from seg_l1.metrics.segmentation import BoundaryF1, BoundaryIoU, ConfusionMatrix, scores
from seg_l1.metrics.sparsity import sparsity
from seg_l1.runs import files
from seg_l1.runs.directory import RunDirectory
from seg_l1.scope import ScopedTensor
from seg_l1.training.saved import SavedRun, load_run

BOUNDARIES = {
    "boundary F1, 0 pixels": (BoundaryF1, 0),
    "boundary F1, 1 pixel": (BoundaryF1, 1),
    "boundary F1, 2 pixels": (BoundaryF1, 2),
    "boundary IoU, 1 pixel": (BoundaryIoU, 1),
    "boundary IoU, 2 pixels": (BoundaryIoU, 2),
}
"""Boundary scores and their tolerances."""

REGIONS = "regions"
"""Name of the counts that the mIoU is made of."""

GRADIENTS = "gradients.csv"
"""Of a run: norms of the gradient, (epoch, tensor, norm), as `gradients.recorder` writes them."""

EDGES = np.linspace(-1, 1, 81)
"""Bins of the histogram of the weights, relative to the largest of their tensor."""

NEAR = 0.01
"""A weight is near zero if it is at most this share of the largest in its tensor."""


@dataclass(frozen=True)
class Measured:
    """Scores of one run at its last epoch.

    Attributes:
        numbers: scores of the run by name.
        path: of the file with the arrays.
    """

    numbers: dict[str, float]
    path: Path

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """What was measured besides numbers.

        Counts per test image: `REGIONS` (N, 3, K), the pixels of each class that were found, that
        were predicted and that are there; and (N, …, K) of each of `BOUNDARIES`, where they were
        asked for. "histogram" and "quantiles" of the weights (`weight_arrays`). "gradients"
        (epochs, tensors), norms, where the training recorded them.
        """
        with np.load(self.path) as content:
            found = {name: content[name] for name in content.files}
        return {name: a.astype(np.int64) if a.dtype.kind == "u" else a for name, a in found.items()}


def measured(record: RunDirectory, folder: Path, *, boundaries: bool = True) -> Measured:
    """Measures a finished run, unless that is done; the result lies in `folder`.

    Args:
        boundaries: whether to keep the counts of the boundary scores, the larger part of the file.
    """
    measured = in_folder(record.path.name, folder)
    if measured is None:
        folder.mkdir(parents=True, exist_ok=True)
        saved = load_run(record.path, "test", device="cpu")
        saved.experiment.loop.model.load_state_dict(record.model_state("last"))
        arrays = test_counts(saved)
        found = {
            "test_miou": float(mean_iou(arrays[REGIONS].sum(0))),
            **{name: float(SCORES[name](arrays[name].sum(0))) for name in BOUNDARIES},
            **_run_scores(saved, record),
        }
        kept = {name: a for name, a in arrays.items() if boundaries or name == REGIONS}
        more = weight_arrays(saved.experiment.loop.tensors) | _recorded_gradients(record)
        numbers = folder / f"{record.path.name}.json"
        np.savez_compressed(numbers.with_suffix(".npz"), **kept, **more)
        files.write_json(numbers, found)
        measured = Measured(found, numbers.with_suffix(".npz"))
    return measured


def in_folder(name: str, folder: Path) -> Measured | None:
    """Returns what was measured of a run; None if it was not."""
    numbers = folder / f"{name}.json"
    if not numbers.is_file():
        return None
    return Measured(files.read_json(numbers), numbers.with_suffix(".npz"))


def test_counts(saved: SavedRun) -> dict[str, np.ndarray]:
    """Returns the counts of each test image, in the smallest type that holds them."""
    classes = len(saved.experiment.loop.classes)
    found: dict[str, list[Tensor]] = {name: [] for name in SCORES}
    for ids, masks in predicted(saved.experiment.loop, saved.batches):
        for one, mask in zip(ids, masks, strict=True):
            confusion = ConfusionMatrix(classes)
            confusion.update(one[None], mask[None])
            counts = confusion.counts
            found[REGIONS].append(torch.stack([counts.diagonal(), counts.sum(0), counts.sum(1)]))
            for name, (kind, tolerance) in BOUNDARIES.items():
                metric = kind(classes, tolerance)
                metric.update(one[None], mask[None])
                found[name].append(metric.sums.to(torch.int64))
    stacks = {name: torch.stack(rows).numpy() for name, rows in found.items()}
    return {name: stack.astype(np.min_scalar_type(stack.max())) for name, stack in stacks.items()}


def _recorded_gradients(record: RunDirectory) -> dict[str, np.ndarray]:
    """The norms (epochs, tensors) that `gradients.recorder` wrote; {} if it was not there.

    What an interrupted epoch wrote is replaced by what the resumed one wrote.
    """
    path = record.path / GRADIENTS
    if not path.is_file():
        return {}
    norms: dict[int, dict[str, float]] = {}
    with path.open(newline="") as file:
        for epoch, name, norm in csv.reader(file):
            norms.setdefault(int(epoch), {})[name] = float(norm)
    rows = [list(norms[epoch].values()) for epoch in sorted(norms)]
    return {"gradients": np.array(rows, np.float32)}


def _run_scores(saved: SavedRun, record: RunDirectory) -> dict[str, float]:
    experiment, summary = saved.experiment, record.read_summary()
    loop = experiment.loop
    train = Batches(experiment.data, "train", batch_size=saved.batches.batch_size)
    confusion = ConfusionMatrix(len(loop.classes))
    for ids, masks in predicted(loop, train):
        confusion.update(ids, masks)
    train_miou = scores(confusion.counts)["miou"]
    shares = sparsity(loop.tensors)
    return {
        "val_miou": summary.score("val/miou", epoch="last"),
        "train_miou": train_miou,
        "best_test_miou": summary.score("test/miou"),
        "zeros": shares["sparsity/exact"],
        "dead_channels": shares["sparsity/groups"],
        "near_zeros": near_zeros(loop.tensors),
        "total_variation": total_variation(loop.tensors),
        "seconds": summary.wall_time_s or 0.0,
    }


def boundary_f1(sums: np.ndarray) -> np.ndarray:
    """`BoundaryF1.compute` of sums (..., 4, K)."""
    precise, predicted, recalled, true = np.moveaxis(sums.astype(float), -2, 0)
    precision, recall = precise / np.maximum(predicted, 1), recalled / np.maximum(true, 1)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return np.nanmean(np.where(predicted + true > 0, f1, np.nan), axis=-1)


def ious(sums: np.ndarray) -> np.ndarray:
    """IoU of each class, (..., 3, K) -> (..., K); NaN for one in neither truth nor prediction."""
    both, predicted, true = np.moveaxis(sums.astype(float), -2, 0)
    union = predicted + true - both
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(union > 0, both / union, np.nan)


def mean_iou(sums: np.ndarray) -> np.ndarray:
    """Mean IoU over the classes of sums (..., 3, K), of regions or (`BoundaryIoU`) boundaries."""
    return np.nanmean(ious(sums), axis=-1)


SCORES = {
    REGIONS: mean_iou,
    **{
        name: boundary_f1 if kind is BoundaryF1 else mean_iou
        for name, (kind, _) in BOUNDARIES.items()
    },
}
"""Score of summed counts (..., *S) -> (...), by the name of the counts."""


@torch.no_grad()
def weight_arrays(tensors: list[ScopedTensor]) -> dict[str, np.ndarray]:
    """Returns the distribution of the penalized weights, each divided by the largest of its tensor.

    "histogram": counts between `EDGES`; "quantiles": 201 of |w|, from the largest down.
    """
    parts = [
        (entry.tensor / entry.tensor.abs().max().clamp_min(1e-30)).flatten().float().numpy()
        for entry in tensors
        if entry.penalized
    ]
    weights = np.concatenate(parts)
    return {
        "histogram": np.histogram(weights, EDGES)[0].astype(np.uint32),
        "quantiles": np.quantile(np.abs(weights), np.linspace(1, 0, 201)).astype(np.float32),
    }


@torch.no_grad()
def near_zeros(tensors: list[ScopedTensor]) -> float:
    """Share of the penalized weights up to `NEAR` of the largest in their tensor, 0 included."""
    near = total = 0
    for entry in tensors:
        if entry.penalized:
            size = entry.tensor.abs()
            near += int((size <= NEAR * size.max()).sum())
            total += size.numel()
    return near / max(1, total)


@torch.no_grad()
def total_variation(tensors: list[ScopedTensor]) -> float:
    """Mean |difference| of neighboring weights of kernels / mean |weight|.

    Of the penalized kernels of 2×2 or more; about √2 for independent normal weights.
    """
    variation = steps = size = count = 0.0
    for entry in tensors:
        weight = entry.tensor
        if entry.penalized and weight.ndim == 4 and min(weight.shape[2:]) > 1:
            for axis in (2, 3):
                difference = weight.diff(dim=axis).abs()
                variation, steps = variation + float(difference.sum()), steps + difference.numel()
            size, count = size + float(weight.abs().sum()), count + weight.numel()
    return (variation / max(1, steps)) / max(1e-12, size / max(1, count))
