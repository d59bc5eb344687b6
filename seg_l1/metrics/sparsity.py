"""Sparsity and size of a network: exact zeros, zero channels, norms; parameters, multiply-adds.

"Sparsity" is the share of *penalized* weights that are exactly 0.0. A group is an output channel
of a penalized tensor; it is zero when all its weights are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from seg_l1.models.layers import eval_mode
from seg_l1.scope import ScopedTensor


@dataclass(frozen=True)
class LayerZeros:
    """Counts of one penalized tensor.

    Attributes:
        name: of the tensor.
        weights, zeros: number of weights, and of those that are 0.
        groups, zero_groups: number of groups, and of those that are 0.
    """

    name: str
    weights: int
    zeros: int
    groups: int
    zero_groups: int


@torch.no_grad()
def layer_zeros(tensors: Sequence[ScopedTensor]) -> list[LayerZeros]:
    """Counts zeros (−0.0 is one) and zero groups of each penalized tensor."""
    layers = []
    for entry in tensors:
        if entry.penalized:
            groups = entry.groups_first if entry.tensor.ndim > 1 else entry.tensor[:, None]
            nonzero = groups.flatten(1) != 0
            zeros = nonzero.numel() - int(nonzero.sum())
            zero_groups = int((~nonzero.any(1)).sum())
            layers.append(LayerZeros(entry.name, nonzero.numel(), zeros, len(nonzero), zero_groups))
    return layers


@torch.no_grad()
def sparsity(tensors: Sequence[ScopedTensor]) -> dict[str, float]:
    """Returns the shares of exact zeros and zero groups, and Σ|w| and √Σw² of penalized weights."""
    layers = layer_zeros(tensors)
    weights = [entry.tensor.double() for entry in tensors if entry.penalized]
    return {
        "sparsity/exact": sum(x.zeros for x in layers) / max(1, sum(x.weights for x in layers)),
        "sparsity/groups": sum(x.zero_groups for x in layers)
        / max(1, sum(x.groups for x in layers)),
        "norm/l1": float(sum(w.abs().sum() for w in weights)),
        "norm/l2": float(sum(w.square().sum() for w in weights)) ** 0.5,
    }


def parameters(model: nn.Module) -> int:
    """Returns the number of parameters, counting shared ones once."""
    return sum(p.numel() for p in model.parameters())


def multiply_adds(model: nn.Module, *inputs: Tensor) -> int:
    """Returns the multiply-adds for an image (1, C, H, W), or several inputs: half the FLOPs."""
    with eval_mode(model), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*inputs)
    return counter.get_total_flops() // 2
