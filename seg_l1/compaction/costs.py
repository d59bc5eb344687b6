"""What a weight costs: the multiply-adds or parameters that are saved when it is zero."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from seg_l1.compaction.analysis import link
from seg_l1.compaction.capture import CaptureError, Program
from seg_l1.compaction.graph import Graph, Indices, Mask, Value
from seg_l1.compaction.mixing import Mixing
from seg_l1.compaction.rules import RULES
from seg_l1.errors import UserError
from seg_l1.scope import ScopedTensor

COSTS = ("none", "multiply_adds", "parameters")


def cost_factors(
    model: nn.Module,
    example: Tensor,
    tensors: Sequence[ScopedTensor],
    *,
    cost: str,
    power: float = 1.0,
    grouped: bool = False,
) -> list[float]:
    """Returns a factor ω for each tensor, proportional to what one of its weights costs.

    A weight of a kernel costs its multiply-adds for one image, which are the pixels of the output
    of its convolution, or 1 parameter. For a penalty on groups it is what the compact network saves
    when a group is zero, divided by the number of its weights: its own weights, and those of other
    layers that read its channel. Of groups across tensors all weights cost the same. A tensor with
    one dimension, such as the scales of a norm layer, costs what its channels cost. Channels of the
    output of the network, and those that an operator without a rule needs, cannot go, so that only
    their own weights count. A tensor of which no cost is known has ω = 1: one that the network does
    not use, or that only such an operator reads.

    The mean over all other penalized weights is 1, so that α keeps its meaning. The sizes are those
    of `model` as it is, and do not change as weights become zero: the objective is the same from
    the first step to the last. MorphNet (Gordon et al., 2018) uses the size of the network at each
    step, for L1 on the scales of batch norm.

    Args:
        model: that `torch.export` can capture.
        example: a batch (1, C, H, W) on the device of the model.
        cost: one of `COSTS`.
        power: ω is proportional to cost^power; 0.5 is a compromise between 1 and 0 (no cost).
        grouped: whether the penalty is one on groups.

    Returns:
        One number per tensor, 1 for those without a penalty.

    Raises:
        UserError: if the network cannot be captured.
    """
    if cost == "none":
        return [1.0] * len(tensors)
    try:
        with torch.no_grad():
            graph = Program(model, [example]).graph(RULES)
    except CaptureError as error:
        raise UserError(f"regularizer.cost={cost}: {error}; use regularizer.cost=none") from error
    prices = _Prices(graph, model, tensors, cost)
    costs = [
        prices.of(scoped, grouped=grouped) ** power if scoped.penalized else 0.0
        for scoped in tensors
    ]
    sizes = [scoped.tensor.numel() * (c > 0) for c, scoped in zip(costs, tensors, strict=True)]
    mean = sum(n * c for n, c in zip(sizes, costs, strict=True)) / max(1, sum(sizes))
    return [c / mean if c > 0 else 1.0 for c in costs]


class _Parameter(NamedTuple):
    """A parameter, what one of its entries costs, and the channels along its dimensions."""

    value: Value
    price: float
    sliced: dict[int, Indices]

    @property
    def entries(self) -> int:
        return prod(self.value.shape)

    def saving(self, channel: int) -> float:
        """What its entries cost that go with a channel."""
        stay = 1.0
        for dim, channels in self.sliced.items():
            stay *= 1 - float((channels == channel).sum()) / self.value.shape[dim]
        return self.price * self.entries * (1 - stay)


class _Prices:
    """The costs of the weights of a network."""

    def __init__(
        self, graph: Graph, model: nn.Module, tensors: Sequence[ScopedTensor], cost: str
    ) -> None:
        self.fixed: Mask = link(graph)
        prices: dict[int, float] = defaultdict(float)
        if cost == "parameters":
            trained = {name for name, _ in model.named_parameters(remove_duplicate=False)}
            prices |= {id(v): 1.0 for name, v in graph.parameters.items() if name in trained}
        else:
            for operation in graph.operations:
                if isinstance(operation, Mixing) and operation.weight.data is not None:
                    prices[id(operation.weight)] += operation.multiply_adds_per_weight
        values = {id(value): value for value in graph.parameters.values()}
        self.parameters = {
            key: _Parameter(value, prices[key], value.sliced) for key, value in values.items()
        }
        self.names = {name: id(value) for name, value in graph.parameters.items()}
        self.savings: dict[int, float] = {}
        self.grouped: dict[int, list[tuple[_Parameter, float]]] = defaultdict(list)
        for scoped in tensors:
            if scoped.channels is not None and scoped.name in self.names:
                found = self.parameters[self.names[scoped.name]]
                for channel in scoped.channels:
                    self.grouped[channel].append((found, found.entries / len(scoped.channels)))

    def of(self, scoped: ScopedTensor, *, grouped: bool) -> float:
        """Returns the cost of a weight of a tensor; 0 if it is not known."""
        found = self.parameters.get(self.names.get(scoped.name, 0))
        by_channel = grouped or scoped.tensor.ndim == 1
        if found is not None and scoped.channels is not None:
            return float(np.mean([self._of_group(channel) for channel in scoped.channels]))
        if found is not None and by_channel and (axis := self._axis(found, scoped)) is not None:
            return self._of_channels(found, axis)
        return 0.0 if found is None else found.price

    @staticmethod
    def _axis(found: _Parameter, scoped: ScopedTensor) -> int | None:
        axis = scoped.axis if scoped.tensor.ndim > 1 else 0
        return axis if axis in found.sliced else None

    def _of_channels(self, found: _Parameter, axis: int) -> float:
        """Returns the mean over the channels of what each saves, per weight."""
        per_channel = found.entries / found.value.shape[axis]
        own = found.price * per_channel
        savings = [own if self.fixed[c] else self._saving(int(c)) for c in found.sliced[axis]]
        return float(np.mean(savings)) / per_channel

    def _of_group(self, channel: int) -> float:
        """Returns what a channel saves, per weight of a group across tensors."""
        members = self.grouped[channel]
        own = sum(found.price * weights for found, weights in members)
        saved = own if self.fixed[channel] else self._saving(channel)
        return saved / sum(weights for _, weights in members)

    def _saving(self, channel: int) -> float:
        if channel not in self.savings:
            self.savings[channel] = sum(p.saving(channel) for p in self.parameters.values())
        return self.savings[channel]
