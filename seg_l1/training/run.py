"""One run, from a configuration to a run directory: the rooms put together in their order."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_l1 import distributed
from seg_l1.errors import RunError, UserError, first_line

if TYPE_CHECKING:
    from rich.console import Console

    from seg_l1.data.split import SegmentationData
    from seg_l1.runs.directory import RunDirectory
    from seg_l1.runs.files import Config
    from seg_l1.runs.summary import RunSummary
    from seg_l1.training.build import Experiment
    from seg_l1.training.evaluation import Row
    from seg_l1.training.loop import Loop
    from seg_l1.training.recorder import Recorder


def run(
    config: Config,
    directory: Path,
    *,
    overrides: list[str],
    resume: bool,
    console: Console,
    data: SegmentationData | None = None,
    on_epoch: Callable[[Row], None] = lambda row: None,
    polish: Callable[[Loop], None] | None = None,
) -> RunSummary | None:
    """Trains, evaluates and records one run; returns its summary.

    Nothing is written before the data, the configuration and (for `resume`) the checkpoint have
    passed their checks. Of several processes, which all call this, the first writes and returns the
    summary; the others need no directory, and return None.

    Args:
        data: what `load_data(config)` returns, where somebody has read it already.
        polish: called with the best weights in the network after the last epoch; what it makes of
            them is scored anew, and saved as the best.
        on_epoch: called with the row of each epoch, after it is saved; may raise to end the run.

    Raises:
        UserError: if the input is wrong.
        Interrupted: after SIGINT or SIGTERM, when everything is saved.
        RunError: if the data or the disk fail it in the middle; the last good checkpoint stays.
        Diverged: if the loss is not finite; the last good checkpoint stays.
    """
    import torch

    from seg_l1.display import terminal
    from seg_l1.errors import Interrupted
    from seg_l1.runs import checkpoints
    from seg_l1.runs.directory import RunDirectory
    from seg_l1.training.build import build, load_data
    from seg_l1.training.recorder import Recorder
    from seg_l1.training.signals import stop_signals

    started = time.perf_counter()
    torch.set_flush_denormal(True)
    if config["trainer"]["threads"]:
        torch.set_num_threads(config["trainer"]["threads"])
    checkpoints.seed_everything(config["seed"])
    if data is None:
        terminal.log.info(f"seg_l1: reading the data, seed {config['seed']} ...")
        with distributed.rank_zero_first(bool(config["dataset"].get("download"))):
            data = load_data(config)
    terminal.log.info(terminal.data_text(data))
    experiment = build(config, data, pretrained=not resume)
    facts = _facts(experiment)
    first = distributed.rank() == 0
    record = RunDirectory.existing(directory) if resume and first else RunDirectory(directory)
    state = _restore(experiment, record) if resume else {"elapsed": 0.0}
    if distributed.broadcast_object(experiment.loop.finished and first and _completed(record)):
        if not first:
            return None
        terminal.log.info(f"{record.path}: is finished; trainer.epochs=<more> trains longer")
        return record.read_summary()
    if not first:
        _take_part(experiment)
        return None
    if not resume:
        record.create()
    begun = started - state["elapsed"]
    recorder = Recorder(experiment, record, facts, overrides=overrides, started=begun)
    if resume:
        recorder.check()
        record.tidy()
    with stop_signals() as stopped:
        summary = _carry_out(recorder, resume, stopped, console, on_epoch, polish)
    if stopped():
        raise Interrupted(f"{record.path} is finished; what comes after it was stopped")
    return summary


def _carry_out(
    recorder: Recorder,
    resume: bool,
    stopped: Callable[[], bool],
    console: Console,
    on_epoch: Callable[[Row], None],
    polish: Callable[[Loop], None] | None,
) -> RunSummary:
    """Starts, trains and finishes; what goes wrong is noted in the summary."""
    from seg_l1.display import terminal
    from seg_l1.runs.files import writing

    record = recorder.record
    try:
        with writing(record.path):
            terminal.open_log(record.log)
            recorder.start(resume)
            with terminal.Bar(console, recorder.loop) as bar:
                recorder.train(bar, stopped, on_epoch)
            return recorder.finish(polish)
    except UserError as error:  # all was right when the run began
        failure = RunError(str(error))
        recorder.failed(failure)
        raise failure from error
    except BaseException as error:
        recorder.failed(error)
        raise
    finally:
        recorder.close()


def _completed(record: RunDirectory) -> bool:
    return record.read_summary().status == "completed"


def _take_part(experiment: Experiment) -> None:
    """What a process does that is not the first: all that is computed, and no file."""
    from seg_l1.errors import Interrupted
    from seg_l1.training.loop import Stopped
    from seg_l1.training.signals import stop_signals

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


def evaluate_run(
    directory: str | Path,
    split: str | None = None,
    *,
    root: str | None = None,
    device: str | None = None,
) -> dict[str, float]:
    """Scores the best weights of a finished run on one of its splits.

    Args:
        split: "val" or "test"; None = test where there is one.
        root, device: in place of `dataset.root` and `device` of the run.

    Returns:
        "<split>/miou", "<split>/iou/<class>" and so on; "sparsity/exact" and its kin.

    Raises:
        UserError: if there is no such run, checkpoint or split, or the data cannot be read.
    """
    from seg_l1.metrics.sparsity import sparsity
    from seg_l1.runs.directory import RunDirectory
    from seg_l1.runs.files import blame_file
    from seg_l1.training.build import build, load_data

    record = RunDirectory.existing(directory, key="run")
    best = record.read_best()
    with blame_file(record.best):
        config, classes, fingerprint = best["config"], [*best["classes"]], best["fingerprint"]
        config["device"] = device or config["device"]
        config["augmentation"], config["trainer"]["kkt_images"] = {"_target_": None}, 0
        if config["dataset"]["image_size"] is None:
            config["dataset"]["batch_size"] = 1
        if root is not None:
            if "root" not in config["dataset"]:
                raise UserError("dataset.root: the data of this run lie in no folder; leave it out")
            config["dataset"]["root"] = root
        data = load_data(config)
    if data.classes != classes:
        raise UserError(
            f"dataset.root: its classes are {', '.join(data.classes)}, the run was trained on"
            f" {', '.join(map(str, classes))}"
        )
    if data.indices and data.fingerprint != fingerprint:
        raise UserError(
            "dataset.root: these are not the files that the run's splits were drawn from, so images"
            " of its training may be among those to score. Give a folder with test/images and"
            " test/masks."
        )
    split = split or ("test" if "test" in data.splits else "val")
    if split not in data.splits:
        raise UserError(f"split: there is no '{split}', only {', '.join(data.splits)}")
    if split == "train":
        raise UserError("split: val and test can be scored; the training split is augmented")
    with blame_file(record.best):
        data = replace(data, mean=best["mean"], std=best["std"])
        experiment = build(config, data, pretrained=False)
        loop, batches = experiment.loop, {"val": experiment.loop.val, "test": experiment.test}
        loop.model.load_state_dict(best["model"])
    scores, _ = loop.evaluate(batches[split])
    return {f"{split}/{name}": value for name, value in scores.items()} | sparsity(loop.tensors)


def _facts(experiment: Experiment) -> dict[str, Any]:
    """Parameters, multiply-adds, sources of shrinkage and notes, from a first forward pass."""
    import torch

    from seg_l1.metrics import shrinkage, sparsity

    loop = experiment.loop
    device = next(loop.model.parameters()).device
    image = torch.zeros(1, *loop.fixed[0][0].shape[1:], device=device)
    tile = loop.settings.tile
    try:
        if tile and (tile[0] < image.shape[2] or tile[1] < image.shape[3]):
            loop.model.eval()(image[..., : tile[0], : tile[1]])
        count = sparsity.multiply_adds(loop.model, image)
        fed = shrinkage.scale_invariant_layers(loop.model, image)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"model: does not fit the images ({first_line(error)})") from error
    notes = shrinkage.notes(experiment.config, loop.tensors, fed)
    if loop.train.batch_size < distributed.size():
        notes.append(
            f"batches of {loop.train.batch_size} leave some of {distributed.size()} processes"
            " without an image"
        )
    return {
        "epochs": loop.settings.epochs,
        "parameters": sparsity.parameters(loop.model),
        "penalised_weights": sum(e.tensor.numel() for e in loop.tensors if e.penalized),
        "multiply_adds": count,
        "shrinkage": shrinkage.sources(experiment.config),
        "notes": notes,
    }


def _restore(experiment: Experiment, record: RunDirectory) -> dict[str, Any]:
    import torch

    from seg_l1.runs import checkpoints
    from seg_l1.runs.files import blame_file

    state = distributed.broadcast_object(
        checkpoints.load(record.last) if distributed.rank() == 0 else None
    )
    if state.get("fingerprint") != experiment.data.fingerprint:
        raise UserError(
            f"{record.last}: does not fit this run (it was trained on other data than dataset.root"
            " holds now)"
        )
    with blame_file(record.last):
        loop, saved = experiment.loop, state["loop"]
        for name, fresh in loop.state_dict().items():
            if isinstance(fresh, int | float) and not isinstance(saved[name], type(fresh)):
                raise ValueError(f"{name} is no number")
        most = {"batch": len(loop.train), "best_epoch": saved["epoch"]}
        for name in ("epoch", "batch", "step", "best_epoch"):
            if not 0 <= saved[name] <= most.get(name, saved[name]):
                raise ValueError(f"{name} is {saved[name]}")
        loop.load_state_dict(saved)
        for weights, moments in loop.optimizer.state.items():
            for name, moment in moments.items():
                if torch.is_tensor(moment) and moment.shape not in (weights.shape, ()):
                    raise ValueError(f"{name} has another shape than its weights")
        checkpoints.set_random_state(state["random"])
        return {**state, "elapsed": float(state["elapsed"])}


def remove_if_empty(directory: Path) -> None:
    """Removes a run directory that nothing was written into, and an empty parent."""
    for path in (directory, directory.parent):
        try:
            os.rmdir(path)
        except OSError:
            return
