"""One run, from a configuration to a run directory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from seg_l1 import distributed
from seg_l1.config.commands import assignment, command_line, with_environment
from seg_l1.data.split import SegmentationData
from seg_l1.display import run_text, terminal
from seg_l1.errors import Interrupted, Stopped
from seg_l1.runs import checkpoints
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.files import Config
from seg_l1.runs.summary import RunSummary
from seg_l1.runs.trust import needs_trust
from seg_l1.training.build import Experiment, build
from seg_l1.training.data import load_data
from seg_l1.training.evaluation import Row
from seg_l1.training.facts import first_summary
from seg_l1.training.finish import AfterTraining, finish
from seg_l1.training.loop import Loop
from seg_l1.training.recorder import Recorder
from seg_l1.training.restore import Restored, compact_shapes, restore
from seg_l1.training.signals import stop_signals
from seg_l1.training.target import make_target


def run(
    config: Config,
    directory: Path,
    *,
    overrides: list[str],
    resume: bool,
    console: Console,
    data: SegmentationData | None = None,
    implied: Collection[str] = (),
    on_epoch: Callable[[Row], None] = lambda row: None,
    before_training: Callable[[Loop], None] = lambda loop: None,
    after_training: AfterTraining | None = None,
) -> RunSummary | None:
    """Trains, evaluates and records one run; returns its summary.

    Nothing is written before the data, the configuration and (for `resume`) the checkpoint have
    passed their checks. In a distributed run every process calls this: rank 0 writes and returns
    the summary; the others need no directory, and return None.

    Args:
        config: the resolved configuration.
        directory: of the run.
        overrides: what the user typed, with the words that `experiment=own` stands for.
        resume: whether to go on from the last checkpoint in `directory`.
        console: where the live bar is shown.
        data: what `load_data(config)` returns, if it has been read before.
        implied: the overrides that follow from the others and the data, which commands for the
            next steps leave out.
        on_epoch: called with the row of each epoch, after it is saved; may raise to end the run.
        before_training: called with the loop before the first step, and before a checkpoint is
            restored; may add hooks to its optimizer.
        after_training: called after the last epoch with the best weights in the network; may change
            them, after which they are scored again and saved as the best.

    Raises:
        UserError: if the input is wrong.
        Interrupted: after SIGINT or SIGTERM, when everything is saved.
        RunError: if data or disk fail during the run; the last good checkpoint stays.
        Diverged: if the loss is not finite; the last good checkpoint stays.
    """
    started = time.perf_counter()
    is_main = distributed.rank() == 0
    record = RunDirectory.existing(directory) if resume and is_main else RunDirectory(directory)
    experiment = _prepare(config, data, resumed=record if resume else None)
    before_training(experiment.loop)
    facts = first_summary(experiment)
    before = restore(experiment, record) if resume else Restored()
    facts = replace(facts, extended=before.extended, notes=[*facts.notes, *before.notes])
    completed = experiment.loop.finished and is_main and record.read_summary().status == "completed"
    if distributed.broadcast_object(completed):
        terminal.log.info(f"{record.path}: is finished; {_longer(experiment.loop)}")
        return record.read_summary() if is_main else None
    if not is_main:
        _run_as_worker(experiment)
        return None
    if not resume:
        record.create()
    overrides = with_environment(overrides, config)
    recorder = Recorder(
        experiment, record, facts, overrides=overrides, started=started - before.elapsed
    )
    recorder.implied = implied
    if resume:
        recorder.check()
        record.tidy()
    return _recorded(recorder, console, on_epoch, after_training, resume=resume)


def _recorded(
    recorder: Recorder,
    console: Console,
    on_epoch: Callable[[Row], None],
    after_training: AfterTraining | None,
    *,
    resume: bool,
) -> RunSummary:
    """Trains and evaluates; whatever happens is recorded. The arguments are those of `run`."""
    with stop_signals() as stopped, recorder.recording_failure():
        recorder.start(resume)
        _log_start(recorder, resume=resume)
        with terminal.Bar(console, recorder.loop) as bar:
            _train(recorder, bar, stopped=stopped, on_epoch=on_epoch)
        summary = finish(recorder, after_training)
    if stopped():
        raise Interrupted(f"{recorder.record.path} is finished; what comes after it was stopped")
    return summary


def _longer(loop: Loop) -> str:
    """Returns how a finished run trains longer."""
    stale, patience = loop.epoch - loop.best_epoch, loop.settings.early_stopping
    more = "" if loop.epoch < loop.settings.epochs else "trainer.epochs=<more>"
    if patience is None or stale < patience:
        return f"{more} trains longer"
    more = f" and {more}" if more else ""
    return (
        f"early stopping ended it, {stale} epochs after the best;"
        f" trainer.early_stopping=null (or of more than {stale}){more} trains longer"
    )


def _prepare(
    config: Config, data: SegmentationData | None, *, resumed: RunDirectory | None
) -> Experiment:
    """Seeds the generators, reads the data and builds the experiment."""
    torch.set_flush_denormal(True)
    if config["trainer"]["threads"]:
        torch.set_num_threads(config["trainer"]["threads"])
    checkpoints.seed_everything(config["seed"])
    if data is None:
        terminal.log.info(f"seg_l1: reading the data, seed {config['seed']} ...")
        with distributed.rank_zero_first(bool(config["dataset"].get("download"))):
            data = load_data(config)
    terminal.log.info(terminal.data_text(data))
    shapes = None
    if resumed is not None and config["start"] is not None:  # which may be a compact network
        shapes = compact_shapes(resumed)
    experiment = build(config, data, pretrained=resumed is None, shapes=shapes)
    experiment.loop.target = make_target(config, experiment.loop, resumed=resumed is not None)
    return experiment


def _log_start(recorder: Recorder, *, resume: bool) -> None:
    loop = recorder.loop
    lines = run_text.start_lines(
        recorder.experiment.config,
        recorder.facts,
        tensors=loop.tensors,
        device=next(loop.model.parameters()).device,
        processes=distributed.size(),
        folder=recorder.record.path,
    )
    if resume:
        lines.append(f"going on after epoch {loop.epoch}, step {loop.step}")
    for line in lines:
        terminal.log.info(line)


def _train(
    recorder: Recorder,
    bar: terminal.Bar,
    *,
    stopped: Callable[[], bool],
    on_epoch: Callable[[Row], None],
) -> None:
    """Trains to the end; every epoch is recorded.

    Raises:
        Interrupted: when all is saved, after `stopped()` became true.
    """
    loop = recorder.loop
    again = f"go on with {resume_command(recorder.record, recorder.experiment.config)}"
    try:
        for row in loop.rows(bar.step, stopped):
            recorder.record_epoch(row)
            bar.row = row
            target = loop.target.budget / loop.target.costs.dense if loop.target else None
            epochs, best = loop.settings.epochs, loop.improved
            terminal.log.info(terminal.epoch_line(row, epochs=epochs, best=best, target=target))
            on_epoch(row)
    except Stopped:
        recorder.save()
        where = f"in epoch {loop.epoch + 1} at step {loop.step}"
        raise Interrupted(f"stopped {where}; {again}") from None
    if distributed.any_rank(stopped()):
        raise Interrupted(f"stopped after epoch {loop.epoch}; {again}")


def resume_command(record: RunDirectory, config: Config) -> str:
    """Returns the command that goes on with a run."""
    return command_line("train", assignment("resume", record.path), trust=needs_trust(config))


def _run_as_worker(experiment: Experiment) -> None:
    """Ranks other than 0: train and evaluate, write nothing."""
    loop = experiment.loop
    with stop_signals() as stopped:
        try:
            for _ in loop.rows(should_stop=stopped):
                pass
        except Stopped:
            raise Interrupted from None
        if distributed.any_rank(stopped()):
            raise Interrupted
    loop.model.load_state_dict(distributed.broadcast_object(None))
    loop.evaluate(experiment.test or loop.val)


def remove_if_empty(directory: Path) -> None:
    """Removes a run directory that nothing was written into, and an empty parent."""
    for path in (directory, directory.parent):
        try:
            os.rmdir(path)
        except OSError:
            return
