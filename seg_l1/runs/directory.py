"""The run directory: the only place that knows its file names and formats."""

from __future__ import annotations

import json
import math
import shutil
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from seg_l1.errors import UserError, can_go_on, described
from seg_l1.runs import checkpoints, files, tables, weights
from seg_l1.runs.summary import RunSummary
from seg_l1.runs.trust import check_targets
from seg_l1.scope import Rule, ScopedTensor

COMPACT_FOLDER = "compact"
"""The folder of the compact network of a run."""


class RunDirectory:
    """Paths, readers and writers of one run; every file is replaced atomically.

    Attributes:
        path: the folder of the run.
        config: the resolved configuration, YAML.
        overrides: what the user typed, a YAML list.
        environment: versions, git commit, device, seed and data fingerprint, JSON.
        scope: which tensors are penalized, and by which rule, CSV.
        splits: which images are in which split, JSON; only of data that are split by the seed.
        metrics: a row per epoch, CSV.
        classes: a row per class with its scores at the best epoch, CSV.
        confusion: the confusion matrix of the best weights, PNG.
        preview: images, truth and predictions of the best weights, PNG.
        summary: a `RunSummary`, JSON.
        last: the checkpoint after the last epoch or interruption: all that a run needs to go on.
        best: the weights of the best epoch, with what another program needs to use them.
        weights: the weights of the best epoch for other programs, safetensors.
        tensorboard: the folder of TensorBoard's event files.
        log: what the run printed, and the traceback if it failed.
        evaluation: the folder in which evaluate writes the scores of each image.
        compaction, channels: what became of the channels of a compact network, JSON and PNG.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.overrides = self.path / "overrides.yaml"
        self.environment = self.path / "environment.json"
        self.scope = self.path / "scope.csv"
        self.splits = self.path / "splits.json"
        self.metrics = self.path / "metrics.csv"
        self.classes = self.path / "per_class.csv"
        self.confusion = self.path / "confusion.png"
        self.preview = self.path / "preview.png"
        self.summary = self.path / "summary.json"
        self.last = self.path / "checkpoints" / "last.pt"
        self.best = self.path / "checkpoints" / "best.pt"
        self.weights = self.path / "model.safetensors"
        self.tensorboard = self.path / "tensorboard"
        self.log = self.path / "train.log"
        self.evaluation = self.path / "evaluation"
        self.compaction = self.path / "compact.json"
        self.channels = self.path / "compact.png"

    @property
    def compact(self) -> RunDirectory:
        """The run directory, within this one, of the compact network."""
        return RunDirectory(self.path / COMPACT_FOLDER)

    def create(self) -> None:
        """Creates the folders; files of an attempt without a checkpoint are overwritten.

        Raises:
            UserError: if they cannot be made, or if the folder holds a run already.
        """
        if self.last.exists() or self.weights.exists():
            raise UserError(
                f"{self.path}: holds a run already. Continue it with resume={self.path}, or choose"
                " another hydra.run.dir."
            )
        try:
            files.make_folder(self.last.parent)
        except UserError as error:
            raise UserError(f"{error} Choose another hydra.run.dir.") from error

    def tidy(self) -> None:
        """Removes temporary files of a killed process."""
        for path in [*self.path.rglob(".*.tmp")]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    @classmethod
    def existing(cls, path: str | Path, *, key: str = "resume") -> RunDirectory:
        """Returns the run at `path`, which can go on (`key` "resume") or has trained weights.

        Raises:
            UserError: naming `key`, if a file is missing for that.
        """
        run = cls(Path(path))
        words, wanted = "with trained weights", [run.best]
        if key == "resume":
            words, wanted = "that can go on", [run.config, run.overrides, run.last]
        for needed in wanted:
            if not needed.is_file():
                raise UserError(
                    f"{key}: '{path}' is not a run {words} ({needed.relative_to(run.path)}"
                    " is missing). Give a folder of outputs/runs."
                )
        return run

    @classmethod
    def below(cls, folder: Path) -> list[RunDirectory]:
        """All runs in `folder` and the folders in it, by their paths.

        The compact network of a run does not count as a run of its own.
        """
        found = [cls(path.parent) for path in sorted(folder.rglob(cls(folder).summary.name))]
        return [run for run in found if run.path == folder or not run._is_within_a_run()]

    def _is_within_a_run(self) -> bool:
        return self.path.name == COMPACT_FOLDER and RunDirectory(self.path.parent).summary.is_file()

    def read_config(self) -> files.Config:
        """The resolved configuration; a missing or damaged file is a `UserError`."""
        config = files.read_yaml(self.config)
        if not isinstance(config, dict):
            raise UserError(
                f"{self.config}: is not a configuration. Restore a copy, or train again."
            )
        return config

    def write_config(self, config: files.Config) -> None:
        files.write_yaml(self.config, config)

    def read_overrides(self) -> list[str]:
        """What the user typed; a missing or damaged file is a `UserError`."""
        overrides = files.read_yaml(self.overrides)
        if not isinstance(overrides, list):
            raise UserError(f"{self.overrides}: is no list of overrides. Write '[]' for none.")
        return [str(override) for override in overrides]

    def write_overrides(self, overrides: list[str]) -> None:
        files.write_yaml(self.overrides, overrides)

    def read_environment(self) -> dict[str, Any]:
        """See `runs.environment`; a missing or damaged file is a `UserError`."""
        with files.blame_file(self.environment):
            return dict(json.loads(self.environment.read_text("utf-8")))

    def write_environment(self, environment: dict[str, Any]) -> None:
        files.write_json(self.environment, environment)

    def write_splits(self, indices: dict[str, list[int]], names: dict[str, list[str]]) -> None:
        """Which images are in which split, by their positions and names."""
        files.write_json(self.splits, {"indices": indices, "names": names})

    def read_summary(self, *, missing_ok: bool = False) -> RunSummary:
        """Returns the summary: progress and scores.

        Args:
            missing_ok: a run without a summary, or with a damaged one, has the status "pending".

        Raises:
            UserError: unless `missing_ok`, if there is no summary, or a damaged one.
        """
        try:
            with files.blame_file(self.summary):
                return RunSummary.read(self.summary)
        except UserError:
            if not missing_ok:
                raise
            return RunSummary("pending")

    def write_summary(self, summary: RunSummary) -> None:
        files.write_json(self.summary, summary.content())

    def write_failure(self, error: Exception) -> None:
        """Adds the traceback to the log, and status and error to the summary.

        Raises:
            UserError, RunError: if they cannot be written.
        """
        files.make_folder(self.path)
        with files.writing(self.log), open(self.log, "a", encoding="utf-8") as file:
            file.write("".join(traceback.format_exception(error)))
        status = "interrupted" if can_go_on(error) else "failed"
        summary = self.read_summary(missing_ok=True)
        self.write_summary(replace(summary, status=status, error=described(error)))

    def write_last(self, loop: dict[str, Any], *, elapsed: float, about: dict[str, Any]) -> None:
        """Writes `checkpoints/last.pt`: all that a run needs to go on.

        Args:
            loop: `Loop.state_dict()`, with the state of the network under "model".
            elapsed: seconds of work so far.
            about: what another program needs to use the weights: "config", "classes", "mean",
                "std", "fit" and "fingerprint" of the data.
        """
        state = {"loop": loop, "random": checkpoints.random_state(), "elapsed": elapsed}
        checkpoints.save(self.last, {**state, **about})

    def write_best(
        self, model: nn.Module, *, epoch: int, about: dict[str, Any], polished: bool = False
    ) -> None:
        """Writes `checkpoints/best.pt`: the weights of the best `epoch`.

        Args:
            about: see `write_last`.
            polished: whether they were changed after training, see `training.run.run`.
        """
        state = {"model": model.state_dict(), "epoch": epoch, "polished": polished}
        checkpoints.save(self.best, {**state, **about})

    def model_state(self, which: Literal["last", "best"]) -> dict[str, Tensor]:
        """The weights and batch-norm statistics of the last or of the best epoch.

        Raises:
            UserError: if there is no such checkpoint, or a damaged one.
        """
        path = self.last if which == "last" else self.best
        checkpoint = checkpoints.load(path)
        with files.blame_file(path):
            return checkpoints.model_state(checkpoint)

    def read_best(self) -> dict[str, Any]:
        """The content of `checkpoints/best.pt`, see `write_best`.

        Raises:
            UserError: if it is missing, damaged, or would call what is not of this program.
        """
        best = checkpoints.load(self.best)
        with files.blame_file(self.best):
            check_targets(best["config"], self.best)
            measures = (*best["mean"], *best["std"])
            if len(best["mean"]) != len(best["std"]) or not all(map(math.isfinite, measures)):
                raise ValueError("mean and std are not those of the channels")
            if "model" not in best:  # a `last.pt` has its weights elsewhere
                raise KeyError("model")
            if not all(isinstance(name, str) for name in best["classes"]):
                raise ValueError("its classes are no names")
        return best

    def write_scope(self, tensors: Sequence[ScopedTensor], rules: Sequence[Rule]) -> None:
        """A row per tensor of the network: its rule, and whether that penalizes it."""
        tables.write_scope(self.scope, tensors, rules)

    def penalized_tensors(self) -> dict[str, int]:
        """The penalized tensors by name, and the axis along which they have output channels.

        Raises:
            UserError: if `scope.csv` is missing or damaged.
        """
        return tables.penalized_tensors(self.scope)

    def write_per_class(
        self, classes: Sequence[str], columns: Mapping[str, Sequence[float]]
    ) -> None:
        """A row per class; see `metrics.per_class` for the columns."""
        rows = zip(classes, *columns.values(), strict=True)
        files.write_csv(self.classes, ("class", *columns), rows)

    def write_metrics(self, rows: Sequence[dict[str, float]]) -> None:
        """Writes all rows; called after each epoch, so the file never holds half a row."""
        tables.write_metrics(self.metrics, rows)

    def read_metrics(self, epochs: int) -> list[dict[str, float]]:
        """Returns the rows of the first `epochs` epochs.

        Raises:
            UserError: if the table does not hold them.
        """
        return tables.read_metrics(self.metrics, epochs)

    def read_weights(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """The tensors `names` of `model.safetensors`.

        Raises:
            UserError: if the file is missing or damaged, or lacks one of them.
        """
        return weights.read_weights(self.weights, names)

    def write_weights(self, model: nn.Module, about: Mapping[str, Any]) -> None:
        """Writes `model.safetensors`, see `runs.weights`."""
        weights.write_weights(self.weights, model, about)
