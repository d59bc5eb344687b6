"""magnitude: the dense network for half of the budget, then small filters go, then the other half.

Filters of all layers are compared by the root mean square of their weights, that is the L2 norm
divided by the root of the number of weights (Li et al., 2017, "Pruning filters for efficient
convnets", with one threshold for all layers). Each layer keeps its largest filter.

It cannot see that a norm layer behind a filter makes its size arbitrary, nor what a filter costs.
"""

from __future__ import annotations

from benchmarks.budget.channels import Channels, Filter, filters_of
from benchmarks.budget.job import Job, Trained
from benchmarks.budget.pruned import cut_once


def train(job: Job) -> Trained:
    return cut_once(job, ranking)


def ranking(channels: Channels) -> list[Filter]:
    sizes = {
        (name, index): float(value)
        for name, layer in channels.layers.items()
        for index, value in enumerate(filters_of(layer).detach().square().flatten(1).mean(1))
    }
    return sorted(sizes, key=lambda item: sizes[item])
