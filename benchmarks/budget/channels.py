"""Removes filters of a network until its exact multiply-adds meet a target."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks.budget.job import TOLERANCE
from seg_l1.compaction import CompactModel, Compactor
from seg_l1.errors import UserError
from seg_l1.metrics.sparsity import multiply_adds

Filter = tuple[str, int]
"""The name of a layer, and an output channel of it."""

LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)


class Channels:
    """The filters of a network that can be removed, and what it costs without some of them.

    Depthwise and other grouped convolutions have none of their own: they follow what they read.

    Args:
        model: in eval mode; it is not changed.
        example: an image (1, C, H, W).

    Attributes:
        dense_cost: multiply-adds of the whole network.
        layers: name -> module, of the layers that can lose all filters but one. A layer whose
            output is that of the network cannot.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self.model = copy.deepcopy(model).eval()
        self._state = copy.deepcopy(self.model.state_dict())
        self._compactor = Compactor(self.model, example)
        self.dense_cost = multiply_adds(self.model, example)
        self._norms = norms_after(self.model, example)
        self.layers = self._candidates()
        self.layers = self._removable()

    def filters(self) -> list[Filter]:
        """All filters, in the order of the layers."""
        return [
            (name, index)
            for name, layer in self.layers.items()
            for index in range(len(filters_of(layer)))
        ]

    @torch.no_grad()
    def without(self, removed: Sequence[Filter]) -> CompactModel:
        """Returns the compact network of the one in which the outputs of `removed` are 0."""
        for name, index in removed:
            layer, norm = self.layers[name], self._norms.get(name)
            filters_of(layer)[index] = 0
            if layer.bias is not None:
                layer.bias[index] = 0
            if norm is not None:
                norm.weight[index] = norm.bias[index] = 0
        try:
            return self._compactor.compact()
        finally:
            self.model.load_state_dict(self._state)

    def meet(self, ranking: Sequence[Filter], target: int) -> CompactModel:
        """Removes the first filters of `ranking` until the multiply-adds are at most `target`.

        Bisection finds how many. Where removing the last of these leads more than 2 % below the
        target, that filter stays, and the next ones are tried: any that overshoots stays, too.
        Each layer keeps its last filter.

        Raises:
            UserError: if no choice comes within 2 % below the target.
        """
        ranking = self._all_but_one(ranking)
        low, high = 0, len(ranking)
        while low < high:  # the smallest number of filters that is enough
            middle = (low + high) // 2
            if self.without(ranking[:middle]).multiply_adds[1] <= target:
                high = middle
            else:
                low = middle + 1
        removed = ranking[: max(0, low - 1)]
        for item in ranking[max(0, low - 1) :]:
            found = self.without([*removed, item])
            cost = found.multiply_adds[1]
            if (1 - TOLERANCE) * target <= cost <= target:
                return found
            if cost > target:
                removed.append(item)
        cost = self.without(removed).multiply_adds[1]
        raise UserError(
            f"no choice of channels has {target:,} multiply-adds within {TOLERANCE:.0%}; the"
            f" nearest has {cost:,} of {self.dense_cost:,}"
        )

    def _all_but_one(self, ranking: Sequence[Filter]) -> list[Filter]:
        """Returns the ranking without the last filter of each layer."""
        last = {name: (name, index) for name, index in ranking}
        return [item for item in ranking if last[item[0]] != item]

    def _candidates(self) -> dict[str, nn.Module]:
        return {
            name: module
            for name, module in self.model.named_modules()
            if isinstance(module, LAYERS) and getattr(module, "groups", 1) == 1
        }

    def _removable(self) -> dict[str, nn.Module]:
        """Returns the layers that keep fewer channels if all filters are zero."""
        kept = {layer.name: layer for layer in self.without(self.filters()).layers}
        return {
            name: module
            for name, module in self.layers.items()
            if name in kept and kept[name].kept < kept[name].total
        }


def filters_of(layer: nn.Module) -> Tensor:
    """Returns the weight with the output channels first (O, ...), as a view."""
    weight: Tensor = layer.weight
    return weight.transpose(0, 1) if getattr(layer, "transposed", False) else weight


@torch.no_grad()
def norms_after(model: nn.Module, example: Tensor) -> dict[str, nn.Module]:
    """Returns the norm layer with weights that reads each layer: name of the layer -> norm."""
    outputs: dict[int, tuple[str, Tensor]] = {}  # the tensors live, so that no id comes twice
    found: dict[str, nn.Module] = {}

    def hook(name: str):
        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(module, LAYERS):
                outputs[id(output)] = (name, output)
            elif id(inputs[0]) in outputs and module.weight is not None:
                found[outputs[id(inputs[0])][0]] = module

        return note

    handles = [
        module.register_forward_hook(hook(name))
        for name, module in model.named_modules()
        if isinstance(module, (*LAYERS, *NORMS))
    ]
    try:
        model(example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def by_position(channels: Channels) -> list[Filter]:
    """Ranks filters by their relative position in the layer, the last ones first.

    The first ones of this ranking are the same share of each layer.
    """
    sizes = {name: len(filters_of(layer)) for name, layer in channels.layers.items()}
    return sorted(channels.filters(), key=lambda item: -(item[1] + 0.5) / sizes[item[0]])


def renewed(model: nn.Module, seed: int) -> nn.Module:
    """Gives all layers the weights that a new network of this shape has, drawn with `seed`."""
    torch.manual_seed(seed)
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return model
