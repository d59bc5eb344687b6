"""Rules of operators that mix channels: convolutions, transposed convolutions, linear layers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seg_l1.compaction.graph import Mask, Operation, Slots, Value, numbers


class Mixing(Operation, ABC):
    """An operator whose output channel o is bias_o + Σ_p kernel_{o,p} * x_{sources(o,p)}.

    A constant input contributes a constant, except near a border that is padded with zeros. What
    constant channels contribute is folded into the bias where it is the same at all pixels, else
    into the kernel of a constant channel that is kept.
    """

    x: Value
    weight: Value
    bias: Value | None
    folds: bool = True
    """Whether constants fold away: not with a shared weight, groups, or no place for a bias."""

    def link(self, slots: Slots) -> None:
        self.x = self.arguments["input"]
        self.weight = self.arguments["weight"]
        self.bias = self.arguments["bias"]
        if self.weight.data is None or (self.bias is not None and self.bias.data is None):
            self.keep_whole(slots, "its weight is computed from others")
            return
        before, self.weight.sliced = self.weight.sliced, {}
        self._link(slots)
        for dim, own in before.items():  # of another call, or of a weight that is like a vector
            if dim in self.weight.sliced:
                slots.tie(own, self.weight.sliced[dim])
            else:
                slots.frozen.append(own)
                self.weight.sliced[dim] = own
        if self.whole is None and self.bias is not None:
            slots.claim(self.bias, 0, self.out.slots)

    @abstractmethod
    def _link(self, slots: Slots) -> None:
        """Sets axis and slots of the output, and claims the dimensions of the weight."""

    @property
    def multiply_adds_per_weight(self) -> int:
        """How often each weight is used: the pixels (and images) of the output."""
        return math.prod(self.out.shape) // self.out.shape[1]

    @abstractmethod
    def kernel(self) -> tuple[Tensor, np.ndarray]:
        """Returns float64 (O, P, taps), and int (O, P): the input channel of each column."""

    @abstractmethod
    def store(self, kernel: Tensor) -> None:
        """Writes a kernel (O, P, taps) into the weight."""

    def uniform(self, patterns: np.ndarray) -> Mask:
        """Whether constant inputs give one value at all pixels.

        Args:
            patterns: (O, taps), Σ of kernel times constant.
        """
        return np.ones(len(patterns), bool)

    def level(self, patterns: np.ndarray) -> np.ndarray:
        """The value (O,) of uniform patterns."""
        return patterns.sum(1)

    def _patterns(self, kernel: Tensor, sources: np.ndarray, constants: np.ndarray) -> np.ndarray:
        return torch.einsum("opt,op->ot", kernel, torch.from_numpy(constants[sources])).numpy()

    def _transfer(self) -> None:
        kernel, sources = self.kernel()
        self.sources, self.connected = sources, (kernel != 0).any(2).numpy()
        varying, constant = self.x.spread(int(sources.max()) + 1)
        patterns = self._patterns(kernel, sources, np.where(varying, 0.0, constant))
        uneven = (patterns != 0).any(1) & ~self.uniform(patterns)
        self.out.varying = (self.connected & varying[sources]).any(1) | uneven
        offset = 0.0 if self.bias is None else numbers(self.bias)
        self.out.constant = np.where(self.out.varying, 0.0, self.level(patterns) + offset)

    def _read(self, kept: Mask) -> None:
        read = self._connected_to_used()
        if self.x.axis is not None:
            read &= self.x.varying | (kept[self.x.slots] if self.folds else self.x.constant != 0)
        self.x.use(read)

    def _connected_to_used(self) -> Mask:
        """The input channels with a weight ≠ 0 into an output channel that is used."""
        read = np.zeros(int(self.sources.max()) + 1, bool)
        read[self.sources[self.connected & self.out.used[:, None]]] = True
        return read

    def _gone(self, kept: Mask) -> tuple[Tensor, Mask, np.ndarray] | None:
        """What constant channels that go contribute to the used outputs; None if nothing.

        Returns:
            the kernel, the mask of the channels, their patterns (O, taps).
        """
        if self.whole is not None or self.x.axis is None:
            return None
        gone = ~kept[self.x.slots] & ~self.x.varying & (self.x.constant != 0)
        if not gone.any() or not self.out.used.any():
            return None
        kernel, sources = self.kernel()
        patterns = self._patterns(kernel, sources, np.where(gone, self.x.constant, 0.0))
        patterns[~self.out.used] = 0
        return (kernel, gone, patterns) if patterns.any() else None

    def _into_bias(self, patterns: np.ndarray) -> bool:
        return bool(self.uniform(patterns)[(patterns != 0).any(1)].all())

    def _carrier(self, kept: Mask, gone: Mask) -> int | None:
        """The constant channel that is kept and can stand for those that go."""
        size = np.where(kept[self.x.slots] & ~self.x.varying, np.abs(self.x.constant), 0.0)
        best = int(size.argmax())
        return best if size[best] > 1e-3 * np.abs(self.x.constant[gone]).max() else None

    def missing(self, kept: Mask) -> Iterable[int]:
        found = self._gone(kept)
        if found is None:
            return
        _, gone, patterns = found
        if not self._into_bias(patterns) and self._carrier(kept, gone) is None:
            read = gone & self._connected_to_used()
            yield int(np.where(read, np.abs(self.x.constant), 0.0).argmax())

    def fold(self, kept: Mask) -> None:
        found = self._gone(kept)
        if found is None:
            return
        kernel, gone, patterns = found
        if self._into_bias(patterns):
            self._add_to_bias(self.level(patterns))
            return
        carrier = self._carrier(kept, gone)
        assert carrier is not None
        kernel = kernel.clone()
        rows, columns = np.nonzero(self.sources == carrier)
        kernel[rows, columns] += torch.from_numpy(patterns[rows] / self.x.constant[carrier])
        self.store(kernel)

    def _add_to_bias(self, amounts: np.ndarray) -> None:
        if self.bias is None:
            name = f"{self.weight.name.rpartition('.')[0]}.bias".removeprefix(".")
            dtype = self.weight.data.dtype if self.weight.data is not None else None
            data = torch.from_numpy(amounts).to(dtype)
            self.bias = Value(name, (len(amounts),), data=data, sliced={0: self.out.slots})
        else:
            assert self.bias.data is not None
            total = torch.from_numpy(numbers(self.bias) + amounts)
            self.bias.data = total.to(self.bias.data.dtype)


class Linear(Mixing):
    """linear: channels are the last dimension."""

    def _link(self, slots: Slots) -> None:
        last = len(self.x.shape) - 1
        if self.x.axis not in (None, last):
            self.keep_whole(slots, "its channels are not the last dimension")
            return
        if self.x.axis is not None:
            slots.claim(self.weight, 1, self.x.slots)
        self.out.axis = len(self.out.shape) - 1
        self.out.slots = slots.new(self.out.channels)
        slots.claim(self.weight, 0, self.out.slots)

    @property
    def multiply_adds_per_weight(self) -> int:
        return math.prod(self.out.shape[:-1])  # the rows of the input

    def kernel(self) -> tuple[Tensor, np.ndarray]:
        assert self.weight.data is not None
        weight = self.weight.data.double().cpu()[..., None]
        return weight, np.broadcast_to(np.arange(weight.shape[1]), weight.shape[:2])

    def store(self, kernel: Tensor) -> None:
        assert self.weight.data is not None
        self.weight.data = kernel[..., 0].to(self.weight.data.dtype)


class Convolution(Mixing):
    """conv1d, conv2d, conv3d, with groups."""

    def _link(self, slots: Slots) -> None:
        groups, count = self.arguments["groups"], self.x.shape[1]
        x = self.x.slots if self.x.axis is not None else None
        if self.x.axis not in (None, 1):
            self.keep_whole(slots, "its channels are not dimension 1")
            return
        self.out.axis = 1
        self.out.slots = slots.new(self.out.channels)
        out = self.out.slots.reshape(groups, -1)
        if groups == 1:
            if x is not None:
                slots.claim(self.weight, 1, x)
        elif groups == count:  # depthwise: an input channel and its outputs go together
            for column in out.T:
                if x is None:
                    slots.frozen.append(column)
                else:
                    slots.tie(x, column)
        else:  # all groups have to keep the same positions
            if x is not None:
                _tie_rows(slots, x.reshape(groups, -1))
                slots.claim(self.weight, 1, x[: count // groups])
            _tie_rows(slots, out)
            self.folds = False  # each group would need a constant channel of its own
        slots.claim(self.weight, 0, self.out.slots)

    def kernel(self) -> tuple[Tensor, np.ndarray]:
        assert self.weight.data is not None
        kernel = self.weight.data.double().cpu().flatten(2)
        groups = self.arguments["groups"]
        outputs, per_group = kernel.shape[:2]
        first = np.arange(outputs) // (outputs // groups) * per_group
        return kernel, first[:, None] + np.arange(per_group)

    def store(self, kernel: Tensor) -> None:
        assert self.weight.data is not None
        self.weight.data = kernel.reshape(self.weight.shape).to(self.weight.data.dtype)

    def uniform(self, patterns: np.ndarray) -> Mask:
        padding = self.arguments["padding"]
        padded = padding == "same" if isinstance(padding, str) else any(padding)
        return np.full(len(patterns), not padded)


class TransposedConvolution(Mixing):
    """conv_transpose1d, conv_transpose2d and conv_transpose3d, without groups or depthwise.

    The weight is (I, O, *kernel). Constant inputs give a pattern with the period of the stride.
    """

    def _link(self, slots: Slots) -> None:
        groups, count = self.arguments["groups"], self.x.shape[1]
        if self.x.axis not in (None, 1) or groups not in (1, count):
            self.keep_whole(slots, "it is transposed and has groups")
            return
        if groups > 1 and (self.x.axis is None or self.out.shape[1] != count):
            self.keep_whole(slots, "it is transposed and has groups")
            return
        self.out.axis = 1
        self.out.slots = slots.new(self.out.channels)
        if self.x.axis is not None:
            slots.claim(self.weight, 0, self.x.slots)
        if groups == 1:
            slots.claim(self.weight, 1, self.out.slots)
        else:
            slots.tie(self.x.slots, self.out.slots)

    @property
    def multiply_adds_per_weight(self) -> int:
        return math.prod(self.x.shape) // self.x.shape[1]  # the pixels of the input

    @property
    def depthwise(self) -> bool:
        return self.arguments["groups"] > 1

    def kernel(self) -> tuple[Tensor, np.ndarray]:
        assert self.weight.data is not None
        kernel = self.weight.data.double().cpu().flatten(2)
        if self.depthwise:
            return kernel, np.arange(len(kernel))[:, None]
        return kernel.transpose(0, 1).contiguous(), np.broadcast_to(
            np.arange(kernel.shape[0]), (kernel.shape[1], kernel.shape[0])
        )

    def store(self, kernel: Tensor) -> None:
        assert self.weight.data is not None
        kernel = kernel if self.depthwise else kernel.transpose(0, 1)
        self.weight.data = kernel.reshape(self.weight.shape).to(self.weight.data.dtype)

    def uniform(self, patterns: np.ndarray) -> Mask:
        arguments: dict[str, Any] = self.arguments
        tiles = (
            list(arguments["stride"]) == list(self.weight.shape[2:])
            and not any(arguments["padding"])
            and not any(arguments["output_padding"])
            and set(arguments["dilation"]) == {1}
        )
        return np.full(len(patterns), tiles) & (patterns == patterns[:, :1]).all(1)

    def level(self, patterns: np.ndarray) -> np.ndarray:
        return patterns[:, 0]


def _tie_rows(slots: Slots, rows: np.ndarray) -> None:
    for row in rows[1:]:
        slots.tie(rows[0], row)
