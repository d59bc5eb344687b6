"""ours: `train.py` with a target, which steers the strength of a penalty until it is met.

For the table of zeros the target is a number of nonzero weights, met with several penalties.

It runs the command as a user does, so that whatever the command does with the target counts.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.budget.job import Job, Trained
from seg_l1.errors import RunError

ROOT = Path(__file__).parents[2]
WORDS = ["target=multiply_adds", "target.share={share}", "regularizer=group_l1"]
"""What is added to the words of the experiment, which may set another regularizer."""

FOR_ZEROS = {
    "l1": ["regularizer=l1"],
    "mcp": ["regularizer=mcp"],
    "dual_averaging": ["regularizer=l1", "regularizer.solver=dual_averaging"],
}
"""Penalties and solvers that are trained beside `gradual`, for the table of zeros."""


def train(job: Job) -> Trained:
    return _trained(job, [word.format(share=job.share) for word in WORDS])


def train_zeros(job: Job, penalty: Sequence[str]) -> Trained:
    """Trains with the overrides `penalty` until only 1 − `job.zeros` of the weights are not 0."""
    assert job.zeros is not None
    left = round(1 - job.zeros, 9)
    return _trained(job, ["target=nonzeros", f"target.share={left:g}", *penalty])


def _trained(job: Job, words: Sequence[str]) -> Trained:
    by_command(job, [*job.overridden(words), f"regularizer.name='{job.name}'"])
    return Trained(job.run, [job.run])


def by_command(job: Job, words: list[str]) -> None:
    """Trains the run of a job with `train.py`, or goes on with it.

    Raises:
        RunError: with the last line of what it said, if it fails.
    """
    path = job.run.path.absolute()
    if job.run.last.is_file():
        words = [f"resume={path}"]
    else:
        words = [*words, f"seed={job.seed}", f"hydra.run.dir={path}"]
    command = [sys.executable, str(ROOT / "train.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError((done.stderr.strip().splitlines() or ["train.py failed"])[-1])
