"""Which weights vanish with a channel: the groups of `penalties.ChannelL1`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count

import torch
from torch import Tensor, nn

from seg_l1.compaction.analysis import link
from seg_l1.compaction.capture import CaptureError, Program
from seg_l1.compaction.graph import Graph, Operation, Value
from seg_l1.compaction.rules import RULES
from seg_l1.errors import UserError
from seg_l1.scope import ScopedTensor


def channel_groups(
    model: nn.Module, example: Tensor, tensors: Sequence[ScopedTensor]
) -> list[ScopedTensor]:
    """Returns `tensors` with `channels` set: for each slice, the channel it vanishes with.

    `compact` removes all slices of a channel together: those of all kernels that compute it, in
    layers whose outputs are added, the entries of their biases, and those of the norm layers that
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
    found: list[ScopedTensor] = []
    reasons: dict[str, str] = {}
    for scoped in tensors:
        if scoped.penalized and id(graph.parameters.get(scoped.name)) in used:
            value = graph.parameters[scoped.name]
            scoped = _along_channels(scoped, value)
            if reason := _why_not(scoped, value, needed):
                reasons[scoped.name] = reason
            else:
                channels = tuple(map(int, value.sliced[scoped.axis]))
                scoped = replace(scoped, channels=channels)
        elif scoped.penalized:
            channels = tuple(next(own) for _ in range(len(scoped.groups_first)))
            scoped = replace(scoped, channels=channels)
        found.append(scoped)
    if reasons:
        raise UserError(_refusal(reasons))
    return found


def _along_channels(scoped: ScopedTensor, value: Value) -> ScopedTensor:
    """Takes the only axis that has channels where it is another one, as for (1, C, 1, 1)."""
    if scoped.axis in value.sliced or len(value.sliced) != 1:
        return scoped
    return replace(scoped, axis=next(iter(value.sliced)))


def _why_not(scoped: ScopedTensor, value: Value, needed: dict[int, Operation]) -> str:
    """Returns why the channels of a tensor cannot go one by one, or ""."""
    if hasattr(scoped.tensor, "to_local") or scoped.flat:
        return "a process holds only a shard of it"
    if scoped.axis not in value.sliced:
        return "no operator that has a rule uses it"
    for channel in value.sliced[scoped.axis]:
        if operation := needed.get(int(channel)):
            where = f" in {operation.layer}" if operation.layer else ""
            return f"{operation.operator}{where} needs them all, since {operation.whole}"
    return ""


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


def _refusal(reasons: dict[str, str]) -> str:
    name, reason = next(iter(reasons.items()))
    others = f" ({len(reasons) - 1} other tensors cannot either)" if len(reasons) > 1 else ""
    return (
        f"channel_l1: the channels of {name} cannot go one by one: {reason}{others}. Leave such"
        f" tensors out by rules, as Rule({name!r}, penalize=False) or in regularizer.scope as"
        f" {{name: {name}, penalize: false}}; or use group_l1"
    )
