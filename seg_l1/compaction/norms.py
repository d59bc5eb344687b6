"""Rules of normalization layers."""

from __future__ import annotations

import numpy as np

from seg_l1.compaction.graph import Mask, Operation, Slots, Value, numbers


class BatchNorm(Operation):
    """batch_norm in eval mode, and instance_norm, which normalizes a constant to 0."""

    def link(self, slots: Slots) -> None:
        x, *parameters = self.inputs
        if x.axis != 1 or any(p.data is None for p in parameters):
            self.keep_whole(slots, "its channels are not known")
            return
        self.out.axis, self.out.slots = 1, x.slots
        for parameter in parameters:
            slots.claim(parameter, 0, x.slots)

    def _affine(self) -> tuple[np.ndarray, np.ndarray]:
        """factor and offset (C,): the output is x · factor + offset."""
        given = self.arguments
        count = self.out.channels
        gamma = numbers(given["weight"], np.ones(count))
        beta = numbers(given["bias"], np.zeros(count))
        if given.get("training") or given.get("use_input_stats") or given["running_mean"] is None:
            return np.zeros(count), beta
        deviation = np.sqrt(numbers(given["running_var"]) + given["eps"])
        factor = gamma / deviation
        return factor, beta - numbers(given["running_mean"]) * factor

    def _ignores(self) -> Mask:
        return numbers(self.arguments["weight"], np.ones(self.out.channels)) == 0

    def transfer(self) -> None:
        if self.out.axis is not None:
            x = self.inputs[0]
            factor, offset = self._affine()
            self.out.varying = x.varying & ~self._ignores()
            beta = numbers(self.arguments["bias"], np.zeros(len(offset)))
            constant = np.where(self._ignores(), beta, x.constant * factor + offset)
            self.out.constant = np.where(self.out.varying, 0.0, constant)

    def read(self, kept: Mask) -> None:
        if self.out.axis is None:
            super().read(kept)
            return
        self.inputs[0].use(self.out.used & ~self._ignores())


class GroupNorm(Operation):
    """group_norm: the channels of a group stay or go together."""

    def link(self, slots: Slots) -> None:
        x, *parameters = self.inputs
        if x.axis != 1 or any(p.data is None for p in parameters):
            self.keep_whole(slots, "its channels are not known")
            return
        self.out.axis, self.out.slots = 1, x.slots
        groups = x.slots.reshape(self.arguments["num_groups"], -1)
        for column in groups.T[1:]:
            slots.tie(groups[:, 0], column)
        for parameter in parameters:
            slots.claim(parameter, 0, x.slots)

    def _grouped(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(self.arguments["num_groups"], -1)

    def transfer(self) -> None:
        if self.out.axis is None:
            return
        x, count = self.inputs[0], self.out.channels
        gamma = numbers(self.arguments["weight"], np.ones(count))
        beta = numbers(self.arguments["bias"], np.zeros(count))
        constant = self._grouped(x.constant)
        centered = constant - constant.mean(1, keepdims=True)
        deviation = np.sqrt(constant.var(1, keepdims=True) + self.arguments["eps"])
        varies = np.broadcast_to(self._grouped(x.varying).any(1, keepdims=True), constant.shape)
        self.out.varying = varies.ravel() & (gamma != 0)
        fixed = np.where(gamma == 0, beta, (centered / deviation).ravel() * gamma + beta)
        self.out.constant = np.where(self.out.varying, 0.0, fixed)

    def read(self, kept: Mask) -> None:
        if self.out.axis is None:
            super().read(kept)
            return
        used = self._grouped(self.out.used).any(1, keepdims=True)
        self.inputs[0].use(np.broadcast_to(used, self._grouped(self.out.used).shape).ravel())


class LayerNorm(Operation):
    """layer_norm over the channels: all stay; a channel whose weight is 0 is constant."""

    def link(self, slots: Slots) -> None:
        x = self.inputs[0]
        self.keep_whole(slots, "it normalizes over the channels")
        if x.axis == len(x.shape) - 1 and len(self.arguments["normalized_shape"]) == 1:
            self.out.axis, self.out.slots = x.axis, x.slots

    def transfer(self) -> None:
        weight = self.arguments["weight"]
        if self.out.axis is not None:
            self.out.varying = np.ones(self.out.channels, bool)
            self.out.constant = np.zeros(self.out.channels)
            if isinstance(weight, Value) and weight.data is not None:
                self.out.varying = numbers(weight) != 0
                beta = numbers(self.arguments["bias"], np.zeros(self.out.channels))
                self.out.constant = np.where(self.out.varying, 0.0, beta)
