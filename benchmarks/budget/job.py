"""One job of the comparison: a scheme, its target, a seed, and the trainings that it may spend."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seg_l1.config.check import check_overrides
from seg_l1.config.compose import plain
from seg_l1.config.words import key_of, parse
from seg_l1.data.split import SegmentationData
from seg_l1.errors import UserError
from seg_l1.experiments.jobs import complete, read_data
from seg_l1.metrics.sparsity import multiply_adds
from seg_l1.runs import checkpoints
from seg_l1.runs.directory import RunDirectory
from seg_l1.training.loop import Loop
from seg_l1.training.network import build_model, load_weights

TOLERANCE = 0.02
"""How far below its target a network may stay, relatively; it is never above."""

ASIDE = ("trainer.epochs", "model.width", "model.growth")
"""Keys in which the trainings of the contenders differ by themselves."""


@dataclass(frozen=True)
class Trained:
    """What a contender returns.

    Attributes:
        record: the run directory of its network.
        phases: those of all trainings that led to it, this one included.
    """

    record: RunDirectory
    phases: list[RunDirectory]

    @property
    def epochs(self) -> int:
        """Epochs of all trainings together."""
        return sum(phase.read_summary().epochs or 0 for phase in self.phases)


@dataclass(frozen=True)
class Job:
    """What a contender has to do.

    Attributes:
        name: of the contender with its target, for tables, pictures and folders.
        words: overrides of the experiment; `trainer.epochs` is that of all trainings together.
        share: multiply-adds of the network, relative to the dense one; None = as many as it has.
        zeros: share of the penalized weights that are to be 0; None = as many as come about.
        seed: of data order and weights.
        folder: holds all results.
        label: of the run in the report.
        typed: what the runs say was typed; () = `words`.
    """

    name: str
    words: tuple[str, ...]
    share: float | None
    zeros: float | None
    seed: int
    folder: Path
    label: str
    typed: tuple[str, ...] = ()

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration of the dense network, without a penalty."""
        return self.configured("regularizer=none")

    @property
    def epochs(self) -> int:
        """Epochs of all trainings together."""
        return int(self.config["trainer"]["epochs"])

    @property
    def data(self) -> SegmentationData:
        """The images that all jobs share."""
        return read_data(self.config)

    @property
    def example(self) -> Tensor:
        """Noise of the shape of one image (1, C, H, W)."""
        size = self.config["dataset"]["image_size"]
        if size is None:
            raise UserError("dataset.image_size: must be given, since multiply-adds depend on it")
        draw = torch.Generator().manual_seed(0)
        return torch.randn(1, self.data.channels, *size, generator=draw)

    @cached_property
    def dense_cost(self) -> int:
        """Multiply-adds of the dense network for one image."""
        return multiply_adds(self.network(), self.example)

    @property
    def target(self) -> int:
        """The largest number of multiply-adds that is allowed."""
        return int(self.dense_cost * (1.0 if self.share is None else self.share))

    @property
    def run(self) -> RunDirectory:
        """Where the result lies."""
        return RunDirectory(self.folder / "runs" / f"{self.name.replace(' ', '_')}_s{self.seed}")

    def phase(self, name: str) -> RunDirectory:
        """Where a training before the last one lies; jobs that give the same name share it."""
        return RunDirectory(self.folder / "phases" / f"{name}_s{self.seed}")

    def own_phase(self, name: str) -> RunDirectory:
        """Where a training of this job alone lies."""
        return self.phase(f"{self.name.replace(' ', '_')}_{name}")

    def configured(self, *words: str) -> dict[str, Any]:
        """Returns the configuration with `words` in place of those of the same keys.

        Raises:
            UserError: if they make no sense.
        """
        return plain(check_overrides(*parse([*self.overridden(words), f"seed={self.seed}"])))

    def overridden(self, words: Sequence[str]) -> list[str]:
        """Returns the words of the experiment with `words` in place of those of the same keys."""
        keys = {key_of(word) for word in words}
        return [*(word for word in self.words if key_of(word) not in keys), *words]

    def with_words(self, *words: str) -> Job:
        """Returns the job with `words` in place of those of the same keys; its runs hide that."""
        typed = self.typed or self.words
        return replace(self, words=tuple(self.overridden(words)), typed=typed)

    def network(self, record: RunDirectory | None = None) -> nn.Module:
        """Returns the best network of a run on the CPU, or a new one with the weights of the seed.

        It may have another shape than the configuration says, see `seg_l1.compaction.set_shapes`.
        """
        torch.manual_seed(self.seed)
        data = self.data
        model = build_model(self.config, data.channels, len(data.classes), pretrained=True)
        if record is not None:
            load_weights(model, checkpoints.load(record.best))
        return model.eval()

    def train(
        self,
        record: RunDirectory,
        *words: str,
        epochs: int | None = None,
        start: Callable[[], nn.Module] | RunDirectory | None = None,
        before_training: Callable[[Loop], None] = lambda loop: None,
    ) -> RunDirectory:
        """Trains a run, goes on with it, or does nothing if it is finished; returns it.

        Args:
            words: added to those of the experiment; without a penalty if they name none.
            epochs: None = all.
            start: a run whose best network the training starts from; or a function that returns a
                network of any shape, and is called if the training has not begun.
            before_training: see `seg_l1.training.run.run`.

        Raises:
            UserError, RunError: if it fails.
        """
        named = any(key_of(word) == "regularizer" for word in words)
        config = self.configured(*words) if named else copy.deepcopy(self.config)
        config["regularizer"]["name"] = self.label
        config["trainer"]["epochs"] = epochs or self.epochs
        if isinstance(start, RunDirectory):
            config["start"] = str(start.path)
        elif start is not None:
            config["start"] = str(self._written(start, record))
        complete(
            config,
            [*self._shown(words), f"regularizer.name={self.label}", f"seed={self.seed}"],
            record,
            data=read_data(config),
            before_training=before_training,
        )
        return record

    def _shown(self, words: Sequence[str]) -> list[str]:
        """Returns what a run says was typed, so that the report compares it with the others."""
        shown = [*(self.typed or self.words), *words]
        return [word for word in shown if key_of(word) not in ASIDE]

    def _written(self, make: Callable[[], nn.Module], record: RunDirectory) -> Path:
        """Returns the file with the network that a training starts from."""
        path = self.folder / "phases" / f"{record.path.name}.pt"
        if not (path.is_file() and record.last.is_file()):
            path.parent.mkdir(parents=True, exist_ok=True)
            checkpoints.save(path, {"model": make().state_dict(), "compact": True})
        return path


def split_epochs(total: int, *shares: float) -> list[int]:
    """Divides epochs by `shares`, which sum to 1; each gets one at least, and none is lost.

    Raises:
        UserError: if there are too few.
    """
    if total < len(shares):
        raise UserError(f"trainer.epochs={total}: this contender needs {len(shares)} or more")
    parts = [max(1, int(share * total)) for share in shares[:-1]]
    return [*parts, total - sum(parts)]
