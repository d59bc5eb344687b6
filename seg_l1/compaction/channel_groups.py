"""Which weights vanish with a channel: the groups of `penalties.ChannelL1`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import torch
from torch import Tensor, nn

from seg_l1.compaction.analysis import link
from seg_l1.compaction.capture import CaptureError, Program
from seg_l1.compaction.graph import Graph, Operation
from seg_l1.compaction.rules import RULES
from seg_l1.errors import UserError
from seg_l1.scope import ScopedTensor


def channel_groups(
    model: nn.Module, example: Tensor, tensors: Sequence[ScopedTensor]
) -> list[ScopedTensor]:
    """Returns the tensors with `channels`, which say what of them vanishes with which channel.

    They are those that `compact` removes as one: the slices of all kernels that compute a channel,
    in layers whose outputs are added, the entries of their biases, and of the norm layers that
    follow. The classes that a network returns are channels too, although they stay. A tensor that
    `model` does not use in eval mode, such as one of an auxiliary head, has channels of its own.

    Args:
        model: that `torch.export` can capture.
        example: a batch (N, C, H, W) on the device of the model.
        tensors: of `scope`; those without a penalty are returned as they are.

    Raises:
        UserError: if the network cannot be captured, if the channels of a penalized tensor are not
            known, if an operator needs them all, or if a process holds a part of the tensor only.
    """
    try:
        with torch.no_grad():
            graph = Program(model, [example]).graph(RULES)
    except CaptureError as error:
        raise UserError(f"channel_l1: {error}; use group_l1") from error
    link(graph)
    needed = _needed(graph)
    used = {id(value) for operation in graph.operations for value in operation.inputs}
    own = count(-1, -1)  # the channels of tensors that are not used
    found = []
    for scoped in tensors:
        if not scoped.penalized:
            found.append(scoped)
        elif id(graph.parameters.get(scoped.name)) in used:
            found.append(_with_channels(scoped, graph, needed))
        else:
            channels = tuple(next(own) for _ in range(len(scoped.groups_first)))
            found.append(replace(scoped, channels=channels))
    return found


def _with_channels(
    scoped: ScopedTensor, graph: Graph, needed: dict[int, Operation]
) -> ScopedTensor:
    value = graph.parameters[scoped.name]
    axis = scoped.axis
    if axis not in value.sliced and len(value.sliced) == 1:
        (axis,) = value.sliced  # such as a scale of shape (1, C, 1, 1)
    if hasattr(scoped.tensor, "to_local") or scoped.flat:
        raise UserError(_refusal(scoped, "a process holds only a shard of it"))
    if axis not in value.sliced:
        raise UserError(_refusal(scoped, "no operator that has a rule uses it"))
    channels = tuple(map(int, value.sliced[axis]))
    for channel in channels:
        if operation := needed.get(channel):
            where = f" in {operation.layer}" if operation.layer else ""
            reason = f"{operation.operator}{where} needs them all, since {operation.whole}"
            raise UserError(_refusal(scoped, reason))
    return replace(scoped, axis=axis, channels=channels)


def _needed(graph: Graph) -> dict[int, Operation]:
    """The channels that cannot go, but for the inputs and outputs, with what needs them."""
    needed = {
        int(channel): operation
        for operation in graph.operations
        if operation.whole
        for value in operation.inputs
        if value.axis is not None
        for channel in value.slots
    }
    for value in [*graph.inputs, *graph.outputs]:
        if value.axis is not None:
            for channel in value.slots:
                needed.pop(int(channel), None)
    return needed


def _refusal(scoped: ScopedTensor, reason: str) -> str:
    return (
        f"channel_l1: the channels of {scoped.name} cannot go one by one: {reason}. Leave it out by"
        f" a rule of regularizer.scope, such as {{name: {scoped.name}, penalize: false}}, or use"
        " group_l1"
    )
