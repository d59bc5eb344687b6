"""Chooses the strength: a warm-started path, K-fold cross-validation, selection, refit.

    python scripts/path.py regularizer=l1 [path.folds=5] [path.num=10] [any words of train.py]
    python scripts/path.py regularizer=l1 path.folds=5 hydra/launcher=joblib hydra.launcher.n_jobs=2

Trains one network after the other along a grid of strengths, each from the weights of the one
before, on the validation split or on K folds of the training images; chooses a strength by the
best mean or by the one-standard-error rule (path.rule); and trains the network at that strength on
all training images. The keys are in conf/path/default.yaml. The same command again goes on where
it was stopped or killed, and shows the result where it is complete.

Writes into outputs/paths/<what was typed>/ (path.folder=... for another place): path.json (the
plan), a run directory per fold and strength, path.csv, selection.json, path.png, stability.csv,
stability.png, and the run directory refit/ (and relaxed/ with path.relax_epochs=...).

Exit codes as `train.py`: 0 done, 1 a run failed, 2 the input was wrong, 130 interrupted.
"""

from __future__ import annotations

import sys

from seg_l1.cli import main as cli
from seg_l1.experiments.path.controller import path_command

if __name__ == "__main__":
    sys.exit(cli.main(command=lambda words: path_command(words, __doc__)))
