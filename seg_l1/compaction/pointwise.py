"""Rules of operators that compute each entry from the entries at its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from seg_l1.compaction.graph import Mask, Operation, Slots, Value, numbers, values_in


class Pointwise(Operation):
    """Any function of single entries of its inputs, which are broadcast against each other.

    A channel of the output is constant where it is in all inputs; the operator itself computes it.
    """

    operands: list[Value]
    whole_operands: list[Value]
    """Those with as many channels as the output; the others have one, or none."""

    def link(self, slots: Slots) -> None:
        self.operands = self.inputs
        places = {self._place(v) for v in self.operands if v.axis is not None and self._full(v)}
        if len(places) != 1:
            self.keep_whole(slots, "its operands have channels in different dimensions")
            return
        self.out.axis = axis = places.pop()
        count, dims = self.out.channels, len(self.out.shape)
        self.whole_operands = [
            v
            for v in self.operands
            if v.axis is not None and self._place(v) == axis and v.channels == count
        ]
        self.out.slots = self.whole_operands[0].slots
        for value in self.operands:
            if any(value is whole for whole in self.whole_operands):
                slots.tie(self.out.slots, value.slots)
                continue
            slots.freeze(value)
            own = axis - dims + len(value.shape)
            if own >= 0 and value.shape[own] > 1:
                self.whole = "an operand has no known channels"
                slots.frozen.append(self.out.slots)

    def _place(self, value: Value) -> int:
        """The dimension of the output that the channels of an operand are aligned with."""
        assert value.axis is not None
        return len(self.out.shape) - len(value.shape) + value.axis

    def _full(self, value: Value) -> bool:
        return value.channels == self.out.shape[self._place(value)]

    def keep_whole(self, slots: Slots, reason: str) -> None:
        self.whole_operands = []
        super().keep_whole(slots, reason)

    def _transfer(self) -> None:
        count = self.out.channels
        states = [value.spread(count) for value in self.operands]
        constant = self._evaluate(states)
        varying = np.any([varying for varying, _ in states], axis=0)
        self.out.varying = varying | ~np.isfinite(constant)  # 0 times infinity is no constant
        self.out.constant = np.where(self.out.varying, 0.0, constant)

    def _evaluate(self, states: list[tuple[Mask, np.ndarray]]) -> np.ndarray:
        constants = iter([torch.from_numpy(constant.copy()) for _, constant in states])
        arguments = {name: _substitute(value, constants) for name, value in self.arguments.items()}
        if "condition" in arguments:
            arguments["condition"] = arguments["condition"].bool()
        return self.target(**arguments).double().numpy()

    def _read(self, kept: Mask) -> None:
        for value in self.operands:
            self._read_operand(value, self.out.used)

    def _read_operand(self, value: Value, used: Mask) -> None:
        if any(value is whole for whole in self.whole_operands):
            value.use(used)
        else:
            value.use(np.full(value.channels, used.any()))


class Identity(Pointwise):
    """Operators that return their input in eval mode: dropout, alias, clone, contiguous, ..."""

    def _evaluate(self, states: list[tuple[Mask, np.ndarray]]) -> np.ndarray:
        return states[0][1].copy()


class Multiply(Pointwise):
    """mul: a channel that is 0 in one operand is 0, and the other is not read there."""

    def _transfer(self) -> None:
        super()._transfer()
        zero = np.any([self._zero(value) for value in self.operands], axis=0)
        self.out.varying = self.out.varying & ~zero
        self.out.constant = np.where(zero, 0.0, self.out.constant)

    def _zero(self, value: Value) -> Mask:
        varying, constant = value.spread(self.out.channels)
        return ~varying & (constant == 0)

    def _read(self, kept: Mask) -> None:
        for value in self.operands:
            others = [self._zero(other) for other in self.operands if other is not value]
            zero = np.any(others, axis=0) if others else np.zeros(self.out.channels, bool)
            self._read_operand(value, self.out.used & ~zero)


class Prelu(Pointwise):
    """prelu: the slope belongs to dimension 1."""

    def link(self, slots: Slots) -> None:
        x, slope = self.inputs
        if x.axis != 1 or slope.data is None:
            self.keep_whole(slots, "its channels are not dimension 1")
            return
        self.operands, self.whole_operands = [x], [x]
        self.out.axis, self.out.slots = 1, x.slots
        if slope.shape[0] > 1:
            slots.claim(slope, 0, x.slots)

    def _evaluate(self, states: list[tuple[Mask, np.ndarray]]) -> np.ndarray:
        constant = states[0][1]
        return np.where(constant > 0, constant, constant * numbers(self.inputs[1]))


def _substitute(argument: Any, constants: Any) -> Any:
    if isinstance(argument, Value):
        return next(constants)
    if isinstance(argument, list) and any(True for _ in values_in(argument)):
        return [_substitute(item, constants) for item in argument]
    return argument
