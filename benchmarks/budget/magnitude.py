"""magnitude: the dense network for half of the budget, then small filters go, then the other half.

Filters of all layers are compared by the L2 norm of their weights (Li et al., 2017, "Pruning
filters for efficient convnets", with one threshold for all layers). `magnitude_rms` divides it by
the root of the number of weights in the filter. With torch's initialization new filters of all
layers have about the same norm, but a smaller root mean square where they read more channels: so
`magnitude_rms` takes much more from deep layers. Each layer keeps its largest filter.

It cannot see that a norm layer behind a filter makes its size arbitrary, nor what a filter costs.
"""

from __future__ import annotations

from benchmarks.budget.channels import Channels, Filter, filters_of
from benchmarks.budget.job import Job, Trained
from benchmarks.budget.pruned import cut_once


def train(job: Job) -> Trained:
    return cut_once(job, ranking)


def train_rms(job: Job) -> Trained:
    return cut_once(job, lambda channels: ranking(channels, divide=True))


def ranking(channels: Channels, *, divide: bool = False) -> list[Filter]:
    """Returns all filters, the smallest first.

    Args:
        divide: whether norms are divided by the root of the number of weights.
    """
    sizes = {}
    for name, layer in channels.layers.items():
        squares = filters_of(layer).detach().square().flatten(1)
        values = squares.mean(1) if divide else squares.sum(1)
        sizes |= {(name, index): value for index, value in enumerate(values.tolist())}
    return sorted(sizes, key=lambda item: sizes[item])
