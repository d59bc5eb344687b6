"""What is measured of a finished run, with the weights of its last epoch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.budget.measure import mious, predicted
from seg_l1.data.batches import Batches
from seg_l1.metrics.segmentation import BoundaryF1, BoundaryIoU, ConfusionMatrix
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

NEAR = 0.01
"""A weight is near zero if it is smaller than this share of the largest in its tensor."""


@dataclass(frozen=True)
class Measured:
    """Scores of one run at its last epoch.

    Attributes:
        numbers: scores of the run by name.
        path: of the file with the counts.
    """

    numbers: dict[str, float]
    path: Path

    @cached_property
    def counts(self) -> dict[str, np.ndarray]:
        """Counts per test image: "confusion" (N, K, K), and (N, …, K) of each boundary score."""
        with np.load(self.path) as content:
            return {name: content[name].astype(np.int64) for name in content.files}


def measured(record: RunDirectory, folder: Path) -> Measured:
    """Measures a finished run, unless that is done; the result lies in `folder`."""
    numbers, counts = (folder / f"{record.path.name}{suffix}" for suffix in (".json", ".npz"))
    if not numbers.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        saved = load_run(record.path, "test", device="cpu")
        saved.experiment.loop.model.load_state_dict(record.model_state("last"))
        test, scores = _test(saved)
        np.savez_compressed(counts, **test)
        files.write_json(numbers, {**scores, **_run_scores(saved, record)})
    return Measured(files.read_json(numbers), counts)


def _test(saved: SavedRun) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Counts per test image, and the scores that follow from them."""
    classes = len(saved.experiment.loop.classes)
    found: dict[str, list[Tensor]] = {"confusion": [], **{name: [] for name in BOUNDARIES}}
    for ids, masks in predicted(saved.experiment.loop, saved.batches):
        for one, mask in zip(ids, masks, strict=True):
            confusion = ConfusionMatrix(classes)
            confusion.update(one[None], mask[None])
            found["confusion"].append(confusion.counts)
            for name, (kind, tolerance) in BOUNDARIES.items():
                metric = kind(classes, tolerance)
                metric.update(one[None], mask[None])
                found[name].append(metric.sums.to(torch.int64))
    counts = {name: torch.stack(rows).numpy().astype(np.int32) for name, rows in found.items()}
    scores = {name: float(SCORES[name](counts[name].sum(0))) for name in BOUNDARIES}
    return counts, {"test_miou": float(mious(counts["confusion"].sum(0))), **scores}


def _run_scores(saved: SavedRun, record: RunDirectory) -> dict[str, float]:
    experiment, summary = saved.experiment, record.read_summary()
    loop = experiment.loop
    train = Batches(experiment.data, "train", batch_size=saved.batches.batch_size)
    confusion = ConfusionMatrix(len(loop.classes))
    for ids, masks in predicted(loop, train):
        confusion.update(ids, masks)
    train_miou = float(mious(confusion.counts.numpy()))
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


def boundary_iou(sums: np.ndarray) -> np.ndarray:
    """`BoundaryIoU.compute` of sums (..., 3, K)."""
    both, predicted, true = np.moveaxis(sums.astype(float), -2, 0)
    union = predicted + true - both
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nanmean(np.where(union > 0, both / union, np.nan), axis=-1)


SCORES = {
    "confusion": mious,
    **{
        name: boundary_f1 if kind is BoundaryF1 else boundary_iou
        for name, (kind, _) in BOUNDARIES.items()
    },
}
"""Score of summed counts (..., *S) -> (...), by the name of the counts."""


@torch.no_grad()
def near_zeros(tensors: list[ScopedTensor]) -> float:
    """Share of the penalized weights below `NEAR` of the largest of their tensor; 0 is one."""
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
