"""The number of nonzero weights as a size, and the nearest weights within a budget of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seg_l1.compaction.budget import LONGEST, NEAR
from seg_l1.penalties import Penalty
from seg_l1.scope import ScopedTensor
from seg_l1.solvers.blocks import blocks

_HALVINGS = 60
"""Halvings of the interval in which the step of `NonzeroCount.fit` lies, at most."""


class NonzeroCount:
    """The number of penalized weights that are not zero; it has the methods of `CostModel`.

    It counts single weights, whether or not compaction can remove the channels that they are in.

    Args:
        tensors: those of a solver; the ones that are not penalized are not counted.

    Attributes:
        dense: the number of penalized weights.
    """

    def __init__(self, tensors: Sequence[ScopedTensor]) -> None:
        self._weights = [scoped.tensor for scoped in tensors if scoped.penalized]
        self.dense = sum(weight.numel() for weight in self._weights)

    @torch.no_grad()
    def cost(self) -> int:
        """Returns the number of nonzero weights; −0.0 is a zero."""
        return sum(int(weight.count_nonzero()) for weight in self._weights)

    def least(self, penalty: Penalty, tensors: Sequence[ScopedTensor]) -> int:
        """Returns the number with one weight in each kernel, whatever the penalty."""
        return sum(weight.ndim > 1 for weight in self._weights)

    @torch.no_grad()
    def fit(
        self, budget: float, penalty: Penalty, tensors: Sequence[ScopedTensor]
    ) -> dict[str, Tensor]:
        """Sets weights to zero until no more than `budget` are left; changes the model.

        These are the weights that vanish first as the proximal step of the penalty, with the
        factors of the scope, grows: for L1 those with the smallest |w|/ω. The largest weight of a
        kernel stays. The weights that stay keep their values.

        Args:
            tensors: those that were given to the constructor.

        Returns:
            {}: the weights themselves tell which of them are left.

        Raises:
            ValueError: if no network within the budget is found.
        """
        penalized = [scoped for scoped in tensors if scoped.penalized]
        low, high = 0.0, 1e-4
        while _count(found := self._after_step(high, penalty, penalized)) > budget:
            low, high = high, 4 * high
            if high > LONGEST:
                raise ValueError(f"no network has {budget:g} nonzero weights or fewer")
        for _ in range(_HALVINGS):
            if _count(found) >= NEAR * budget:
                break
            middle = 0.5 * (low + high)
            tried = self._after_step(middle, penalty, penalized)
            if _count(tried) > budget:
                low = middle
            else:
                high, found = middle, tried
        for weight, mask in zip(self._weights, found, strict=True):
            weight.mul_(mask)
        return {}

    def _after_step(
        self, step: float, penalty: Penalty, penalized: Sequence[ScopedTensor]
    ) -> list[Tensor]:
        """Which weights are not zero after a proximal step; they stay as they are."""
        moved = [weight.clone() for weight in self._weights]
        for block in blocks(penalty, penalized):
            w = block.gather(moved)
            block.store(penalty.prox(w, step * block.factor, out=w), moved)
        masks = [w != 0 for w in moved]
        for weight, mask in zip(self._weights, masks, strict=True):
            if weight.ndim > 1 and weight.any():
                mask[torch.unravel_index(weight.abs().argmax(), weight.shape)] = True
        return masks

    def state_dict(self) -> dict[str, Any]:
        """Returns {}: all is counted anew."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Does nothing."""


def _count(masks: Sequence[Tensor]) -> int:
    return sum(int(mask.sum()) for mask in masks)
