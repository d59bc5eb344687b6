"""Searches hyperparameters with optuna; each trial is a normal run.

    seg-l1 search regularizer=l1 "regularizer.alpha=log(1e-7,1e-3)" \\
        "optimizer.lr=log(1e-3,3e-2)" "model.width=int(8,32)" "optimizer=choice(sgd,adam)" \\
        trials=20 [study=<folder>] [objectives=miou|miou,zeros] [pruner=median|none]
    seg-l1 search study=<folder> [trials=40]

A value log(a,b), uniform(a,b), int(a,b) or choice(a,b,...) spans the space; all other words are
those of seg-l1 train (--config-dir is the only flag) and hold for every trial. `seed` seeds the
draws too. The second form resumes a study until it has that many trials; processes that run it at
once share the trials. A study is written to outputs/searches/: study.journal, trials.csv, and a
run directory per trial.

`objectives=miou` maximizes the best validation mIoU of a run, and ends a trial early that is worse
than the median of the trials before it at the same epoch (`pruner=none`: never). `miou,zeros`
maximizes mIoU and the share of exact zeros at its epoch, and shows the Pareto front.

Exit codes: 0 done, 1 no trial is complete, 2 the input was wrong, 130 interrupted.
"""

from __future__ import annotations

from argparse import ArgumentError, ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from seg_l1.cli import torchrun
from seg_l1.errors import UserError


def run(words: list[str]) -> int:
    """Runs the study; returns the exit code."""
    torchrun.refuse("a search", "start it with python, without torchrun")
    from seg_l1.experiments.search import search

    return search(_keys(words))


def _keys(words: Sequence[str]) -> dict[str, str]:
    """Returns the value of each key, the folder of --config-dir before them."""
    from seg_l1.experiments.space import CONFIG_DIR

    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(CONFIG_DIR, "-cd", dest="folder")
    try:
        flags, others = parser.parse_known_args(words)
    except ArgumentError as error:
        raise UserError(f"{error} (see --help)") from None
    keys = {key: value for key, _, value in (word.partition("=") for word in others)}
    if flags.folder is None:
        return keys
    return {CONFIG_DIR: str(Path(flags.folder).expanduser().absolute()), **keys}
