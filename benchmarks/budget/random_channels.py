"""random: the dense network for half of the budget, then random filters go, then the other half.

Each filter is as likely to go as any other (Mittal et al., 2018, "Recovering from random pruning").
What is better than this has found out which filters matter. `random_late` cuts after three quarters
of the budget.

It cannot remove channels that an addition ties together unless all their filters are drawn.
"""

from __future__ import annotations

import torch

from benchmarks.budget.channels import Channels, Filter
from benchmarks.budget.job import Job, Trained
from benchmarks.budget.pruned import BEFORE, cut_once


def train(job: Job, share: float = BEFORE) -> Trained:
    return cut_once(job, lambda channels: ranking(channels, job.seed), share)


def ranking(channels: Channels, seed: int) -> list[Filter]:
    filters = channels.filters()
    order = torch.randperm(len(filters), generator=torch.Generator().manual_seed(seed))
    return [filters[index] for index in order.tolist()]
