"""flat: a U-Net with the same width at all levels, trained from scratch for the whole budget.

The Lean U-Net paper finds that it does as well as pruning. Its width is the largest that the target
allows; what is left of the target goes into one channel more in some of the layers.

It cannot be had of other networks than the U-Net.
"""

from __future__ import annotations

from itertools import count

from benchmarks.budget.job import Job, Trained
from benchmarks.budget.narrow import narrowed
from seg_l1.errors import UserError


def train(job: Job) -> Trained:
    if not job.config["model"]["_target_"].endswith(".UNet"):
        raise UserError("flat: only model=unet has a flat form")
    wide = next(flat for flat in map(job_of(job), count(1)) if flat.dense_cost >= job.target)
    record = wide.train(job.run, start=lambda: narrowed(wide, job.target))
    return Trained(record, [record])


def job_of(job: Job):
    """Returns a function: the width of a flat U-Net -> the job with that network."""

    def flat(width: int) -> Job:
        return job.with_words("model=flat_unet", f"model.width={width}", "model.growth=1.0")

    return flat
