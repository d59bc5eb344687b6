"""Torch-Pruning (`pip install "seg-l1[peers]"`), given the filters that are zero."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

CONVOLUTIONS = (nn.modules.conv._ConvNd, nn.Linear)


def prune(model: nn.Module, image: Tensor, outputs: int) -> nn.Module:
    """Returns a copy of `model`, in eval mode, without the channels that Torch-Pruning removes.

    A channel is given to it if the filters of all layers that produce it are zero, or all but one
    of a layer if all of its filters are. What a norm layer or a bias makes of the zeros is not
    looked at, as in its importance by magnitude. Channels of group norms are not given to it: it
    keeps the number of groups, so that no choice of channels would leave the outputs as they are.

    Args:
        outputs: classes; layers with as many output channels are heads, and left alone.
    """
    import torch_pruning

    small = copy.deepcopy(model).eval().requires_grad_(True)
    with torch.enable_grad():
        graph = torch_pruning.DependencyGraph().build_dependency(small, example_inputs=image)
    heads = [
        module
        for module in small.modules()
        if isinstance(module, CONVOLUTIONS) and _filters(module).shape[0] == outputs
    ]
    for group in graph.get_all_groups(ignored_layers=heads):
        if any(isinstance(item.dep.target.module, nn.GroupNorm) for item in group):
            continue
        dead = torch.nonzero(_magnitudes(graph, group) == 0).flatten().tolist()
        root = group[0].dep
        for channels in filter(None, (dead, dead[1:])):
            part = graph.get_pruning_group(root.target.module, root.handler, channels)
            if graph.check_pruning_group(part):
                part.prune()
                break
    return small.requires_grad_(False)


def _filters(module: nn.Module) -> Tensor:
    """The weight (O, ...) of a layer."""
    transposed = getattr(module, "transposed", False) and module.groups == 1
    return module.weight.transpose(0, 1) if transposed else module.weight


@torch.no_grad()
def _magnitudes(graph: Any, group: Any) -> Tensor:
    """Sum (channels,) of the absolute weights of the filters that produce each channel."""
    total = torch.zeros(1 + max(group[0].root_idxs), dtype=torch.float64)
    for item in group:
        module = item.dep.target.module
        if isinstance(module, CONVOLUTIONS) and graph.is_out_channel_pruning_fn(item.dep.handler):
            if len(_filters(module)) == 1:  # a gate for all channels
                continue
            sums = _filters(module).flatten(1).abs().sum(1).double()
            total.index_add_(0, torch.tensor(item.root_idxs), sums[torch.tensor(item.idxs)])
    return total
