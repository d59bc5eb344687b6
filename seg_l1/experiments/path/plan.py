"""The plan of a path: grid, folds, and the progress of its runs.

`path.json` holds the plan. The progress is read from the run directories `<job>/<point>/`, with a
job per fold (or repeat) and a point per alpha, so that processes need not know of each other.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seg_l1.config.commands import assignment
from seg_l1.errors import UserError
from seg_l1.experiments.path.folds import fold_data, without_test
from seg_l1.experiments.path.warm_starts import path_order
from seg_l1.experiments.sweep import COLUMNS
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.files import make_folder, write_csv, write_json
from seg_l1.runs.summary import COMPACT

SCORES = (
    "epoch", "val/miou", "val/dice", "val/loss", "gap/miou", "sparsity/exact", "sparsity/groups",
    "kkt/zeros", "kkt/support", "kkt/mapping", *COMPACT,
)  # fmt: skip
"""Scores of a point, at its last epoch."""


@dataclass(frozen=True)
class Job:
    """One path: on one fold, with one seed. `validation` are positions in "train"; None = no fold,
    the validation split decides."""

    index: int
    name: str
    seed: int
    validation: list[int] | None


class Plan:
    """The path in `folder`, as planned there."""

    def __init__(self, folder: Path) -> None:
        self.path, self.file = Path(folder), Path(folder) / "path.json"
        try:
            content = json.loads(self.file.read_text("utf-8"))
            self.words: list[str] = content["words"]
            self.config: dict[str, Any] = content["config"]
            self.fingerprint: str = content["fingerprint"]
            self.folds: list[list[int]] = content["folds"]
            self.alphas: list[float] | None = content["alphas"]
            self.reference: dict[str, float] = content["reference"]
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{self.file}: is no plan of a path") from None

    @classmethod
    def create(cls, folder: Path, **content: Any) -> Plan:
        """Creates the folder and writes `content`: words, config, fingerprint, folds, alphas."""
        make_folder(folder)
        write_json(folder / "path.json", {"reference": {}, **content})
        return cls(folder)

    def amend(self, **content: Any) -> None:
        """Updates the plan, in the file too: the grid, or keys that may change."""
        before = json.loads(self.file.read_text("utf-8"))
        write_json(self.file, {**before, **content})
        for name, value in content.items():
            setattr(self, name, value)

    @property
    def settings(self) -> dict[str, Any]:
        """The keys of the group `path`."""
        return self.config["path"]

    @property
    def jobs(self) -> list[Job]:
        """A job per repeat and fold; without folds a job per repeat."""
        folds, repeats = self.settings["folds"], self.settings["repeats"]
        found = []
        for repeat in range(repeats):
            for fold in range(folds):
                name = "_".join([f"repeat{repeat}"] * (repeats > 1) + [f"fold{fold}"] * (folds > 1))
                index = repeat * folds + fold
                validation = self.folds[index] if folds > 1 else None
                found.append(Job(index, name or "path", self.config["seed"] + repeat, validation))
        return found

    @property
    def whole(self) -> Job:
        """The path on all training images, which the refit ends."""
        if self.settings["folds"] == 1:
            return self.jobs[0]
        return Job(len(self.jobs), "all", self.config["seed"], None)

    @property
    def order(self) -> list[float]:
        """The values of alpha in the order in which they are trained."""
        return path_order(self.alphas or [], self.settings["direction"])

    @property
    def epochs(self) -> int:
        """Epochs of a warm start."""
        return self.settings["epochs"] or -(-self.config["trainer"]["epochs"] // 5)

    def run(self, index: int) -> RunDirectory:
        """The run directory of row `index` of `rows`."""
        job, position = divmod(index, len(self.order))
        return self.point_run(self.jobs[job], position)

    def point_run(self, job: Job, position: int) -> RunDirectory:
        """The run directory of a job's point at `position` of the order."""
        name = f"{position:02d}_alpha-{self.order[position]:g}"
        return RunDirectory(self.path / job.name / name)

    @property
    def refit(self) -> RunDirectory:
        """The run at the chosen alpha on all training images."""
        return RunDirectory(self.path / "refit")

    @property
    def relaxed(self) -> RunDirectory:
        """The refit, trained on without penalty on its support."""
        return RunDirectory(self.path / "relaxed")

    def point(self, job: Job, position: int, start: Path | None) -> tuple[dict[str, Any], list]:
        """Configuration and overrides of a run that starts from the checkpoint `start`.

        A warm start has `epochs` epochs and no schedule of λ(t).
        """
        config, alpha = deepcopy(self.config), self.order[position]
        config["seed"], config["start"] = job.seed, start and str(start)
        config["regularizer"]["alpha"] = alpha
        words = [f"regularizer.alpha={alpha:g}", f"seed={job.seed}"]
        if start is not None:
            config["trainer"]["epochs"] = self.epochs
            config["regularizer"] |= {"schedule": "constant", "schedule_start": 0}
            words += [f"trainer.epochs={self.epochs}", assignment("start", start)]
        return config, [*self.words, *words]

    def data(self, whole: Any, job: Job) -> Any:
        """The images of a job, out of `whole`; without the test split.

        Raises:
            UserError: if these are not the images that the path was planned with.
        """
        if whole.fingerprint != self.fingerprint:
            raise UserError(
                f"path: the data is not what it was when {self.path} was begun. Give path.folder"
                "=<new folder> for another path."
            )
        if job.validation is None:
            return without_test(whole)
        return fold_data(whole, job.validation)

    def rows(self) -> list[dict[str, Any]]:
        """A row per point: job, alpha, and the row of its run with `sweep.COLUMNS`."""
        rows: list[dict[str, Any]] = []
        for job in self.jobs:
            for position, alpha in enumerate(self.order):
                record = self.point_run(job, position)
                warm = position > 0 and self.settings["warm_start"]
                epochs = self.epochs if warm else self.config["trainer"]["epochs"]
                known = record.read_summary(missing_ok=True).row(COLUMNS)
                row = {"index": len(rows), "job": job.name, "alpha": alpha}
                row |= {"swept": {"job": job.name, "alpha": f"{alpha:g}"}, "same_as": None}
                rows.append({**row, **known, "epochs": known["epochs"] or epochs})
        return rows

    def table(self, jobs: list[Job]) -> list[dict[str, Any]]:
        """A row per point: its alpha, and `SCORES` of its last epoch, None where it has none."""
        rows = []
        for job in jobs:
            for position, alpha in enumerate(self.order):
                record = self.point_run(job, position)
                known = record.read_summary(missing_ok=True).row(
                    (*SCORES, "parameters", "multiply_adds", "wall_time_s"), epoch="last"
                )
                if known["status"] != "completed":
                    known |= dict.fromkeys(SCORES)
                del known["error"]
                folder = str(record.path.relative_to(self.path))
                rows.append({"job": job.name, "alpha": alpha, **known, "folder": folder})
        return rows

    def scores(self, name: str) -> np.ndarray:
        """(jobs, alphas), by falling alpha: a score of the last epochs, NaN where none is."""
        table = {(row["job"], row["alpha"]): row[name] for row in self.table(self.jobs)}
        falling = sorted(self.alphas or [], reverse=True)
        values = [[table[job.name, alpha] for alpha in falling] for job in self.jobs]
        return np.array(values, dtype=float)

    def write_table(self) -> None:
        """Writes `path.csv`: a row per point."""
        rows = self.table(self.jobs)
        write_csv(self.path / "path.csv", rows[0], [row.values() for row in rows])
