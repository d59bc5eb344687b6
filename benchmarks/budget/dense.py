"""dense: the whole network, trained without a penalty for the whole budget.

The reference of all differences. It has no target.
"""

from __future__ import annotations

from benchmarks.budget.job import Job, Trained


def train(job: Job) -> Trained:
    record = job.train(job.run)
    return Trained(record, [record])
