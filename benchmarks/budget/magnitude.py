"""magnitude: the dense network for half of the budget, then small filters go, then the other half.

Filters of all layers are compared by the L2 norm of their weights (Li et al., 2017, "Pruning
filters for efficient convnets", with one threshold for all layers), in one of three units:

* `magnitude`: the mean norm of the layer, as in Torch-Pruning's magnitude pruner;
* `magnitude_rms`: the root of the number of weights in a filter; new filters of deep layers, which
  read more channels, are small in it;
* `magnitude_l2`: none. Whole layers can be left with one channel each, and the network then learns
  nothing any more ("layer collapse").

`magnitude_late` cuts after three quarters of the budget. Each layer keeps its largest filter.

It cannot see that a norm layer behind a filter makes its size arbitrary, nor what a filter costs.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from benchmarks.budget.channels import Channels, Filter, filters_of
from benchmarks.budget.job import Job, Trained
from benchmarks.budget.pruned import BEFORE, cut_once

Unit = Callable[[Tensor], Tensor]
"""Weights (O, n) of the filters of a layer -> the unit of their norms."""


def mean_norm(weights: Tensor) -> Tensor:
    return weights.norm(dim=1).mean()


def root_of_size(weights: Tensor) -> Tensor:
    return weights.new_tensor(weights.shape[1]).sqrt()


def one(weights: Tensor) -> Tensor:
    return weights.new_ones(())


def train(job: Job, unit: Unit = mean_norm, share: float = BEFORE) -> Trained:
    return cut_once(job, lambda channels: ranking(channels, unit), share)


def ranking(channels: Channels, unit: Unit = mean_norm) -> list[Filter]:
    """Returns all filters, the smallest in `unit` first."""
    sizes: dict[Filter, float] = {}
    for name, layer in channels.layers.items():
        weights = filters_of(layer).detach().flatten(1)
        values = weights.norm(dim=1) / unit(weights)
        sizes |= {(name, index): value for index, value in enumerate(values.tolist())}
    return sorted(sizes, key=lambda item: sizes[item])
