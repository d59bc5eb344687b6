"""A sweep: its jobs, which of them are the same run, and the progress of each.

A sweep is a folder with `sweep.json` (its jobs and their state), `sweep.csv` (the same as a table)
and a run directory per job; `planning` decides which jobs there are. A process that changes
something rewrites both files from the run directories, until nothing has ended in the meantime:
whoever writes last has seen all that ended before, so that processes need not know of each other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_l1.config.commands import assignment, command_line
from seg_l1.config.identity import BUDGET, FREE, RAMP, differences, flatten
from seg_l1.config.words import key_of
from seg_l1.errors import UserError
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.files import Config, make_folder, read_text, write_csv, write_json
from seg_l1.runs.summary import COMPACT

if TYPE_CHECKING:
    from seg_l1.data.split import SegmentationData

COLUMNS = (
    "epochs", "last_epoch", "epoch", "val/miou", "test/miou", "gap/miou", "sparsity/exact",
    "sparsity/groups", "parameters", "multiply_adds", *COMPACT, "wall_time_s",
)  # fmt: skip
"""Columns for each run, see `RunSummary.row`; the scores are those of the best epoch."""


@dataclass(frozen=True)
class Job:
    """One combination of a sweep.

    Attributes:
        index: position in the sweep.
        folder: name of its run directory.
        overrides: its overrides.
        swept: the values that differ between jobs, by key.
        same_as: index of an earlier job that is the same run, so that this one is not trained.
    """

    index: int
    folder: str
    overrides: list[str]
    swept: dict[str, str]
    same_as: int | None = None


class Sweep:
    """The sweep in the folder `path`, as planned there."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.file, self.table = self.path / "sweep.json", self.path / "sweep.csv"
        try:
            content = json.loads(read_text(self.file))
            self.typed: list[str] = content["typed"]
            names = Job.__dataclass_fields__
            self.config_dir: str | None = content.get("config_dir")
            self.jobs = [Job(**{k: job[k] for k in names}) for job in content["jobs"]]
            self._check()
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise UserError(
                f"resume_sweep: '{path}' is no sweep (no readable sweep.json there)."
                " Give a folder of outputs/sweeps."
            ) from None

    @classmethod
    def create(
        cls, path: Path, typed: Sequence[str], jobs: Sequence[Job], *, config_dir: str | None
    ) -> Sweep:
        """Creates the folder and writes the plan.

        Args:
            config_dir: the absolute path of the user's --config-dir.

        Raises:
            UserError: if there is a sweep already, or the folder cannot be made.
        """
        if (path / "sweep.json").exists():
            again = command_line("train", "-m", assignment("resume_sweep", path))
            raise UserError(
                f"{path}: holds a sweep already. Continue it with {again}, or choose another"
                " hydra.sweep.dir."
            )
        make_folder(path)
        plan = {
            "typed": list(typed),
            "config_dir": config_dir,
            "jobs": [asdict(job) for job in jobs],
        }
        write_json(path / "sweep.json", plan)
        sweep = cls(path)
        sweep.update()
        return sweep

    def run(self, index: int) -> RunDirectory:
        """Returns the run directory of job `index`, or of the job that is the same run."""
        return RunDirectory(self.path / self.jobs[index].folder)

    def rows(self) -> list[dict[str, Any]]:
        """Returns a row per job: its plan, and the `COLUMNS` of its run."""
        runs = [self.run(job.index).read_summary(missing_ok=True) for job in self.jobs]
        pairs = zip(self.jobs, runs, strict=True)
        return [{**asdict(job), **run.row(COLUMNS)} for job, run in pairs]

    def update(self) -> list[dict[str, Any]]:
        """Writes `sweep.json` and `sweep.csv` from the run directories; returns the rows.

        The plan is read anew, since another process may have amended it.
        """
        with suppress(UserError):
            now = Sweep(self.path)
            self.typed, self.config_dir, self.jobs = now.typed, now.config_dir, now.jobs
        rows = self.rows()
        while True:
            self._write(rows)
            written, rows = rows, self.rows()
            if _ended(written) == _ended(rows):
                return written

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        write_json(self.file, {"typed": self.typed, "config_dir": self.config_dir, "jobs": rows})
        swept = list(self.jobs[0].swept)
        header = ("index", *swept, "status", "same_as", *COLUMNS, "folder", "error")
        lines = [[{**row, **row["swept"]}[name] for name in header] for row in rows]
        write_csv(self.table, header, lines)

    def differences(
        self, jobs: Sequence[Job], configs: Sequence[Mapping[str, Any]], typed: Sequence[str] = ()
    ) -> list[str]:
        """Returns how `jobs` with `configs` differ from this sweep.

        Args:
            typed: what was typed now; see `identity.differences`.
        """
        ours, theirs = ([job.swept for job in some] for some in (self.jobs, jobs))
        if ours != theirs:
            lines = [f"not in the sweep: {_words(x)}" for x in theirs if x not in ours]
            lines += [f"only in the sweep: {_words(x)}" for x in ours if x not in theirs]
            return lines or ["the jobs come in another order; leave their words out"]
        named = {word.lstrip("+~").partition("=")[0] for word in (*self.typed, *typed)}
        changed: dict[str, list[int]] = {}
        for job, config in zip(self.jobs, configs, strict=True):
            for line in self.changes(job.index, config, named) if job.same_as is None else ():
                changed.setdefault(line, []).append(job.index)
        more = {line: f" and {len(x) - 1} more" * (len(x) > 1) for line, x in changed.items()}
        return [f"job {indices[0]}{more[line]}, {line}" for line, indices in changed.items()]

    def changes(self, index: int, config: Mapping[str, Any], typed: Collection[str]) -> list[str]:
        """Returns how the run of job `index`, if it has begun, differs from `config`.

        Args:
            typed: keys, see `identity.differences`.
        """
        run = self.run(index)
        if not run.config.is_file():
            return []
        before, now = (dict(flatten(x)) for x in (run.read_config(), config))
        free = (*FREE, *map(key_of, self.own_budget(index)))
        return differences(before, now, where="sweep", free=free, typed=typed)

    def own_budget(self, index: int) -> list[str]:
        """Returns the overrides with which the run of job `index` went on by itself for longer."""
        run, planned = self.run(index), self.jobs[index].overrides
        words = run.read_overrides() if run.overrides.is_file() else []
        return [w for w in words if key_of(w) in (*BUDGET, RAMP) and w not in planned]

    def check_data(self, configs: Mapping[int, Config], data: SegmentationData) -> None:
        """Checks that jobs were trained, so far, on `data`, those of the first of `configs`.

        Args:
            configs: of jobs, by index.

        Raises:
            UserError: naming the first job that was not. Those with data of their own are left out.
        """
        from seg_l1.training.data import data_key

        mine = data_key(next(iter(configs.values())))
        for index, config in configs.items():
            run = self.run(index)
            if run.environment.is_file() and data_key(config) == mine:
                about = run.read_environment()
                words = data.difference(about.get("data_fingerprint"), about.get("classes"))
                if words:
                    raise UserError(f"resume_sweep: job {index} does not fit: {words}")

    def amend(self, typed: Sequence[str], jobs: Sequence[Job]) -> None:
        """Takes over other words for the same `jobs`, such as a new dataset.root, into the plan."""
        self.typed = [*typed]
        pairs = zip(self.jobs, jobs, strict=True)
        self.jobs = [replace(job, overrides=now.overrides) for job, now in pairs]
        self._write(self.rows())
        self.update()

    def _check(self) -> None:
        """Rejects an invalid plan; job folders must lie in the sweep, since they may be emptied."""
        words = [*self.typed]
        if not isinstance(self.config_dir, str | None):
            raise ValueError("a --config-dir that is none")
        if not self.jobs or not all(isinstance(word, str) for word in words):
            raise ValueError("no jobs, or typed words that are none")
        if any(re.match(r"-|[+~]*hydra\b", word) for word in words):
            raise ValueError("words that are never saved; hydra would call what they name")
        for index, job in enumerate(self.jobs):
            inside = Path(job.folder).name == job.folder and job.folder not in ("", "..")
            if not (inside and job.index == index and isinstance(job.swept, dict)):
                raise ValueError(f"job {index} is none")
            if job.same_as is not None and not 0 <= job.same_as < index:
                raise ValueError(f"job {index} is the same as none before it")


def went_wrong(row: Mapping[str, Any]) -> bool:
    """Returns whether a job ended in an error; one that was asked to stop did not."""
    return row["status"] in ("failed", "interrupted") and bool(row["error"])


def _ended(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the rows of jobs that are not running, whose scores change all the time."""
    return [row for row in rows if row["status"] != "running"]


def _words(swept: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" for key, value in swept.items()) or "a single job"
