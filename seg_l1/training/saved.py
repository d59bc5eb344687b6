"""The scores of a finished run, from its saved weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seg_l1.data.batches import Batches
from seg_l1.data.classes import unnamed
from seg_l1.data.layout import find
from seg_l1.data.split import SegmentationData
from seg_l1.errors import UserError
from seg_l1.metrics.per_image import PerImage
from seg_l1.metrics.sparsity import sparsity
from seg_l1.runs import checkpoints
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.files import Config, blame_file, read_json
from seg_l1.training.build import Experiment, build
from seg_l1.training.data import load_data

FOLDER = "seg_l1.data.folder.load"
"""The `_target_` of data sets that may be other images than those of the run."""

NO_LIMIT = {"train": None, "seed": None, "val": None, "val_is_train": False}
"""The section `limit` of a configuration that uses all images."""


@dataclass(frozen=True)
class SavedRun:
    """A run with its best weights, and a split to evaluate them on.

    Attributes:
        record: the run directory.
        best: the content of `best.pt`.
        experiment: the objects of the run; its network has the best weights.
        split: "val" or "test".
        batches: of this split.
    """

    record: RunDirectory
    best: dict[str, Any]
    experiment: Experiment
    split: str
    batches: Batches

    def scores(self, per_image: PerImage | None = None) -> dict[str, float]:
        """Returns what `evaluate_run` does.

        Args:
            per_image: is given the images of the split.
        """
        loop = self.experiment.loop
        scores, _ = loop.evaluate(self.batches, per_image)
        named = {f"{self.split}/{name}": value for name, value in scores.items()}
        return named | sparsity(loop.tensors)


def load_run(
    directory: str | Path,
    split: str | None = None,
    *,
    root: str | None = None,
    device: str | None = None,
) -> SavedRun:
    """Returns a run with its best weights and data; for arguments and errors see `evaluate_run`."""
    record = RunDirectory.existing(directory, key="run")
    best = record.read_best()
    with blame_file(record.best):
        config = _evaluation_config(best["config"], root=root, device=device)
        if root is not None and config["dataset"]["_target_"] == FOLDER:
            config = _for_new_images(config, record, best["classes"])
        data = load_data(config)
        if data.classes == unnamed(len(data.classes)):
            data = replace(data, classes=[*best["classes"]])
        _check_data(data, best["classes"], best["fingerprint"])
        if data.bits != best.get("bits", 8):
            raise UserError(
                f"dataset.root: its images have {data.bits} bits per band, those of the run"
                f" {best.get('bits', 8)}; convert them, since the network takes no others"
            )
        split = _chosen_split(data, split)
        # nothing is trained, but every split has its place in a run
        splits = {"train": data.splits[split], "val": data.splits[split], **data.splits}
        data = replace(data, splits=splits, mean=best["mean"], std=best["std"])
        shapes = checkpoints.compact_state(best)
        experiment = build(config, data, pretrained=False, shapes=shapes)
        experiment.loop.model.load_state_dict(best["model"])
    batches = experiment.test if split == "test" else experiment.loop.val
    assert batches is not None
    return SavedRun(record, best, experiment, split, batches)


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
        root, device: in place of `dataset.root` and `device` of the run. In a folder that was not
            split for the run, all images are "test", and class names may be missing.

    Returns:
        "<split>/miou", "<split>/iou/<class>" and so on; "sparsity/exact" and the like.

    Raises:
        UserError: if there is no such run, checkpoint or split, or the data cannot be read.
    """
    return load_run(directory, split, root=root, device=device).scores()


def _evaluation_config(config: Config, *, root: str | None, device: str | None) -> Config:
    """Changes the configuration of a run into one in which nothing is trained."""
    config["device"] = device or config["device"]
    config["augmentation"], config["trainer"]["kkt_images"] = {"_target_": None}, 0
    config["regularizer"]["cost"] = "none"
    if config["dataset"]["image_size"] is None:
        config["dataset"]["batch_size"] = 1
    if root is not None:
        if "root" not in config["dataset"]:
            raise UserError("dataset.root: the data of this run lie in no folder; leave it out")
        config["dataset"]["root"] = root
    return config


def _for_new_images(config: Config, record: RunDirectory, classes: list[Any]) -> Config:
    """Returns the configuration that reads all images of a folder, without drawing splits.

    It stays as it is if the files are those of the run.

    Raises:
        UserError: if some of the files have names of images of the run's training.
    """
    dataset = config["dataset"]
    folder = Path(dataset["root"]).expanduser()
    if not folder.is_dir():
        return config  # which the loader refuses
    suffixes = {key: dataset.get(key) for key in ("image_suffix", "mask_suffix")}
    pairs = find(folder, **suffixes).splits.values()
    names = {image.relative_to(folder).as_posix() for split in pairs for image, _ in split}
    drawn = read_json(record.splits)["names"] if record.splits.is_file() else {}
    if drawn and names >= {name for split in drawn.values() for name in split}:
        return config  # moved: its own splits are drawn again
    shared = sorted(names & {*drawn.get("train", [])})
    if shared:
        raise UserError(
            f"dataset.root: {len(shared)} of {len(names)} images have the names of images of the"
            f" run's training, such as {shared[0]}. {_as_test(folder)}"
        )
    dataset["to_score"] = True
    if not (folder / "classes.txt").is_file():
        dataset["num_classes"] = len(classes)
    return {**config, "limit": NO_LIMIT}


def _as_test(folder: object) -> str:
    return (
        f"Put the images to score into {folder}/test/images and {folder}/test/masks, and give a"
        " folder that holds nothing else as dataset.root."
    )


def _check_data(data: SegmentationData, classes: list[Any], fingerprint: str) -> None:
    if data.classes != [*classes]:
        raise UserError(
            f"dataset.root: its classes are {', '.join(data.classes)}, the run was trained on"
            f" {', '.join(map(str, classes))}"
        )
    if data.indices and data.fingerprint != fingerprint:
        raise UserError(
            "dataset.root: these are not the files that the run's splits were drawn from, so images"
            f" of its training may be among those to score. {_as_test('<folder>')}"
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
        raise UserError("split: only val and test can be scored; the training split is augmented")
    return split
