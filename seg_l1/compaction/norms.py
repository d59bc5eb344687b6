"""Rules of normalization layers."""

from __future__ import annotations

import numpy as np

from seg_l1.compaction.graph import Mask, Operation, Slots, numbers


class ChannelNorm(Operation):
    """A norm with an entry per channel in each of its parameters and buffers."""

    def link(self, slots: Slots) -> None:
        x, *parameters = self.inputs
        if x.axis != 1 or any(p.data is None for p in parameters):
            self.keep_whole(slots, "its channels are not known")
            return
        self.out.axis, self.out.slots = 1, x.slots
        for parameter in parameters:
            slots.claim(parameter, 0, x.slots)

    @property
    def gamma(self) -> np.ndarray:
        """The factor of each channel, 1 if there is none."""
        return numbers(self.arguments["weight"], np.ones(self.out.channels))

    @property
    def beta(self) -> np.ndarray:
        """The offset of each channel, 0 if there is none."""
        return numbers(self.arguments["bias"], np.zeros(self.out.channels))

    def _set_state(self, varying: Mask, normalized: np.ndarray) -> None:
        """Sets the state of the output from that of the normalized input, before γ and β."""
        self.out.varying = varying & (self.gamma != 0)
        self.out.constant = np.where(self.out.varying, 0.0, normalized * self.gamma + self.beta)


class BatchNorm(ChannelNorm):
    """batch_norm in eval mode, and instance_norm, which normalizes a constant to 0."""

    def _normalized(self) -> np.ndarray:
        given, constant = self.arguments, self.inputs[0].constant
        if given.get("training") or given.get("use_input_stats") or given["running_mean"] is None:
            return np.zeros(self.out.channels)
        deviation = np.sqrt(numbers(given["running_var"]) + given["eps"])
        return (constant - numbers(given["running_mean"])) / deviation

    def _transfer(self) -> None:
        self._set_state(self.inputs[0].varying, self._normalized())

    def _read(self, kept: Mask) -> None:
        self.inputs[0].use(self.out.used & (self.gamma != 0))


class GroupNorm(ChannelNorm):
    """group_norm: the channels of a group stay or go together."""

    def link(self, slots: Slots) -> None:
        if self.arguments["weight"] is None:
            self.keep_whole(
                slots, "it has no parameters from which its number of channels could be read"
            )
            return
        super().link(slots)
        if self.out.axis is not None:
            groups = self._grouped(self.out.slots)
            for column in groups.T[1:]:
                slots.tie(groups[:, 0], column)

    def _grouped(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(self.arguments["num_groups"], -1)

    def _any_in_group(self, mask: Mask) -> Mask:
        grouped = self._grouped(mask)
        return np.repeat(grouped.any(1), grouped.shape[1])

    def _transfer(self) -> None:
        x = self.inputs[0]
        constant = self._grouped(x.constant)
        centered = constant - constant.mean(1, keepdims=True)
        deviation = np.sqrt(constant.var(1, keepdims=True) + self.arguments["eps"])
        self._set_state(self._any_in_group(x.varying), (centered / deviation).ravel())

    def _read(self, kept: Mask) -> None:
        self.inputs[0].use(self._any_in_group(self.out.used))


class LayerNorm(ChannelNorm):
    """layer_norm over the channels: all stay; a channel whose weight is 0 is constant."""

    def link(self, slots: Slots) -> None:
        x = self.inputs[0]
        self.keep_whole(slots, "it normalizes over the channels")
        if x.axis == len(x.shape) - 1 and len(self.arguments["normalized_shape"]) == 1:
            self.out.axis, self.out.slots = x.axis, x.slots

    def _transfer(self) -> None:
        self._set_state(np.ones(self.out.channels, bool), np.zeros(self.out.channels))

    def _read(self, kept: Mask) -> None:
        self._read_whole()
