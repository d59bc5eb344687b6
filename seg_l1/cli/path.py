"""Chooses alpha: a warm-started path, K-fold cross-validation, selection, refit.

    seg-l1 path regularizer=l1 [path.folds=5] [path.num=10] [any words of seg-l1 train]
    seg-l1 path regularizer=l1 path.folds=5 hydra/launcher=joblib hydra.launcher.n_jobs=2

Trains one network after the other along a grid of alphas, each from the weights of the one
before, on the validation split or on K folds of the training images; chooses an alpha by the
best mean or by the one-standard-error rule (path.rule); and trains the network at that alpha on
all training images. The keys are in conf/path/default.yaml. Running the same
command again resumes a path that was stopped or killed, and shows the result of a complete one.

Writes into outputs/paths/<what was typed>/ (path.folder=... for another place): path.json (the
plan), a run directory per fold and alpha, path.csv, selection.json, path.png, stability.csv,
stability.png, and the run directory refit/ (and relaxed/ with path.relax_epochs=...).

Exit codes: 0 done, 1 a run failed, 2 the input was wrong, 130 interrupted.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from seg_l1.cli import torchrun
from seg_l1.config.check import check_overrides
from seg_l1.config.compose import plain
from seg_l1.config.folders import config_words
from seg_l1.config.words import parse
from seg_l1.errors import UserError
from seg_l1.experiments.recipe import expanded

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


def run(words: list[str]) -> int:
    """Runs or resumes the path; returns the exit code."""
    torchrun.refuse("a path", "start it with python, without torchrun")
    flags, overrides = parse(words)
    _check(flags, overrides)
    overrides = expanded(flags, overrides)
    config = plain(check_overrides(flags, overrides))
    from seg_l1.experiments.path.controller import run_path  # torch is imported after the checks

    return run_path(config, [*config_words(flags), *(str(o.input_line) for o in overrides)])


def _check(flags: Namespace, overrides: Sequence[Override]) -> None:
    """Rejects flags and overrides that a path does not support."""
    if flags.multirun:
        raise UserError("path: launches its jobs by itself; start it without -m")
    for override in overrides:
        key, line = override.key_or_group, override.input_line
        if key in ("resume", "resume_sweep", "sweep.job", "sweep.plan_only", "start", "path.job"):
            raise UserError(f"{key}: a path plans its runs; the same command again goes on with it")
        if override.is_sweep_override():
            raise UserError(f"{line}: a path takes one value; alphas are path.alphas=[...]")
        if key == "regularizer.alpha":
            raise UserError("regularizer.alpha: leave it out, or give path.alphas=[...] instead")
        if key == "hydra.job.chdir":
            raise UserError("hydra.job.chdir: the jobs of a path share its folder; leave it out")
