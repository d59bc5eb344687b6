"""What the penalty did: exact zeros, dead channels, norms; parameters and multiply-adds.

"Sparsity" is the share of *penalised* weights that are exactly 0.0. A group is an output channel
of a penalised tensor; it is zero when all its weights are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seg_l1.scope import ScopedTensor


@dataclass(frozen=True)
class LayerZeros:
    """Counts of one penalised tensor."""

    name: str
    weights: int
    zeros: int
    groups: int
    zero_groups: int


@torch.no_grad()
def layer_zeros(tensors: Sequence[ScopedTensor]) -> list[LayerZeros]:
    """Counts zeros (−0.0 is one) and zero groups of each penalised tensor."""
    layers = []
    for entry in tensors:
        if entry.penalized:
            alive = (
                entry.groups_first.flatten(1) != 0
                if entry.tensor.ndim > 1
                else (entry.tensor[:, None] != 0)
            )
            zeros, dead = alive.numel() - int(alive.sum()), int((~alive.any(1)).sum())
            layers.append(LayerZeros(entry.name, alive.numel(), zeros, len(alive), dead))
    return layers


@torch.no_grad()
def sparsity(tensors: Sequence[ScopedTensor]) -> dict[str, float]:
    """Returns the shares of exact zeros and zero groups, and Σ|w| and √Σw² of penalised weights."""
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
    """The number of parameters, shared ones once."""
    return sum(p.numel() for p in model.parameters())


def multiply_adds(model: nn.Module, image: Tensor) -> int:
    """Multiply-adds of one forward pass on `image` (1, C, H, W): half of torch's FLOP count."""
    from torch.utils.flop_counter import FlopCounterMode

    training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    model.train(training)
    return counter.get_total_flops() // 2
