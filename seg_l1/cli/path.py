"""Chooses alpha: a warm-started path, K-fold cross-validation, selection, refit.

    seg-l1 path regularizer=l1 [path.folds=5] [path.num=10] [any words of seg-l1 train]
    seg-l1 path regularizer=l1 path.folds=5 hydra/launcher=joblib hydra.launcher.n_jobs=2

Trains one network after the other along a grid of alphas, each from the weights of the one
before, on the validation split or on K folds of the training images; chooses an alpha by the
best mean or by the one-standard-error rule (path.rule); and trains the network at that alpha on
all training images. The keys are in conf/path/default.yaml. The same command again goes on where
it was stopped or killed, and shows the result where it is complete.

Writes into outputs/paths/<what was typed>/ (path.folder=... for another place): path.json (the
plan), a run directory per fold and alpha, path.csv, selection.json, path.png, stability.csv,
stability.png, and the run directory refit/ (and relaxed/ with path.relax_epochs=...).

Exit codes: 0 done, 1 a run failed, 2 the input was wrong, 130 interrupted.
"""

from __future__ import annotations

from seg_l1.cli import torchrun
from seg_l1.config.check import check_overrides
from seg_l1.config.words import parse
from seg_l1.errors import UserError


def run(words: list[str]) -> int:
    """Follows the path; returns the exit code."""
    torchrun.refuse("a path", "start it with python, without torchrun")
    flags, overrides = parse(words)
    for override in overrides:
        if override.is_sweep_override():
            line = override.input_line
            raise UserError(f"{line}: a path takes one value; alphas are path.alphas=[...]")
    check_overrides(flags, overrides)  # a typo is answered without torch
    from seg_l1.experiments.path.controller import run_path

    return run_path(flags, overrides)
