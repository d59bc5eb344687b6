"""The run directory: the only place that knows its file names and formats."""

from __future__ import annotations

import csv
import json
import math
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seg_l1 import distributed
from seg_l1.errors import UserError
from seg_l1.runs import checkpoints
from seg_l1.runs.files import csv_text, finite, write_atomically
from seg_l1.runs.trust import check_targets
from seg_l1.scope import Rule, ScopedTensor


class RunDirectory:
    """Paths and writers of one run; files are replaced whole: no reader sees half of one."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.overrides = self.path / "overrides.yaml"
        self.environment = self.path / "environment.json"
        self.scope = self.path / "scope.csv"
        self.splits = self.path / "splits.json"
        self.classes = self.path / "per_class.csv"
        self.confusion = self.path / "confusion.png"
        self.metrics = self.path / "metrics.csv"
        self.summary = self.path / "summary.json"
        self.last = self.path / "checkpoints" / "last.pt"
        self.best = self.path / "checkpoints" / "best.pt"
        self.weights = self.path / "model.safetensors"
        self.tensorboard = self.path / "tensorboard"
        self.preview = self.path / "preview.png"
        self.log = self.path / "train.log"

    def create(self) -> None:
        """Makes the folders; what an attempt left that has no checkpoint yet is written over.

        Raises:
            UserError: if they cannot be made, or if the folder holds a run already.
        """
        if self.last.exists() or self.weights.exists():
            raise UserError(
                f"{self.path}: holds a run already. Continue it with resume={self.path}, or choose"
                " another hydra.run.dir."
            )
        try:
            self.last.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror})") from None

    def tidy(self) -> None:
        """Removes what a killed process was writing."""
        for path in self.path.rglob(".*.tmp"):
            path.unlink(missing_ok=True)

    @classmethod
    def existing(cls, path: str | Path, *, key: str = "resume") -> RunDirectory:
        """Returns the run at `path`, which can go on (`key` "resume") or has weights ("run").

        Raises:
            UserError: naming `key`, if a file is missing for that.
        """
        run = cls(Path(path))
        words, wanted = "that can go on", (run.config, run.overrides, run.last)
        if key == "run":
            words, wanted = "with trained weights", (run.best,)
        for needed in wanted:
            if not needed.is_file():
                raise UserError(
                    f"{key}: '{path}' is not a run {words} ({needed.relative_to(run.path)}"
                    " is missing). Give a folder of outputs/runs."
                )
        return run

    def write_text(self, path: Path, text: str) -> None:
        write_atomically(path, lambda file: file.write(text.encode()))

    def write_json(self, path: Path, content: dict[str, Any]) -> None:
        """Writes JSON; NaN and infinities become null, which every reader understands."""
        text = json.dumps(finite(content), indent=2, allow_nan=False)
        self.write_text(path, text + "\n")

    def read_summary(self) -> dict[str, Any]:
        content = json.loads(self.summary.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no keys")
        return content

    def read_best(self) -> dict[str, Any]:
        """The best weights, and what is needed to use them: see `Recorder`.

        Raises:
            UserError: if they are not of this program, or would call what is not.
        """
        best = checkpoints.load(self.best)
        with checkpoints.fitting(self.best):
            check_targets(best["config"], self.best)
            measures = (*best["mean"], *best["std"])
            if len(best["mean"]) != len(best["std"]) or not all(map(math.isfinite, measures)):
                raise ValueError("mean and std are not those of the channels")
            if not all(isinstance(name, str) for name in best["classes"]):
                raise ValueError("its classes are no names")
        return best

    def write_scope(self, tensors: Sequence[ScopedTensor], rules: Sequence[Rule]) -> None:
        header = ("tensor", "shape", "weights", "rule", "penalised", "factor", "group_axis")
        labels = [f"{i}: {r.name} {' '.join(r.types)}".strip() for i, r in enumerate(rules)]
        rows = [
            (
                entry.name,
                "x".join(map(str, entry.tensor.shape)),
                entry.tensor.numel(),
                labels[entry.rule],
                entry.penalized,
                entry.factor,
                entry.axis,
            )
            for entry in tensors
        ]
        self.write_text(self.scope, csv_text(header, rows))

    def write_per_class(
        self, classes: Sequence[str], columns: Mapping[str, Sequence[float]]
    ) -> None:
        """A row per class; see `metrics.per_class` for the columns."""
        rows = zip(classes, *columns.values(), strict=True)
        self.write_text(self.classes, csv_text(("class", *columns), rows))

    def write_metrics(self, rows: Sequence[dict[str, float]]) -> None:
        """Writes all rows; called after each epoch, so the file never holds half a row."""
        if rows:
            header = {key: None for row in reversed(rows) for key in row}  # an older version's less
            lines = [[row.get(key, float("nan")) for key in header] for row in rows]
            self.write_text(self.metrics, csv_text(header, lines))

    def read_metrics(self, epochs: int) -> list[dict[str, float]]:
        """Returns the rows of the first `epochs` epochs.

        Raises:
            UserError: if the table does not hold them.
        """
        rows = []
        if epochs:
            with checkpoints.fitting(self.metrics):
                with open(self.metrics, newline="", encoding="utf-8") as file:
                    rows = [{k: _number(v) for k, v in row.items()} for row in csv.DictReader(file)]
                rows = [row for row in rows if row["epoch"] <= epochs]
                if len(rows) < epochs:
                    raise ValueError(f"it holds {len(rows)} of {epochs} epochs")
        return rows

    def write_weights(self, model: nn.Module, metadata: dict[str, str]) -> None:
        """Writes `model.safetensors`, each tensor of the state under its own name."""
        from safetensors.torch import save

        state = model.state_dict().items()
        content = save(
            {k: w.cpu().clone(memory_format=torch.contiguous_format) for k, w in state}, metadata
        )
        write_atomically(self.weights, lambda file: file.write(content))


def environment(seed: int, device: torch.device, fingerprint: str) -> dict[str, Any]:
    """Versions, git commit, device, seed and data fingerprint: what a rerun would have to match."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("seg_l1", "torch", "torchvision", "hydra-core", "numpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "versions": versions,
        "git": _git(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "processes": distributed.size(),
        "seed": seed,
        "data_fingerprint": fingerprint,
    }


def _git() -> dict[str, Any]:
    def ask(*words: str) -> str | None:
        try:
            answer = subprocess.run(
                ["git", "-C", str(Path(__file__).parent), *words],
                capture_output=True, text=True, timeout=10, check=True,
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            return None
        return answer.stdout.strip()

    status = ask("status", "--porcelain")
    return {"commit": ask("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def _number(text: str) -> float:
    return int(text) if text.lstrip("-").isdigit() else float(text)
