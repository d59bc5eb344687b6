"""Rules of operators that move entries: reshape, permute, slice, concatenate, ..."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import prod

import numpy as np

from seg_l1.compaction.graph import Mask, Operation, Slots, Value


class Move(Operation, ABC):
    """An operator with one input whose channels may land in another dimension."""

    def link(self, slots: Slots) -> None:
        x = self.inputs[0]
        if x.axis is None:
            return
        axis = self.landing(x)
        if axis is None:
            self.keep_whole(slots, "it cuts or mixes the channels")
            return
        for out in self.outputs:
            out.axis, out.slots = axis, x.slots

    @abstractmethod
    def landing(self, x: Value) -> int | None:
        """The dimension of the output that has the channels; None if none has."""

    def _transfer(self) -> None:
        for out in self.outputs:
            out.varying, out.constant = self.inputs[0].varying, self.inputs[0].constant

    def _read(self, kept: Mask) -> None:
        for out in self.outputs:
            self.inputs[0].use(out.used)


class Permute(Move):
    """permute, transpose, t, numpy_T and mT."""

    def landing(self, x: Value) -> int | None:
        count = len(x.shape)
        order = list(range(count))
        if self.operator == "permute":
            order = [dim % count for dim in self.arguments["dims"]]
        elif self.operator == "transpose":
            first, second = (self.arguments[name] % count for name in ("dim0", "dim1"))
            order[first], order[second] = second, first
        else:  # t, numpy_T, mT
            order[-2:] = order[:-3:-1]
        assert x.axis is not None
        return order.index(x.axis)


class Cut(Move):
    """slice, select, narrow, split, chunk, unbind, expand along other dimensions."""

    def landing(self, x: Value) -> int | None:
        assert x.axis is not None
        if self.operator == "expand":
            axis = x.axis + len(self.out.shape) - len(x.shape)
            return axis if self.out.shape[axis] == x.channels else None
        dim = self.arguments.get("dim", 0) % len(x.shape)
        if dim == x.axis:
            whole = self.operator in ("slice", "narrow") and self.out.shape == x.shape
            return x.axis if whole and self.arguments.get("step", 1) == 1 else None
        return x.axis - (self.operator in ("select", "unbind") and dim < x.axis)


class Reshape(Operation):
    """view, reshape, flatten, unflatten, squeeze, unsqueeze.

    Channels stay channels, or with the dimensions behind them become runs of channels (flatten), or
    runs of channels become one (unflatten).
    """

    run: int = 1
    """Output channels per input channel; below 0, input channels per output channel."""

    def link(self, slots: Slots) -> None:
        x = self.inputs[0]
        if x.axis is None:
            return
        found = self._landing(x)
        if found is None:
            self.keep_whole(slots, "it cuts or mixes the channels")
            return
        self.out.axis, self.run = found
        if self.run > 0:
            self.out.slots = np.repeat(x.slots, self.run)
        else:
            self.out.slots = _tie_runs(slots, x, self.out)

    def _landing(self, x: Value) -> tuple[int, int] | None:
        assert x.axis is not None
        before, count, new = prod(x.shape[: x.axis]), x.channels, self.out.shape
        places = [dim for dim in range(len(new)) if prod(new[:dim]) == before]
        wanted = [dim for dim in places if new[dim] == count]  # if there is one channel, several
        places = wanted[:1] or [dim for dim in places if new[dim] > 1] or places[-1:]
        if not places:
            return None
        axis = places[0]
        if new[axis] == count:
            return axis, 1
        behind = [prod(x.shape[x.axis + 1 : stop]) for stop in range(x.axis + 1, len(x.shape) + 1)]
        if new[axis] % count == 0 and new[axis] // count in behind:
            return axis, new[axis] // count
        ahead = [prod(new[axis + 1 : stop]) for stop in range(axis + 1, len(new) + 1)]
        if new[axis] > 1 and count % new[axis] == 0 and count // new[axis] in ahead:
            return axis, -(count // new[axis])
        return None

    def _transfer(self) -> None:
        x = self.inputs[0]
        if self.run > 0:
            self.out.varying = np.repeat(x.varying, self.run)
            self.out.constant = np.repeat(x.constant, self.run)
        else:
            _merge_runs(x, self.out)

    def _read(self, kept: Mask) -> None:
        used = self.out.used
        if self.run > 0:
            self.inputs[0].use(np.asarray(used.reshape(-1, self.run).any(1)))
        else:
            self.inputs[0].use(np.repeat(used, -self.run))


class PixelShuffle(Operation):
    """pixel_shuffle: r² channels become one."""

    def link(self, slots: Slots) -> None:
        x = self.inputs[0]
        if x.axis != 1:
            self.keep_whole(slots, "its channels are not dimension 1")
            return
        self.out.axis = 1
        self.out.slots = _tie_runs(slots, x, self.out)

    def _transfer(self) -> None:
        _merge_runs(self.inputs[0], self.out)

    def _read(self, kept: Mask) -> None:
        self.inputs[0].use(np.repeat(self.out.used, self.inputs[0].channels // self.out.channels))


class Concatenate(Operation):
    """cat and stack."""

    def link(self, slots: Slots) -> None:
        parts = self.inputs
        dim = self.arguments["dim"] % len(self.out.shape)
        axes = {part.axis for part in parts if part.axis is not None}
        if not axes:
            return
        axis = axes.pop()
        if axes:
            self.keep_whole(slots, "its inputs have channels in different dimensions")
            return
        self.along = self.operator == "cat" and dim == axis
        known = [part for part in parts if part.axis is not None]
        if self.along:
            pieces = []
            for part in parts:
                if part.axis is None:
                    pieces.append(slots.new(part.shape[axis]))
                    slots.frozen.append(pieces[-1])
                else:
                    pieces.append(part.slots)
            self.out.slots = np.concatenate(pieces)
        else:
            for part in known[1:]:
                slots.tie(known[0].slots, part.slots)
            self.out.slots = known[0].slots
            if len(known) < len(parts):
                slots.freeze(known[0])
        self.out.axis = axis + (self.operator == "stack" and dim <= axis)
        self.axis = axis

    def _sizes(self) -> list[int]:
        return [part.shape[self.axis] for part in self.inputs]

    def _transfer(self) -> None:
        states = [p.spread(n) for p, n in zip(self.inputs, self._sizes(), strict=True)]
        varying, constant = zip(*states, strict=True)
        if self.along:
            self.out.varying, self.out.constant = np.concatenate(varying), np.concatenate(constant)
        else:
            self.out.varying = np.any(varying, 0) | (np.ptp(constant, 0) != 0)
            self.out.constant = np.where(self.out.varying, 0.0, constant[0])

    def _read(self, kept: Mask) -> None:
        used = [self.out.used] * len(self.inputs)
        if self.along:
            used = np.split(self.out.used, np.cumsum(self._sizes())[:-1])
        for part, mask in zip(self.inputs, used, strict=True):
            part.use(mask)


def _tie_runs(slots: Slots, x: Value, out: Value) -> np.ndarray:
    """Ties the runs of channels of `x` that become one of `out`; returns a slot for each."""
    runs = x.slots.reshape(out.channels, -1)
    for column in runs.T[1:]:
        slots.tie(runs[:, 0], column)
    return runs[:, 0]


def _merge_runs(x: Value, out: Value) -> None:
    """Sets the state of `out`: constant where all channels of a run have the same constant."""
    varying, constant = (state.reshape(out.channels, -1) for state in (x.varying, x.constant))
    out.varying = varying.any(1) | (constant != constant[:, :1]).any(1)
    out.constant = np.where(out.varying, 0.0, constant[:, 0])
