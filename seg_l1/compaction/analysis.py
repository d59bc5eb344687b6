"""Which channels of a network can go, without a change of its outputs.

A channel stays if it varies and something reads it: sparse constant propagation with liveness
(Wegman and Zadeck, 1991), on channels. Both hold in eval mode, with the stored statistics of the
norm layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from seg_l1.compaction.graph import Graph, Mask, Slots, Value
from seg_l1.compaction.mixing import Mixing


@dataclass
class Selection:
    """The channels of a graph that stay.

    Attributes:
        graph: with the states of its values.
        kept: bool, of each slot.
    """

    graph: Graph
    kept: Mask

    def stays(self, value: Value) -> Mask:
        """bool (channels,): which channels of a value stay."""
        return self.kept[value.slots]


def select(graph: Graph, multiple: int = 1) -> Selection:
    """Decides which channels stay.

    Args:
        multiple: channels that could go are kept until the channels of each tensor are a multiple
            of this, or all.
    """
    kept = link(graph)
    for operation in graph.operations:
        operation.transfer()
    for value in graph.outputs:
        value.use(np.ones(value.channels, bool))
    _settle(graph, kept)
    while _fill(graph, kept, multiple):
        _settle(graph, kept)
    return Selection(graph, kept)


def link(graph: Graph) -> Mask:
    """Numbers the channels of all values and parameters; those that go together share a number.

    Returns:
        bool array, for each number whether its channels have to stay.
    """
    slots = Slots()
    _link(graph, slots)
    component, frozen = slots.components()
    for value in _all_values(graph):
        value.slots = component[value.slots]
        value.sliced = {dim: component[index] for dim, index in value.sliced.items()}
    return frozen


def _all_values(graph: Graph) -> Iterator[Value]:
    yield from {id(value): value for value in graph.values}.values()


def _link(graph: Graph, slots: Slots) -> None:
    for value in {id(v): v for v in graph.parameters.values()}.values():
        _describe_parameter(value, slots)
    for value in graph.inputs:
        if len(value.shape) > 1:
            value.axis, value.slots = 1, slots.new(value.shape[1])
        slots.freeze(value)
    for operation in graph.operations:
        operation.link(slots)
    for value in graph.outputs:
        slots.freeze(value)
    for value in _all_values(graph):
        if value.axis is not None and not value.sliced:
            value.varying = np.ones(value.channels, bool)
            value.constant = np.zeros(value.channels)
            value.used = np.zeros(value.channels, bool)
    mixing = [operation for operation in graph.operations if isinstance(operation, Mixing)]
    uses = Counter(id(value) for op in mixing for value in (op.weight, op.bias) if value)
    for op in mixing:
        op.folds &= all(uses[id(value)] == 1 for value in (op.weight, op.bias) if value)
        op.folds &= op.bias is not None or op.weight.name in graph.takes_bias


def _describe_parameter(value: Value, slots: Slots) -> None:
    """A parameter with one dimension, such as a scale per channel, is a value like any other."""
    assert value.data is not None
    long = [dim for dim, size in enumerate(value.shape) if size > 1]
    if len(long) > 1:
        return
    if value.shape:
        value.axis = long[0] if long else 0
        value.slots = slots.new(value.channels)
        value.sliced = {value.axis: value.slots}
    value.varying = np.zeros(value.channels, bool)
    value.constant = value.data.double().cpu().numpy().reshape(value.channels).copy()
    value.used = np.zeros(value.channels, bool)


def _settle(graph: Graph, kept: Mask) -> None:
    """Marks what is used and kept until nothing changes."""
    while True:
        before = _extent(graph, kept)
        for operation in reversed(graph.operations):
            operation.read(kept)
        for value in graph.values:
            if value.axis is not None:
                kept[value.slots[value.used]] = True
        if _extent(graph, kept) == before and not _add_carriers(graph, kept):
            return


def _extent(graph: Graph, kept: Mask) -> tuple[int, int]:
    return int(kept.sum()), sum(int(value.used.sum()) for value in graph.values)


def _add_carriers(graph: Graph, kept: Mask) -> bool:
    """Keeps a constant channel wherever those that go cannot be folded away."""
    added = False
    for operation in graph.operations:
        for channel in operation.missing(kept):
            kept[operation.inputs[0].slots[channel]] = added = True
    return added


def _fill(graph: Graph, kept: Mask, multiple: int) -> bool:
    """Keeps channels of a tensor that would have none, or no multiple; returns whether it did."""
    filled = False
    for value in {id(v): v for v in graph.parameters.values()}.values():
        for slots in value.sliced.values():
            count, free = int(kept[slots].sum()), slots[~kept[slots]]
            lacking = max(1 - count, -count % multiple)
            if lacking > 0 and len(free):
                kept[free[:lacking]] = True
                filled = True
    return filled
