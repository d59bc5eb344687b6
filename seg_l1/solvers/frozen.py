"""The frozen support: weights that are zero stay zero, the others are trained on.

With strength 0 this is the refit of the relaxed lasso (Meinshausen, 2007): no penalty shrinks the
weights that were selected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from seg_l1.scope import ScopedTensor, local
from seg_l1.solvers.proximal import Proximal


class Frozen(Proximal):
    """A proximal solver on the support that the weights have when it is attached.

    Attributes:
        support: bool, for each penalized tensor: the entries that may differ from zero.
        held: the same of tensors that are not penalized, by name; the others are free.
    """

    reads_gradients = True
    repeatable = False

    def _prepare(self) -> None:
        super()._prepare()
        self.support = [scoped.local != 0 for scoped in self.penalized_tensors]
        self.held: dict[str, Tensor] = {}

    @torch.no_grad()
    def hold(self, masks: Mapping[str, Tensor]) -> None:
        """Makes masks the support of the tensors that they name, penalized or not.

        Args:
            masks: bool, by the name of a tensor; weights off them must be zero.
        """
        for scoped, support in zip(self.penalized_tensors, self.support, strict=True):
            if scoped.name in masks:
                support.copy_(masks[scoped.name])
        for scoped in self.tensors:
            if not scoped.penalized and scoped.name in masks:
                self.held[scoped.name] = masks[scoped.name].to(scoped.local.device, copy=True)

    @torch.no_grad()
    def restrict(self, masks: Mapping[str, Tensor]) -> None:
        """Takes entries off the support, and sets weights off it to zero.

        Args:
            masks: bool, by the name of a tensor: the entries that may stay. {} = all.
        """
        self.hold({n: mask & self.held[n] if n in self.held else mask for n, mask in masks.items()
                   if n not in self._names})  # fmt: skip
        for scoped, support in zip(self.penalized_tensors, self.support, strict=True):
            if scoped.name in masks:
                support &= masks[scoped.name]
        for scoped, support in self._supports():
            scoped.local.mul_(support)

    @property
    def _names(self) -> set[str]:
        return {scoped.name for scoped in self.penalized_tensors}

    def _supports(self) -> Iterator[tuple[ScopedTensor, Tensor]]:
        yield from zip(self.penalized_tensors, self.support, strict=True)
        for scoped in self.tensors:
            if scoped.name in self.held:
                yield scoped, self.held[scoped.name]

    def before_step(self) -> None:
        """Zeroes gradients off the support, so that no momentum builds up there."""
        for scoped, support in self._supports():
            if scoped.tensor.grad is not None:
                local(scoped.tensor.grad).mul_(support)
        super().before_step()

    def after_step(self) -> None:
        """Undoes what older momentum may have done to the zeros."""
        for index, scoped in enumerate(self.penalized_tensors):
            if self.is_stepping[index]:
                scoped.local.mul_(self.support[index])
        for scoped in self.tensors:
            if scoped.name in self.held and scoped.tensor.grad is not None:
                scoped.local.mul_(self.held[scoped.name])
        super().after_step()

    def state_dict(self) -> dict[str, Any]:
        held = {name: mask.clone() for name, mask in self.held.items()}
        support = [support.clone() for support in self.support]
        return {**super().state_dict(), "support": support, "held": held}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        loaded: list[Tensor] = state["support"]
        for support, saved in zip(self.support, loaded, strict=True):
            support.copy_(saved)
        self.hold(state.get("held", {}))  # older states have none
