"""Runs a path: grid, folds, selection, refit; each step can be resumed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from seg_l1.config.commands import assignment, command_line, with_environment
from seg_l1.config.identity import FREE, differences, flatten, meaning
from seg_l1.config.words import key_of, slug
from seg_l1.data.split import SegmentationData
from seg_l1.display import terminal
from seg_l1.display.console import why_interrupted
from seg_l1.errors import Interrupted, UserError, described
from seg_l1.experiments.jobs import complete, read_data
from seg_l1.experiments.launch import call_hydra
from seg_l1.experiments.lock import lock
from seg_l1.experiments.path import figures, refit, screen, sizes, stability
from seg_l1.experiments.path.folds import draw_folds
from seg_l1.experiments.path.grid import alpha_for_zero_share, alpha_grid
from seg_l1.experiments.path.job import progress, task
from seg_l1.experiments.path.plan import Plan
from seg_l1.experiments.path.selection import Selection, select
from seg_l1.metrics.optimality import gradients
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.files import make_folder, write_json
from seg_l1.training.build import build
from seg_l1.training.instantiate import instantiate
from seg_l1.training.run import remove_if_empty

ATTEMPTS = 3
"""How often jobs are launched whose process was killed."""

FREE_ON_PATHS = (*(key for key in FREE if key != "trainer.kkt_images"), "path.folder")
"""Keys that may change when a path goes on; the images of the certificate set the alphas too."""


def run_path(config: dict[str, Any], lines: Sequence[str]) -> int:
    """Runs or resumes a path; returns the exit code.

    Args:
        config: the checked configuration that `lines` compose.
        lines: the overrides, and --config-dir=<folder> where there is one.

    Raises:
        UserError: if the input is wrong, or if no usable range of alpha can be derived from the
            unpenalized network.
        RunError: if a run fails that the path needs.
        Interrupted: if it was asked to stop; all is saved.
    """
    launcher = [line for line in lines if re.match(r"hydra\b", key_of(line))]
    words = with_environment([line for line in lines if line not in launcher], config)
    _check_path(config)
    data = read_data(config)
    folder = Path(config["path"]["folder"] or _default_folder(config, words)).expanduser()
    with exclusive(folder):
        plan = open_plan(folder, config, words, data)
        try:
            return _carry_out(plan, data, launcher)
        except (KeyboardInterrupt, Interrupted):
            again = command_line("path", *with_environment(lines, config))
            raise Interrupted(why_interrupted(f"go on with: {again}")) from None


def _check_path(config: dict[str, Any]) -> None:
    """Rejects configurations that a path does not support."""
    settings, regularizer = config["path"], config["regularizer"]
    if regularizer["penalty"]["_target_"].endswith(".Zero"):
        raise UserError("regularizer=none: has no alpha to choose; give regularizer=l1 or another")
    if config["target"]["measure"]:
        raise UserError("target: a target steers alpha, a path goes through a grid; leave one out")
    if settings["alphas"] and len(set(settings["alphas"])) < len(settings["alphas"]):
        raise UserError("path.alphas: names a value twice")
    penalty = instantiate("regularizer.penalty", regularizer["penalty"])
    if settings["relax_epochs"] and not hasattr(penalty, "prox"):
        raise UserError(f"path.relax_epochs: {type(penalty).__name__} has no prox to keep zeros by")
    if settings["budget"] is not None and not config["trainer"]["compact"]:
        raise UserError("path.budget: needs trainer.compact=true, which measures the sizes")
    if not settings["alphas"] and settings["low"] >= settings["high"]:
        raise UserError("path.low: must be below path.high")


def _default_folder(config: dict[str, Any], words: list[str]) -> Path:
    """Returns a folder named after the configuration, so that the same command finds it again."""
    digest = hashlib.sha256(meaning(config, free=FREE_ON_PATHS).encode()).hexdigest()
    kept = [word for word in words if key_of(word) not in FREE_ON_PATHS]
    return Path("outputs/paths") / f"{slug(kept)}_{digest[:6]}"


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Context manager: makes the folder and holds its lock; an empty folder is removed again."""
    if folder.is_file():
        raise UserError(f"path.folder: '{folder}' is a file; choose another one")
    make_folder(folder)
    with lock(folder, "controller", wait=False):
        try:
            yield
        finally:
            if list(folder.iterdir()) == [folder / ".controller.lock"]:
                (folder / ".controller.lock").unlink()
                remove_if_empty(folder)


def open_plan(
    folder: Path, config: dict[str, Any], words: list[str], data: SegmentationData
) -> Plan:
    """Returns the plan in `folder`, which must match, or a new one."""
    if not (folder / "path.json").exists():
        # hidden files may be left by a process that was killed
        if any(not p.name.startswith(".") for p in folder.iterdir()):
            raise UserError(f"path.folder: '{folder}' holds something else; choose another one")
        settings, dataset, folds = config["path"], config["dataset"], []
        if settings["folds"] > 1:
            folds = draw_folds(
                data,
                settings["folds"],
                settings["repeats"],
                seed=config["seed"],
                group_pattern=dataset.get("group_pattern"),
                stratify=dataset.get("stratify", False),
            )
        return Plan.create(
            folder,
            words=words,
            config=config,
            fingerprint=data.fingerprint,
            folds=folds,
            alphas=settings["alphas"],
        )
    plan = Plan(folder)
    before, now = (dict(flatten(c)) for c in (plan.config, config))
    typed = [key_of(word) for word in (*plan.words, *words)]
    if changes := differences(before, now, where="path", free=FREE_ON_PATHS, typed=typed):
        raise UserError(f"path.folder: this is not the path in {folder}", details=changes)
    plan.data(data, plan.whole)
    plan.amend(config=config, words=words)  # the free keys as they are now
    return plan


