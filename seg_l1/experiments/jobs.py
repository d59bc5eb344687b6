"""Runs one job of a sweep, in the process that the launcher chose."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

from seg_l1 import distributed
from seg_l1.config.words import key_of, parse_word
from seg_l1.errors import RunError, UserError, described

if TYPE_CHECKING:
    from seg_l1.data.split import SegmentationData
    from seg_l1.experiments.sweep import Sweep
    from seg_l1.runs.directory import RunDirectory
    from seg_l1.runs.files import Config
    from seg_l1.training.loop import Loop

_data: tuple[str, SegmentationData] | None = None
"""Data of the last job of this process, which the next one usually needs too."""

_threads: int | None = None
"""Number of threads that torch uses by default in this process."""


def run_job(
    sweep: Sweep, index: int, config: Config, overrides: list[str], *, parallel: int = 1
) -> str:
    """Runs or resumes job `index`, see `train_job`; returns its status.

    Raises:
        Interrupted: if it was asked to stop, when everything is saved.
        RuntimeError: if `overrides` are not those that are planned for the job.
    """
    if [word for word in overrides if not word.startswith("-")] != sweep.jobs[index].overrides:
        planned = " ".join(sweep.jobs[index].overrides)
        raise RuntimeError(f"job {index} is planned as {planned}, not as {' '.join(overrides)}")
    try:
        return train_job(sweep, index, config, overrides, parallel=parallel)
    except RunError:
        return "failed"


def train_job(
    sweep: Sweep,
    index: int,
    config: Config,
    overrides: list[str],
    *,
    parallel: int = 1,
    on_screen: bool = False,
) -> str:
    """Runs or resumes job `index`; returns its status.

    A job is skipped if it is completed, if it is the same run as another job, or if another job has
    failed under `sweep.on_error=stop`. If another process is working on it, that is waited for.
    Errors are written to the log and summary of the job.

    Args:
        parallel: number of concurrent jobs; without `trainer.threads` they share the cores evenly.
        on_screen: see `complete`.

    Raises:
        Interrupted: if it was asked to stop; everything is saved then.
        RunError: if the run ends in an error.
    """
    from seg_l1.experiments.lock import lock
    from seg_l1.experiments.sweep import went_wrong

    run, job = sweep.run(index), sweep.jobs[index]
    if job.same_as is not None:
        return run.read_summary(missing_ok=True).status
    with lock(sweep.path, job.folder, wait=True):
        if run.read_summary(missing_ok=True).status == "completed":
            return "completed"
        if config["sweep"]["on_error"] == "stop":
            rows = sweep.rows()
            if any(went_wrong(row) for row in rows if row["index"] != index):
                return "pending"
        config, overrides = _longer(config, overrides, sweep.own_budget(index))
        complete(config, overrides, run, parallel=parallel, on_screen=on_screen)
    return "completed"


def _longer(config: Config, overrides: list[str], more: list[str]) -> tuple[Config, list[str]]:
    """Returns configuration and overrides with the values of `more` in place of their own."""
    config, keys = deepcopy(config), [*map(key_of, more)]
    for word in more:
        section, _, name = key_of(word).partition(".")
        config[section][name] = parse_word(word).value()
    return config, [*(word for word in overrides if key_of(word) not in keys), *more]


def complete(
    config: Config,
    overrides: list[str],
    record: RunDirectory,
    *,
    parallel: int = 1,
    data: SegmentationData | None = None,
    on_screen: bool = False,
    before_training: Callable[[Loop], None] = lambda loop: None,
    after_training: Callable[[Loop], None] | None = None,
) -> None:
    """Runs or resumes the run in `record`; does nothing if it is completed.

    Args:
        data: None = what `read_data` gives.
        on_screen: whether to print the log too.
        before_training, after_training: see `run.run`.

    Raises:
        RunError: if the run ends in an error; the message says where its log is.
        Interrupted: if it was asked to stop, when everything is saved.
    """
    from seg_l1.display import terminal
    from seg_l1.errors import Interrupted
    from seg_l1.training.run import run

    status = record.read_summary(missing_ok=True).status
    if status == "completed":
        return
    resume = status in ("running", "interrupted") and record.last.is_file()
    if not resume:
        _clear(record.path)
    with terminal.logging_to_screen() if on_screen else terminal.logging_to_file() as console:
        try:
            reset(config, parallel)
            distributed.broadcast_object({"config": config, "resume": resume})
            if data is None and distributed.size() == 1:
                data = read_data(config)
            run(
                config,
                record.path,
                overrides=overrides,
                resume=resume,
                console=console,
                data=data,
                before_training=before_training,
                after_training=after_training,
            )
        except Interrupted:
            raise
        except Exception as caught:
            # the checkpoint of a run that was refused before it went on is whole
            refused = resume and isinstance(caught, UserError)
            error = RunError(str(caught)) if refused else caught
            with suppress(UserError, RunError):  # the disk may be full
                record.write_failure(error)
            raise RunError(f"{described(error)} (see {record.log})") from caught


def reset(config: Config, parallel: int) -> None:
    """Frees what the previous job left in this process, except the cached data."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    torch._dynamo.reset()
    global _threads
    _threads = _threads or torch.get_num_threads()
    share = max(1, min(_threads, (os.cpu_count() or 1) // parallel)) if parallel > 1 else 0
    torch.set_num_threads(config["trainer"]["threads"] or share or _threads)


def read_data(config: Config) -> SegmentationData:
    """Returns the data of `config`, from the cache if the previous job has read them."""
    global _data
    from seg_l1.training.data import data_key, load_data

    key = data_key(config)
    if _data is None or _data[0] != key:
        _data = None  # so that two data sets are never in memory
        _data = (key, load_data(config))
    return _data[1]


def _clear(path: Path) -> None:
    """Removes the directory of a run that cannot be resumed."""
    import shutil

    if path.exists():
        shutil.rmtree(path)
