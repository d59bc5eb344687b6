"""From folders to runs: sweeps, single runs, and those that gave no result."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seg_l1.config.hyperparameters import hyperparameters
from seg_l1.config.identity import FREE, flatten
from seg_l1.errors import UserError, did_you_mean
from seg_l1.report.runs import Run, Unfinished, apart, curves
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.summary import RunSummary

ASIDE = {"seed", "regularizer", "regularizer.alpha", *FREE}
"""Keys that make no other curve: the axes of the report, and where and how a run ran."""


@dataclass
class Collection:
    """What was found below some folders."""

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
    found, seen = Collection(), set()
    for folder in map(Path, folders):
        if not folder.is_dir():
            beside = folder.parent.iterdir() if folder.parent.is_dir() else ()
            hint = did_you_mean(folder.name, [path.name for path in beside if path.is_dir()])
            raise UserError(f"{folder}: there is no such folder.{hint} Give sweeps or runs.")
        jobs = [job for file in sorted(folder.rglob("sweep.json")) for job in _jobs(file, found)]
        single = [run.path for run in RunDirectory.below(folder)]
        listed = {path.resolve() for path, _ in jobs}
        jobs += [(path, {}) for path in single if path.resolve() not in listed]
        for path, job in sorted(jobs, key=lambda pair: _natural(str(pair[0]))):
            if path.resolve() not in seen:
                seen.add(path.resolve())
                _read(folder, path, job, found)
    if not found.runs:
        where = ", ".join(map(str, folders))
        lines = [f"{run.name}: {run.status} ({run.reason})" for run in found.unfinished[:20]]
        count = len(found.unfinished)
        raise UserError(
            f"{where}: holds no completed run" + (f", but {count} others" if count else ""), lines
        )
    _settings(found.runs)
    _drop_repeats(found)
    _warn(found)
    return found


def _jobs(file: Path, found: Collection) -> list[tuple[Path, dict[str, Any]]]:
    """The folders of a sweep and what it knows of each; a job that means another one has none."""
    try:
        content = json.loads(file.read_text("utf-8"))
        jobs = [(file.parent / Path(job["folder"]).name, job) for job in content["jobs"]]
        typed = list(map(str, content["typed"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        found.notes.append(f"{file}: cannot be read; its folders were taken as single runs.")
        return []
    found.typed.append(" ".join(typed))
    found.same += sum(job.get("same_as") is not None for _, job in jobs)
    return [(path, job) for path, job in jobs if job.get("same_as") is None]


def _read(folder: Path, path: Path, job: dict[str, Any], found: Collection) -> None:
    """Adds the run at `path` to `found`, as a run or as what it is instead."""
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
        words = files.read_overrides() if files.overrides.is_file() else job.get("overrides")
        words = [word for word in words or () if not re.match(r"[+~]*(hydra|resume|sweep)\b", word)]
        run = Run(name, files, words, files.read_config(), summary, files.read_environment())
        if not math.isfinite(run.score("val/miou")):
            raise UserError("it has no validation mIoU")
        run.check()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        kind = "" if isinstance(error, UserError) else f"cannot be read, {type(error).__name__}: "
        said = f"{kind}{error}"
        found.unfinished.append(Unfinished(name, status, said.split("\n")[0], log))
    else:
        found.runs.append(run)


def _settings(runs: Sequence[Run]) -> None:
    """Fills in `setting`: the keys, but seed and α, that were typed and differ between runs."""
    keys = sorted({key for run in runs for key in run.typed} - ASIDE)
    for key in keys:
        values = [_value(run, key, runs) for run in runs]
        if len(set(values)) > 1:
            for run, value in zip(runs, values, strict=True):
                if value is not None:
                    run.setting[key] = value
    data: dict[str, set[str]] = {}
    for run in runs:
        data.setdefault(str(apart(run.setting)), set()).add(run.data)
    if any(len(prints) > 1 for prints in data.values()):
        for run in runs:
            run.setting["data"] = run.data[:6]


def _value(run: Run, key: str, runs: Sequence[Run]) -> str | None:
    """The value of a key or group in a run; None where it means nothing to it."""
    group, _, name = key.partition(".")
    node = run.config.get(group)
    if group == "regularizer":
        if name in hyperparameters(node) and name not in node["penalty"]:
            return None
        if not run.penalised and name not in ("dropout", "drop_connect"):
            return None
    if not name and isinstance(node, dict):
        if key in run.typed:
            return run.typed[key]
        target = node.get("_target_")
        others = [r for r in runs if key in r.typed and r.config[key].get("_target_") == target]
        return others[0].typed[key] if others else str(target).rsplit(".", 1)[-1]
    known = dict(flatten(run.config))
    return str(known[key]) if key in known else run.typed.get(key, "default")


def _drop_repeats(found: Collection) -> None:
    """Keeps one run per configuration and seed: the same run twice is no second sample."""
    kept: dict[str, Run] = {}
    for run in found.runs:
        first = kept.setdefault(str((run.regularizer, run.setting, run.alpha, run.seed)), run)
        if first is not run:
            found.repeats.append((run, first.name))
    found.runs = list(kept.values())
    if found.repeats:
        names = ", ".join(run.name for run, _ in found.repeats[:3])
        more = len(found.repeats) - 3
        found.notes.append(
            "The same configuration and seed as another run, and so not counted:"
            f" {names}{f' and {more} more (runs.csv)' if more > 0 else ''}."
        )


def _warn(found: Collection) -> None:
    """Notes what makes runs hard to compare: other data, other code, differences never typed."""
    data = Counter(run.data for run in found.runs)
    if len(data) > 1:
        counts = ", ".join(f"{name} ({count} runs)" for name, count in data.items())
        found.notes.insert(
            0,
            f"The runs used different data: fingerprints {counts}. Scores on different data cannot"
            " be compared; runs are averaged and paired on the same data only.",
        )
    git = [run.environment.get("git") or {} for run in found.runs]
    commits = {str(entry.get("commit"))[:10] for entry in git}
    if len(commits) > 1:
        found.notes.append(f"The runs were made by different commits: {', '.join(sorted(commits))}")
    for curve in curves(found.runs):
        for configuration in curve.configurations:
            known = [dict(flatten(run.config)) for run in configuration.runs]
            sections = [run.config["regularizer"] for run in configuration.runs]
            # those of the penalty are repeated in its own node
            others = {f"regularizer.{key}" for x in sections for key in hyperparameters(x)}
            hidden = sorted(
                key
                for key in set.intersection(*map(set, known))  # not those of another version
                if len({str(config.get(key)) for config in known}) > 1
                and key not in ASIDE
                and key not in others
                and (curve.penalised or not key.startswith("regularizer."))
            )
            if hidden:
                found.notes.append(
                    f"{configuration.label}: the seeds differ in {', '.join(hidden)} too."
                )


def _natural(name: str) -> list[Any]:
    """Sorts job 10 behind job 9."""
    return [(not part.isdigit(), int(part) if part.isdigit() else part)
            for part in re.split(r"(\d+)", name)]  # fmt: skip
