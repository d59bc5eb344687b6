"""Rules of operators that treat every channel by itself: pooling, resizing, padding, means."""

from __future__ import annotations

import numpy as np

from seg_l1.compaction.graph import Mask, Operation, Slots, Value


class Spatial(Operation):
    """Operators that treat every channel by itself and give a constant back: pooling, resizing."""

    def link(self, slots: Slots) -> None:
        x = self.inputs[0]
        if x.axis is None:
            return
        if not self.keeps_axis(x):
            self.keep_whole(slots, "it changes the channels")
            return
        for out in self.outputs:
            out.axis, out.slots = self.new_axis(x), x.slots

    def keeps_axis(self, x: Value) -> bool:
        return x.axis == 1

    def new_axis(self, x: Value) -> int:
        assert x.axis is not None
        return x.axis

    def keeps(self, constant: np.ndarray) -> Mask:
        """Whether a constant stays one."""
        return np.ones(len(constant), bool)

    def _transfer(self) -> None:
        x = self.inputs[0]
        self.out.varying = x.varying | ~self.keeps(x.constant)
        self.out.constant = np.where(self.out.varying, 0.0, x.constant)

    def _read(self, kept: Mask) -> None:
        for out in self.outputs:
            self.inputs[0].use(out.used)


class AveragePool(Spatial):
    """avg_pool: zeros around the image count as entries of the mean, unless they are excluded."""

    def keeps(self, constant: np.ndarray) -> Mask:
        padded = any(self.arguments["padding"]) and self.arguments["count_include_pad"]
        divided = self.arguments.get("divisor_override") is not None
        return (constant == 0) | (not padded and not divided)


class Pad(Spatial):
    """pad: a border of another value than the constant makes a channel vary."""

    def _amounts(self) -> list[int]:
        return list(self.arguments["pad"] if "pad" in self.arguments else self.arguments["padding"])

    def keeps_axis(self, x: Value) -> bool:
        assert x.axis is not None
        covered = len(x.shape) - len(self._amounts()) // 2
        return x.axis < covered or not any(self._amounts()[2 * (len(x.shape) - 1 - x.axis) :][:2])

    def keeps(self, constant: np.ndarray) -> Mask:
        if self.arguments.get("mode", "constant") != "constant" or "padding" in self.arguments:
            return np.ones(len(constant), bool)
        grows = any(amount > 0 for amount in self._amounts())
        return (constant == (self.arguments.get("value") or 0.0)) | (not grows)


class Reduce(Spatial):
    """mean, amax, amin, sum over dimensions that are not the channels."""

    def _dims(self, x: Value) -> set[int]:
        dims = self.arguments.get("dim")
        if dims is None or dims == []:
            return set(range(len(x.shape)))
        return {dim % len(x.shape) for dim in (dims if isinstance(dims, list) else [dims])}

    def keeps_axis(self, x: Value) -> bool:
        return x.axis not in self._dims(x)

    def new_axis(self, x: Value) -> int:
        assert x.axis is not None
        if self.arguments.get("keepdim"):
            return x.axis
        return x.axis - sum(dim < x.axis for dim in self._dims(x))

    def keeps(self, constant: np.ndarray) -> Mask:
        return np.full(len(constant), self.operator != "sum") | (constant == 0)


class Unpool(Operation):
    """max_unpool2d: values, their places, and the result have the same channels."""

    def link(self, slots: Slots) -> None:
        x, indices = self.inputs
        if x.axis != 1 or indices.axis != 1:
            self.keep_whole(slots, "its places are not those of a pooling layer")
            return
        self.out.axis, self.out.slots = 1, x.slots
        slots.tie(x.slots, indices.slots)

    def _transfer(self) -> None:
        x = self.inputs[0]
        self.out.varying = x.varying | (x.constant != 0)
        self.out.constant = np.zeros(self.out.channels)

    def _read(self, kept: Mask) -> None:
        for value in self.inputs:
            value.use(self.out.used & self.out.varying)
