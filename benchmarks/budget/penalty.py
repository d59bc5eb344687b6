"""penalty: a regularizer of seg_l1 as it is given, with or without a last phase without penalty.

The words are those of `train.py`, such as `regularizer=l1 regularizer.alpha=3e-5`. With `refit=`
the last epochs train the weights that are not zero, without a penalty (relaxed lasso).

It cannot meet a target: what the network costs follows from the strength.
"""

from __future__ import annotations

from benchmarks.budget.job import Job, Trained
from seg_l1.config.words import key_of
from seg_l1.errors import UserError


def train(job: Job, words: list[str], refit: int = 0) -> Trained:
    """Trains with the overrides `words`; `refit` of the epochs are those of the last phase."""
    if not refit:
        record = job.train(job.run, *words)
        return Trained(record, [record])
    if refit >= job.epochs:
        raise UserError(f"refit={refit}: expected fewer than trainer.epochs={job.epochs}")
    first = job.train(job.own_phase("penalized"), *words, epochs=job.epochs - refit)
    scope = [word for word in words if key_of(word).startswith("regularizer.scope")]
    frozen = ["regularizer=none", "regularizer.solver=frozen", *scope]
    record = job.train(job.run, *frozen, epochs=refit, start=first)
    return Trained(record, [first, record])
