"""The frozen support: weights that are zero stay zero, the others are trained on.

With strength 0 this is the refit of the relaxed lasso (Meinshausen, 2007): no penalty shrinks the
weights that were selected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from seg_l1.scope import local
from seg_l1.solvers.proximal import Proximal


class Frozen(Proximal):
    """A proximal solver on the support that the weights have when it is attached."""

    reads_gradients = True
    repeatable = False

    def _prepare(self) -> None:
        super()._prepare()
        self.support = [scoped.local != 0 for scoped in self.penalized_tensors]

    @torch.no_grad()
    def restrict(self, masks: Mapping[str, Tensor]) -> None:
        """Takes entries off the support, and sets weights off it to zero.

        Args:
            masks: bool, by the name of a tensor: the entries that may stay. {} = all.
        """
        for scoped, support in zip(self.penalized_tensors, self.support, strict=True):
            if scoped.name in masks:
                support &= masks[scoped.name]
            scoped.local.mul_(support)

    def before_step(self) -> None:
        """Zeroes gradients off the support, so that no momentum builds up there."""
        for scoped, support in zip(self.penalized_tensors, self.support, strict=True):
            if scoped.tensor.grad is not None:
                local(scoped.tensor.grad).mul_(support)
        super().before_step()

    def after_step(self) -> None:
        """Undoes what older momentum may have done to the zeros."""
        for index, scoped in enumerate(self.penalized_tensors):
            if self.is_stepping[index]:
                scoped.local.mul_(self.support[index])
        super().after_step()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "support": [s.clone() for s in self.support]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        loaded: list[Tensor] = state["support"]
        for support, saved in zip(self.support, loaded, strict=True):
            support.copy_(saved)
