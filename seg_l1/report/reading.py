"""Reads the runs of sweeps and single runs, and those that gave no result."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seg_l1.config.hyperparameters import hyperparameters
from seg_l1.config.identity import FREE
from seg_l1.errors import UserError, did_you_mean
from seg_l1.report.runs import Configuration, Run, Unfinished, curves, shared_setting
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.summary import RunSummary

ASIDE = {"seed", "regularizer", "regularizer.alpha", *FREE}
"""Keys that do not distinguish curves: the axes of the report, and where and how a run ran."""


@dataclass
class Collection:
    """The runs below some folders.

    Attributes:
        runs: those that were completed, one per configuration and seed.
        unfinished: those without a result.
        repeats: completed runs that repeat another one, whose name is the second value.
        notes: warnings for the reader.
        typed: the command line of each sweep.
        same: how many jobs of sweeps are duplicates of others, and were not trained.
    """

    runs: list[Run] = field(default_factory=list)
    unfinished: list[Unfinished] = field(default_factory=list)
    repeats: list[tuple[Run, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    typed: list[str] = field(default_factory=list)
    same: int = 0


def collect(folders: Sequence[str | Path]) -> Collection:
    """Reads all sweeps and single runs below `folders`.

    Raises:
        UserError: if a folder is missing, or no run below was completed.
    """
    collection = Collection()
    seen: set[Path] = set()
    for folder in map(Path, folders):
        if not folder.is_dir():
            beside = folder.parent.iterdir() if folder.parent.is_dir() else ()
            hint = did_you_mean(folder.name, [path.name for path in beside if path.is_dir()])
            raise UserError(f"{folder}: no such folder.{hint} Give folders of sweeps or runs.")
        jobs = [
            job for file in sorted(folder.rglob("sweep.json")) for job in _jobs(file, collection)
        ]
        single = [run.path for run in RunDirectory.below(folder)]
        listed = {path.resolve() for path, _ in jobs}
        jobs += [(path, {}) for path in single if path.resolve() not in listed]
        for path, job in sorted(jobs, key=lambda pair: _natural(str(pair[0]))):
            if path.resolve() not in seen:
                seen.add(path.resolve())
                _read(path, job, folder=folder, collection=collection)
    if not collection.runs:
        where = ", ".join(map(str, folders))
        lines = [f"{run.name}: {run.status} ({run.reason})" for run in collection.unfinished[:20]]
        count = len(collection.unfinished)
        rest = f"; {count} {'is' if count == 1 else 'are'} unfinished or failed" if count else ""
        raise UserError(f"{where}: holds no completed run{rest}", lines)
    _settings(collection.runs)
    _drop_repeats(collection)
    _warn(collection)
    return collection


def _jobs(file: Path, collection: Collection) -> list[tuple[Path, dict[str, Any]]]:
    """The folders of a sweep and its record of each; a duplicate of another job has none."""
    try:
        content = json.loads(file.read_text("utf-8"))
        jobs = [(file.parent / Path(job["folder"]).name, job) for job in content["jobs"]]
        typed = list(map(str, content["typed"]))
        if content.get("config_dir"):
            typed.insert(0, f"--config-dir={content['config_dir']}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        collection.notes.append(f"{file}: cannot be read; its folders are treated as single runs.")
        return []
    collection.typed.append(" ".join(typed))
    collection.same += sum(job.get("same_as") is not None for _, job in jobs)
    return [(path, job) for path, job in jobs if job.get("same_as") is None]


def _read(path: Path, job: dict[str, Any], *, folder: Path, collection: Collection) -> None:
    """Adds the run at `path` to `collection`, to the completed or to the unfinished runs."""
    files = RunDirectory(path)
    name = path.name if path == folder else str(path.relative_to(folder))
    log = str(files.log) if files.log.is_file() else ""
    status, reason = job.get("status") or "unreadable", job.get("error") or ""
    try:
        if not files.summary.is_file():
            status = "missing" if status in ("completed", "unreadable") else status
            raise UserError(reason or "it has no summary.json")
        status = "unreadable"
        summary = RunSummary.read(files.summary)
        status, reason = summary.status, summary.error or reason
        if status != "completed":
            done = summary.last.get("epoch")
            raise UserError(reason or ("" if done is None else f"after epoch {done}"))
        status = "unreadable"
        typed = files.read_overrides() if files.overrides.is_file() else job.get("overrides")
        overrides = [x for x in typed or () if not re.match(r"[+~]*(hydra|resume|sweep)\b", x)]
        run = Run(name, files, overrides, files.read_config(), summary, files.read_environment())
        if not math.isfinite(run.score("val/miou")):
            raise UserError("it has no validation mIoU")
        run.check()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        kind = "" if isinstance(error, UserError) else f"cannot be read, {type(error).__name__}: "
        message = f"{kind}{error}".split("\n")[0]
        collection.unfinished.append(Unfinished(name, status, message, log))
    else:
        collection.runs.append(run)


def _settings(runs: Sequence[Run]) -> None:
    """Fills in `setting`: overrides other than seed and α that differ between runs."""
    keys = sorted({key for run in runs for key in run.typed} - ASIDE)
    for key in keys:
        names = _names(runs, key)
        values = [_value(run, key, names=names) for run in runs]
        if len(set(values)) > 1:
            for run, value in zip(runs, values, strict=True):
                if value is not None:
                    run.setting[key] = value
    if len({run.plans for run in runs}) > 1:
        for run in runs:
            if run.plans:
                run.setting["extended"] = run.plans
    data: dict[str, set[str]] = {}
    for run in runs:
        data.setdefault(str(shared_setting(run.setting)), set()).add(run.data)
    if any(len(prints) > 1 for prints in data.values()):
        for run in runs:
            run.setting["data"] = run.data[:6]


def _value(run: Run, key: str, *, names: Mapping[str, str]) -> str | None:
    """The value of a key or group in a run; None where it does not apply.

    Args:
        names: what was typed for a group by others -> its `_target_`.
    """
    group, _, name = key.partition(".")
    node = run.config.get(group)
    if group == "regularizer":
        section = run.config["regularizer"]
        if name in hyperparameters(section) and name not in section["penalty"]:
            return None
        if not run.penalized and name not in ("dropout", "drop_connect"):
            return None
    if group == "target" and isinstance(node, dict):
        measure = node.get("measure")
        if not (name and measure):
            return None if name else str(measure or "none")
    if not name and isinstance(node, dict):
        target = str(node.get("_target_"))
        return run.typed.get(key) or names.get(target, target.rsplit(".", 1)[-1])
    return str(run.flat[key]) if key in run.flat else run.typed.get(key, "default")


def _names(runs: Sequence[Run], key: str) -> dict[str, str]:
    """Returns `_target_` -> what was typed, by the first run that typed the group `key`."""
    names: dict[str, str] = {}
    for run in runs:
        if key in run.typed and isinstance(run.config.get(key), dict):
            names.setdefault(str(run.config[key].get("_target_")), run.typed[key])
    return names


def _drop_repeats(collection: Collection) -> None:
    """Keeps one run per configuration and seed: a repeated run is no second sample."""
    kept: dict[str, Run] = {}
    for run in collection.runs:
        first = kept.setdefault(str((run.regularizer, run.setting, run.alpha, run.seed)), run)
        if first is not run:
            collection.repeats.append((run, first.name))
    collection.runs = list(kept.values())
    if collection.repeats:
        names = ", ".join(run.name for run, _ in collection.repeats[:3])
        more = len(collection.repeats) - 3
        collection.notes.append(
            "Same configuration and seed as another run, and therefore not counted:"
            f" {names}{f' and {more} more (runs.csv)' if more > 0 else ''}."
        )


def _warn(collection: Collection) -> None:
    """Notes what makes runs hard to compare: other data or code, differences within a curve."""
    data = Counter(run.data for run in collection.runs)
    if len(data) > 1:
        counts = ", ".join(f"{name} ({count} runs)" for name, count in data.items())
        collection.notes.insert(
            0,
            f"The runs used different data: fingerprints {counts}. Their scores cannot be compared;"
            " runs are averaged and paired on the same data only.",
        )
    git = [run.environment.get("git") or {} for run in collection.runs]
    commits = {str(entry.get("commit"))[:10] for entry in git}
    if len(commits) > 1:
        collection.notes.append(
            f"The runs were made by different commits: {', '.join(sorted(commits))}."
        )
    for curve in curves(collection.runs):
        for configuration in curve.configurations:
            if keys := _hidden_differences(configuration):
                collection.notes.append(
                    f"{configuration.label}: its runs also differ in {', '.join(keys)}."
                )


def _hidden_differences(configuration: Configuration) -> list[str]:
    """Keys in which the runs of a configuration differ though no override says so."""
    configs = [run.flat for run in configuration.runs]
    shared = set.intersection(*map(set, configs))  # a run of another version may have other keys
    keys = {key for key in shared if len({str(config[key]) for config in configs}) > 1}
    keys -= {*ASIDE, "start"}  # of each seed its own, where several trainings make a run
    if not configuration.curve.penalized:
        return sorted(key for key in keys if not key.startswith("regularizer."))
    for run in configuration.runs:  # hyperparameters are repeated in the section of the penalty
        keys -= {f"regularizer.{name}" for name in hyperparameters(run.config["regularizer"])}
    return sorted(keys)


def _natural(name: str) -> list[Any]:
    """A key by which job 10 comes after job 9."""
    return [(not part.isdigit(), int(part) if part.isdigit() else part)
            for part in re.split(r"(\d+)", name)]  # fmt: skip
