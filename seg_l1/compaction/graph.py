"""A network as a list of operations on values, and the base class of the rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

Indices = np.ndarray
Mask = np.ndarray


@dataclass(eq=False)
class Value:
    """A tensor that the network computes, or one of its parameters or buffers.

    A *slot* stands for a channel, and for every position of a tensor that has to stay or go with
    it. A value without `axis` is opaque: nothing is known of it, and it keeps its shape.

    Attributes:
        name: of the parameter or buffer, else of the operation.
        shape: for the example of the capture.
        axis: the dimension along which the value has channels.
        slots: int (channels,), the slot of each channel.
        varying: bool (channels,), False where the channel has one value for all pixels and images.
        constant: float64 (channels,), this value.
        used: bool (channels,), True where something needs the values of this channel.
        data: the entries of a parameter or buffer.
        sliced: of a parameter or buffer, the slots along each dimension that has some.
        pinned: whether a parameter or buffer has to keep its shape.
    """

    name: str
    shape: tuple[int, ...]
    axis: int | None = None
    slots: Indices = field(default_factory=lambda: np.empty(0, int))
    varying: Mask = field(default_factory=lambda: np.ones(1, bool))
    constant: np.ndarray = field(default_factory=lambda: np.zeros(1))
    used: Mask = field(default_factory=lambda: np.zeros(1, bool))
    data: Tensor | None = None
    sliced: dict[int, Indices] = field(default_factory=dict)
    pinned: bool = False

    @property
    def channels(self) -> int:
        """The number of channels; 1 for an opaque value."""
        return 1 if self.axis is None else self.shape[self.axis]

    def use(self, channels: Mask) -> None:
        """Marks channels as used; an opaque value is used as a whole."""
        self.used |= channels if self.axis is not None else bool(np.any(channels))

    def spread(self, count: int) -> tuple[Mask, np.ndarray]:
        """Returns `varying` and `constant` of `count` channels, also of an opaque value."""
        return np.broadcast_to(self.varying, count), np.broadcast_to(self.constant, count)


class Slots:
    """Hands out slots, and notes which of them are one, and which cannot go."""

    def __init__(self) -> None:
        self.count = 0
        self.same: list[tuple[Indices, Indices]] = []
        self.frozen: list[Indices] = []

    def new(self, count: int) -> Indices:
        self.count += count
        return np.arange(self.count - count, self.count)

    def tie(self, first: Indices, second: Indices) -> None:
        """States that the slots of both stay or go together, position by position."""
        self.same.append((first, second))

    def freeze(self, value: Value) -> None:
        """States that a value keeps its shape."""
        value.pinned = True
        for slots in [value.slots, *value.sliced.values()]:
            self.frozen.append(slots)

    def claim(self, parameter: Value, dim: int, slots: Indices) -> None:
        """States that dimension `dim` of a parameter or buffer has these slots."""
        if dim in parameter.sliced:
            self.tie(parameter.sliced[dim], slots)
        parameter.sliced[dim] = slots
        if parameter.pinned:
            self.frozen.append(slots)

    def components(self) -> tuple[Indices, Mask]:
        """Returns the component of each slot, and whether each component cannot go."""
        first, second = (
            np.concatenate([np.empty(0, int), *(pair[side] for pair in self.same)])
            for side in (0, 1)
        )
        size = (self.count, self.count)
        links = coo_array((np.ones(len(first), bool), (first, second)), shape=size)
        count, component = connected_components(links, directed=False)
        frozen = np.zeros(count, bool)
        frozen[component[np.concatenate([np.empty(0, int), *self.frozen])]] = True
        return component, frozen


class Operation:
    """One call of an operator. This class is for those without a rule; rules are subclasses.

    All inputs are read whole, and nothing is known of the outputs.

    Attributes:
        operator: the name in `torch.ops.aten`, such as "conv2d".
        layer: path of the module that made the call.
        target: the operator itself.
        arguments: by name in its schema, with tensors replaced by values.
        outputs: one, or several for an operator that returns a tuple.
        whole: why the inputs keep all of their channels; None if they need not.
    """

    def __init__(
        self,
        operator: str,
        layer: str,
        target: Any,
        arguments: dict[str, Any],
        outputs: list[Value],
    ) -> None:
        self.operator, self.layer, self.target = operator, layer, target
        self.arguments, self.outputs = arguments, outputs
        self.whole: str | None = None

    @property
    def inputs(self) -> list[Value]:
        return list(values_in(self.arguments.values()))

    @property
    def out(self) -> Value:
        return self.outputs[0]

    def link(self, slots: Slots) -> None:
        """Sets axis and slots of the outputs, and ties and claims slots."""
        self.keep_whole(slots, "it has no rule")

    def keep_whole(self, slots: Slots, reason: str) -> None:
        """Makes the inputs keep all channels, and the outputs opaque."""
        self.whole = reason if any(v.axis is not None for v in self.inputs) else None
        for value in self.inputs:
            slots.freeze(value)

    def transfer(self) -> None:
        """Sets `varying` and `constant` of the outputs from those of the inputs."""
        if self.out.axis is not None:
            self._transfer()

    def read(self, kept: Mask) -> None:
        """Marks the channels of the inputs that the used channels of the outputs need.

        Args:
            kept: of each slot, whether it stays by what is known so far.
        """
        if self.out.axis is not None:
            self._read(kept)
        else:
            self._read_whole()

    def _transfer(self) -> None:
        """`transfer`, where the outputs have channels."""

    def _read(self, kept: Mask) -> None:
        """`read`, where the outputs have channels."""
        self._read_whole()

    def _read_whole(self) -> None:
        if any(value.used.any() for value in self.outputs):
            for value in self.inputs:
                value.use(np.ones(value.channels, bool))

    def missing(self, kept: Mask) -> Iterable[int]:
        """Returns channels of the input, constant and not kept, that cannot be folded away."""
        return ()

    def fold(self, kept: Mask) -> None:
        """Folds the contribution of removed constant channels into the parameters that stay."""


@dataclass
class Graph:
    """A captured network.

    Attributes:
        operations: in the order in which they are executed.
        parameters: parameters and buffers, by name.
        inputs, outputs: of the network.
        takes_bias: weights of convolutions and linear layers, to which a bias could be added.
    """

    operations: list[Operation]
    parameters: dict[str, Value]
    inputs: list[Value]
    outputs: list[Value]
    takes_bias: set[str]

    @property
    def values(self) -> Iterator[Value]:
        yield from self.parameters.values()
        yield from self.inputs
        for operation in self.operations:
            yield from operation.outputs


def values_in(arguments: Iterable[Any]) -> Iterator[Value]:
    """Yields the values among (nested) arguments."""
    for argument in arguments:
        if isinstance(argument, Value):
            yield argument
        elif isinstance(argument, list):
            yield from values_in(argument)


def numbers(value: Value | None, default: np.ndarray | None = None) -> np.ndarray:
    """Returns the entries of a parameter or buffer in float64; `default` for one that is None."""
    if value is None or value.data is None:
        assert default is not None
        return default
    return value.data.double().cpu().numpy()