def _carry_out(plan: Plan, data: SegmentationData, launcher: list[str]) -> int:
    if plan.alphas is None:
        find_alpha_range(plan, data)
    done = _launch(plan, launcher)
    plan.write_table()
    if not done:
        return 1
    selection = _select(plan)
    chosen = selection.alphas[getattr(selection, plan.settings["rule"])]
    times = sizes.latencies(plan, data)
    figures.write(plan, selection, supports=stability.write(plan, chosen), times=times)
    terminal.say(screen.choice(plan, selection, chosen=chosen, times=times))
    refit.refit(plan, data, chosen)
    terminal.say(screen.closing(plan))
    return 0


def find_alpha_range(plan: Plan, data: SegmentationData) -> None:
    """Sets the grid of alpha, from the gradients of a network that is trained without penalty."""
    config = deepcopy(plan.config)
    config["regularizer"] |= {"alpha": 0.0, "schedule": "constant", "schedule_start": 0}
    config["trainer"]["epochs"] = plan.epochs
    record = RunDirectory(plan.path / "reference")
    images = plan.data(data, plan.whole)
    words = [*plan.words, "regularizer.alpha=0", f"trainer.epochs={plan.epochs}"]
    length = f"{plan.epochs} epoch{'s' * (plan.epochs != 1)}"
    terminal.say(f"training the dense network for {length} to find the range of alpha")
    complete(config, words, record, data=images)
    loop = build(config, images, pretrained=False).loop
    loop.model.load_state_dict(record.model_state("last"))
    tensors = loop.solver.penalized_tensors
    grads = gradients(loop.model, loop.objective.criterion, batches=loop.fixed, tensors=tensors)
    penalty, settings = loop.objective.penalty, plan.settings
    shares = {"low": settings["low"], "high": settings["high"], "last_survivor": 1.0}
    try:
        ends = {
            name: alpha_for_zero_share(share, penalty, tensors=tensors, grads=grads)
            for name, share in shares.items()
        }
    except ValueError as error:
        name = type(penalty).__name__
        raise UserError(f"path: {error} with {name}; give path.alphas=[...]") from None
    alphas = alpha_grid(ends["high"], ends["low"], num=settings["num"])
    if len(set(alphas)) < len(alphas):
        raise UserError(
            f"path.low, path.high: both give {alphas[0]:g}; take them further apart, or give"
            " path.alphas=[...]"
        )
    plan.amend(alphas=alphas, reference=ends)


def _launch(plan: Plan, launcher: list[str]) -> bool:
    """Launches missing jobs via hydra, again if one was killed; returns whether all completed."""
    words = [word for word in plan.words if not word.startswith("path.folder=")]
    words += [assignment(key, plan.path) for key in ("path.folder", "hydra.sweep.dir")]
    words += ["hydra.sweep.subdir=.", *launcher]
    over: tuple[str, ...] = ("completed",)
    with screen.PathScreen(plan) as live:
        for _ in range(ATTEMPTS):
            missing = [job.index for job in plan.jobs if progress(plan, job) not in over]
            if not missing:
                break
            over = ("completed", "failed")
            try:
                call_hydra([*words, f"path.job={','.join(map(str, missing))}", "-m"], task)
                break  # jobs that are still missing have printed their errors
            except (KeyboardInterrupt, SystemExit):  # a job was asked to stop
                raise KeyboardInterrupt from None
            except UserError:
                raise
            except Exception as error:  # a launcher lost a process
                live.say(f"a job ended early: {described(error)}; launching the missing runs again")
    return all(progress(plan, job) == "completed" for job in plan.jobs)


def _select(plan: Plan) -> Selection:
    """Selects an alpha and writes `selection.json`."""
    settings, falling = plan.settings, sorted(plan.alphas or [], reverse=True)
    name = f"val/{settings['metric']}"
    scores = plan.scores(name)
    folds = settings["folds"] if settings["folds"] > 1 else settings["repeats"]
    budget = settings.get("budget")  # older paths have no such key
    allowed = None if budget is None else sizes.within(plan, budget)
    try:
        found = select(falling, scores, folds=folds, metric=settings["metric"], allowed=allowed)
    except ValueError as error:
        raise UserError(f"path: {error}; give smaller values, as path.alphas=[...]") from None
    chosen = falling[getattr(found, settings["rule"])]
    means = {"multiply_adds": sizes.shares(plan).mean(0).tolist()}
    means |= {k: np.mean(plan.scores(k), axis=0).tolist() for k in ("sparsity/exact", "gap/miou")}
    content = {
        "metric": name,
        "rule": settings["rule"],
        "budget": budget,
        "chosen_alpha": chosen,
        "best_alpha": falling[found.best],
        "one_se_alpha": falling[found.one_se],
        "alphas": falling,
        "mean": found.mean.tolist(),
        "standard_error": found.error.tolist(),
        **means,
        "scores": {job.name: row.tolist() for job, row in zip(plan.jobs, scores, strict=True)},
        "reference": plan.reference,
    }
    write_json(plan.path / "selection.json", content)
    return found
