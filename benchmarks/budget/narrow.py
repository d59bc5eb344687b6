"""narrow: the same network with fewer channels, trained from scratch for the whole budget.

All layers are narrowed by one factor, and single channels make up for the rounding. It starts from
new weights: the comparison shows whether a large network is needed to find a small one (Liu et al.,
2019, "Rethinking the value of network pruning").

It cannot choose which layers get the channels. New weights are those of torch's default
initialization, so that networks with pretrained encoders lose the encoder's weights.
"""

from __future__ import annotations

from torch import nn

from benchmarks.budget.channels import Channels, by_position, renewed
from benchmarks.budget.job import Job, Trained


def train(job: Job) -> Trained:
    record = job.train(job.run, start=lambda: narrowed(job, job.target))
    return Trained(record, [record])


def narrowed(job: Job, target: int) -> nn.Module:
    """Returns the network of a job with fewer channels and new weights.

    Args:
        target: its multiply-adds.
    """
    channels = Channels(job.network(), job.example)
    return renewed(channels.meet(by_position(channels), target).model, job.seed)
