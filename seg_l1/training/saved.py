"""The scores of a finished run, from its saved weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from seg_l1.data.split import SegmentationData
from seg_l1.errors import UserError
from seg_l1.metrics.sparsity import sparsity
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.files import Config, blame_file
from seg_l1.training.build import build, load_data


def evaluate_run(
    directory: str | Path,
    split: str | None = None,
    *,
    root: str | None = None,
    device: str | None = None,
) -> dict[str, float]:
    """Scores the best weights of a finished run on one of its splits.

    Args:
        split: "val" or "test"; None = test where there is one.
        root, device: in place of `dataset.root` and `device` of the run.

    Returns:
        "<split>/miou", "<split>/iou/<class>" and so on; "sparsity/exact" and the like.

    Raises:
        UserError: if there is no such run, checkpoint or split, or the data cannot be read.
    """
    record = RunDirectory.existing(directory, key="run")
    best = record.read_best()
    with blame_file(record.best):
        config = _evaluation_config(best["config"], root=root, device=device)
        data = load_data(config)
        _check_data(data, best["classes"], best["fingerprint"])
        split = _chosen_split(data, split)
        data = replace(data, mean=best["mean"], std=best["std"])
        experiment = build(config, data, pretrained=False)
        experiment.loop.model.load_state_dict(best["model"])
    batches = experiment.test if split == "test" else experiment.loop.val
    assert batches is not None
    scores, _ = experiment.loop.evaluate(batches)
    named = {f"{split}/{name}": value for name, value in scores.items()}
    return named | sparsity(experiment.loop.tensors)


def _evaluation_config(config: Config, *, root: str | None, device: str | None) -> Config:
    """Changes the configuration of a run into one in which nothing is trained."""
    config["device"] = device or config["device"]
    config["augmentation"], config["trainer"]["kkt_images"] = {"_target_": None}, 0
    if config["dataset"]["image_size"] is None:
        config["dataset"]["batch_size"] = 1
    if root is not None:
        if "root" not in config["dataset"]:
            raise UserError("dataset.root: the data of this run lie in no folder; leave it out")
        config["dataset"]["root"] = root
    return config


def _check_data(data: SegmentationData, classes: list[Any], fingerprint: str) -> None:
    if data.classes != [*classes]:
        raise UserError(
            f"dataset.root: its classes are {', '.join(data.classes)}, the run was trained on"
            f" {', '.join(map(str, classes))}"
        )
    if data.indices and data.fingerprint != fingerprint:
        raise UserError(
            "dataset.root: these are not the files that the run's splits were drawn from, so images"
            " of its training may be among those to score. Give a folder with test/images and"
            " test/masks."
        )


def _chosen_split(data: SegmentationData, split: str | None) -> str:
    split = split or ("test" if "test" in data.splits else "val")
    if split == "test" and split not in data.splits:
        drawn, given = "train with dataset.test_fraction=0.2", "add test/images and test/masks"
        raise UserError(
            "split: this data set has no test split; use split=val, or"
            f" {drawn if data.indices else given}"
        )
    if split not in data.splits:
        raise UserError(f"split: there is no '{split}', only {', '.join(data.splits)}")
    if split == "train":
        raise UserError("split: val and test can be scored; the training split is augmented")
    return split
