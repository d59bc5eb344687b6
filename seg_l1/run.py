"""One run, from a configuration to a run directory: the rooms put together in their order."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_l1.errors import UserError, first_line

if TYPE_CHECKING:
    from rich.console import Console

    from seg_l1.artifacts import RunDirectory
    from seg_l1.build import Config, Experiment


def run(
    config: Config, directory: Path, *, overrides: list[str], resume: bool, console: Console
) -> dict[str, Any]:
    """Trains, evaluates and records one run; returns its summary.

    Nothing is written before the data, the configuration and (for `resume`) the checkpoint have
    passed their checks.

    Raises:
        UserError: if the input is wrong.
        Interrupted: after SIGINT or SIGTERM, when everything is saved.
        Diverged: if the loss is not finite; the last good checkpoint stays.
    """
    import torch

    from seg_l1 import checkpoints, display
    from seg_l1.artifacts import RunDirectory
    from seg_l1.build import build, load_data
    from seg_l1.recorder import Recorder

    started = time.perf_counter()
    torch.set_flush_denormal(True)
    if config["trainer"]["threads"]:
        torch.set_num_threads(config["trainer"]["threads"])
    checkpoints.seed_everything(config["seed"])
    display.log.info(f"seg_l1: reading the data, seed {config['seed']} ...")
    data = load_data(config)
    display.log.info(display.data_text(data))
    experiment = build(config, data)
    record = RunDirectory.existing(directory) if resume else RunDirectory(directory)
    state = _restore(experiment, record) if resume else {"elapsed": 0.0}
    if not resume:
        record.create()
    display.open_log(record.log)
    recorder = Recorder(experiment, record, overrides, started - state["elapsed"])
    recorder.start(resume)
    try:
        with display.Bar(console, _total_steps(experiment), experiment.loop.step) as bar:
            recorder.train(bar)
        summary = recorder.finish()
    except BaseException as error:
        recorder.failed(error)
        raise
    finally:
        recorder.close()
    return summary


def _total_steps(experiment: Experiment) -> int:
    return experiment.loop.steps_per_epoch * experiment.loop.settings.epochs


def _restore(experiment: Experiment, record: RunDirectory) -> dict[str, Any]:
    from seg_l1 import checkpoints

    state = checkpoints.load(record.last)
    try:
        experiment.loop.load_state_dict(state["loop"])
        checkpoints.set_random_state(state["random"])
    except (KeyError, RuntimeError, ValueError) as error:
        reason = first_line(error)
        raise UserError(f"{record.last}: does not fit this run ({reason})") from error
    return state


def remove_if_empty(directory: Path) -> None:
    """Removes a run directory that nothing was written into, and an empty parent."""
    for path in (directory, directory.parent):
        try:
            os.rmdir(path)
        except OSError:
            return
