"""One job of a sweep, in whatever process the launcher gave it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from seg_l1.errors import RunError, UserError, described

if TYPE_CHECKING:
    from seg_l1.data.split import SegmentationData
    from seg_l1.experiments.sweep import Sweep
    from seg_l1.runs.directory import RunDirectory
    from seg_l1.runs.files import Config
    from seg_l1.training.loop import Loop

_data: tuple[str, SegmentationData] | None = None
"""What the last job of this process read: the next one mostly needs the same."""

_threads: int | None = None
"""Threads that torch takes by itself in this process."""


def run_job(
    sweep: Sweep, index: int, config: Config, overrides: list[str], *, parallel: int = 1
) -> str:
    """Runs job `index`, or goes on with it where it was interrupted; returns its status.

    Nothing happens for a job that is done, or the same as another, or after a failure of another
    under `sweep.on_error=stop`. An error is written into the job's own log and summary.

    Args:
        parallel: jobs at a time; without `trainer.threads` each gets its share of the cores.

    Raises:
        Interrupted: after SIGINT or SIGTERM, when everything is saved.
    """
    from seg_l1.experiments.sweep import went_wrong

    rows = sweep.rows()
    mine = rows[index]
    failed = any(went_wrong(row) for row in rows if row["index"] != index)
    if sweep.jobs[index].same_as is not None or mine["status"] == "completed":
        return mine["status"]
    if failed and config["sweep"]["on_error"] == "stop":
        return "pending"
    try:
        complete(config, overrides, sweep.run(index), parallel=parallel)
    except RunError:
        return "failed"
    return "completed"


def complete(
    config: Config,
    overrides: list[str],
    record: RunDirectory,
    *,
    parallel: int = 1,
    data: SegmentationData | None = None,
    after_training: Callable[[Loop], None] | None = None,
) -> None:
    """Runs what `record` is to hold, or goes on with it; nothing happens where it is complete.

    Args:
        data: None = what `read_data` gives.
        after_training: see `run.run`.

    Raises:
        RunError: if the run ends in an error; the message says where its log is.
        Interrupted: after SIGINT or SIGTERM, when everything is saved.
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
    with terminal.logging_to_file() as console:
        try:
            reset(config, parallel)
            run(
                config,
                record.path,
                overrides=overrides,
                resume=resume,
                console=console,
                data=read_data(config) if data is None else data,
                after_training=after_training,
            )
        except Interrupted:
            raise
        except Exception as error:
            with suppress(UserError, RunError):  # a full disk has no room for the reason
                record.write_failure(error)
            raise RunError(f"{described(error)} (see {record.log})") from error


def reset(config: Config, parallel: int) -> None:
    """Leaves nothing of the job before in this process but what was read."""
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
    """The data of `config`; those that the job before read are not read again."""
    global _data
    from seg_l1.training.build import data_key, load_data

    key = data_key(config)
    if _data is None or _data[0] != key:
        _data = None  # so that two never lie in memory
        _data = (key, load_data(config))
    return _data[1]


def _clear(path: Path) -> None:
    """Removes what an attempt left that cannot go on."""
    import shutil

    if path.exists():
        shutil.rmtree(path)
