"""The parameters that stay, in a module of the same class."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from seg_l1.compaction.analysis import Selection
from seg_l1.compaction.mixing import Mixing

DENORMAL = 1e-30
"""Smaller weights become 0, since some processors are very slow on denormal numbers."""


def sliced(model: nn.Module, selection: Selection) -> nn.Module:
    """Returns a copy of `model` with the channels that stay; folds constants into `selection`."""
    for operation in selection.graph.operations:
        operation.fold(selection.kept)
    tensors: dict[str, Tensor] = {}
    for name, value in selection.graph.parameters.items():
        assert value.data is not None
        data = value.data
        for dim, slots in value.sliced.items():
            index = torch.from_numpy(np.flatnonzero(selection.kept[slots])).to(data.device)
            data = data.index_select(dim, index)
        if data.is_floating_point():
            data = torch.where(data.abs() < DENORMAL, 0.0, data)
        tensors[name] = data.contiguous()
    for operation in selection.graph.operations:
        if isinstance(operation, Mixing) and operation.bias is not None:
            bias = operation.bias
            if bias.name not in tensors:  # one that the dense network does not have
                assert bias.data is not None
                keep = torch.from_numpy(selection.kept[bias.sliced[0]])
                tensors[bias.name] = bias.data[keep]
    compact = copy.deepcopy(model)
    set_shapes(compact, tensors)
    own: dict[str, Tensor] = {
        **dict(compact.named_parameters(remove_duplicate=False)),
        **dict(compact.named_buffers(remove_duplicate=False)),
    }
    with torch.no_grad():
        for name, data in tensors.items():
            own[name].copy_(data)
    return compact


def set_shapes(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Gives the parameters and buffers of a dense network the shapes of `tensors`.

    The shapes are the whole specification of a compact network: what they imply for the attributes
    of a layer (`out_channels`, `groups`, ...) is set too. A bias that the dense layer does not have
    is added. Parameters whose shape changes hold zeros.

    Args:
        tensors: by name; those that `model` does not have are ignored.
    """
    seen: dict[int, nn.Parameter | Tensor] = {}
    for path, module in list(model.named_modules(remove_duplicate=False)):
        prefix = f"{path}." if path else ""
        groups = _group_size(module)
        for kind in (module._parameters, module._buffers):
            for name, old in kind.items():
                new = tensors.get(prefix + name)
                if new is None or (old is not None and old.shape == new.shape):
                    continue
                if old is not None and id(old) in seen:
                    kind[name] = seen[id(old)]
                    continue
                like = old if old is not None else next(module.parameters())
                made: Tensor = torch.zeros(new.shape, dtype=like.dtype, device=like.device)
                if kind is module._parameters:
                    made = nn.Parameter(made, requires_grad=like.requires_grad)
                if old is not None:
                    seen[id(old)] = made
                kind[name] = made
        _set_attributes(module, groups)


def _group_size(module: nn.Module) -> int | None:
    """Channels per group before the shapes change, where groups may go."""
    if isinstance(module, nn.GroupNorm):
        return module.num_channels // module.num_groups
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.in_channels // module.groups
    return None


def _set_attributes(module: nn.Module, group_size: int | None) -> None:
    if isinstance(module, nn.modules.conv._ConvNd):
        first, second = module.weight.shape[:2]
        depthwise = module.groups > 1 and group_size == 1
        if module.transposed:
            module.groups = first if depthwise else module.groups
            module.in_channels, module.out_channels = first, second * module.groups
        else:
            if depthwise:
                module.groups = first // (module.out_channels // module.in_channels)
            module.in_channels, module.out_channels = second * module.groups, first
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        for tensor in (module.weight, module.running_mean):
            if tensor is not None:
                module.num_features = len(tensor)
    elif isinstance(module, nn.GroupNorm) and group_size and module.weight is not None:
        module.num_channels = len(module.weight)
        module.num_groups = module.num_channels // group_size
    elif isinstance(module, nn.PReLU):
        module.num_parameters = len(module.weight)
