"""What contenders share that train the dense network first, cut it, and train on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.budget.channels import Channels, Filter
from benchmarks.budget.job import Job, Trained, split_epochs
from seg_l1.runs.directory import RunDirectory

BEFORE, LATE = 0.5, 0.75
"""Share of the epochs before the cut; where a budget is short, a later cut may be better."""


def pretrained(job: Job, epochs: int) -> RunDirectory:
    """Trains the dense network without a penalty; all jobs of a seed share the training."""
    return job.train(job.phase(f"dense_{epochs}"), epochs=epochs)


def cut_once(
    job: Job, rank: Callable[[Channels], Sequence[Filter]], share: float = BEFORE
) -> Trained:
    """Trains the dense network, removes filters in the order of `rank`, and trains on.

    Args:
        share: of the epochs that come before the cut.
    """
    before, after = split_epochs(job.epochs, share, 1 - share)
    dense = pretrained(job, before)

    def start():
        channels = Channels(job.network(dense), job.example)
        return channels.meet(rank(channels), job.target).model

    record = job.train(job.run, epochs=after, start=start)
    return Trained(record, [dense, record])
