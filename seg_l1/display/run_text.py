"""What the log says of one run: its network, its title, and where it starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from seg_l1.runs.files import Config
from seg_l1.runs.summary import RunSummary, Scores
from seg_l1.scope import ScopedTensor


def class_name(section: Config) -> str:
    """Returns the class that a section of the configuration names."""
    return section["_target_"].rsplit(".", 1)[-1]


def network_name(model: Config) -> str:
    """Returns the name of a network, such as "flat UNet" or "FPN on resnet18"."""
    name = model.get("arch") or class_name(model)
    flat = "flat " if model.get("growth") == 1 else ""
    return f"{flat}{name}" + (f" on {model['encoder']}" if "encoder" in model else "")


def run_title(config: Config, best: Scores) -> str:
    """Returns the title of the pictures of a run: its penalty, and the scores `best`."""
    penalty = class_name(config["regularizer"]["penalty"])
    alpha = config["regularizer"]["alpha"]
    name = "no penalty" if penalty == "Zero" else f"{penalty}, α = {alpha:g}"
    return (
        f"{name}: validation mIoU {best['val/miou']:.3f},"
        f" {100 * best['sparsity/exact']:.1f} % zeros, epoch {best['epoch']}"
    )


def start_lines(
    config: Config,
    summary: RunSummary,
    *,
    tensors: Sequence[ScopedTensor],
    device: torch.device,
    processes: int,
    folder: Path,
) -> list[str]:
    """Returns the lines that are printed before the first step of a run."""
    penalized = sum(entry.penalized for entry in tensors)
    shared = f" in {processes} processes" if processes > 1 else ""
    return [
        f"{network_name(config['model'])}: {summary.parameters:,} parameters, of which"
        f" {summary.penalised_weights:,} in {penalized} of {len(tensors)} tensors are penalized"
        f" (scope.csv); {(summary.multiply_adds or 0) / 1e6:.0f} M multiply-adds per image,"
        f" on {device}{shared}",
        f"regularization: {', and '.join(summary.shrinkage) or 'none'}",
        *(f"note: {note}" for note in summary.notes),
        f"run: {folder}",
    ]
