"""The frozen support: weights that are zero stay zero, the others are trained on.

With strength 0 this is the refit of the relaxed lasso (Meinshausen, 2007): no penalty shrinks the
weights that were selected.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from seg_l1.solvers.proximal import Proximal


class Frozen(Proximal):
    """A proximal solver on the support that the weights have when it is attached."""

    reads_gradients = True
    takes_closure = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.support = [entry.tensor != 0 for entry in self.entries]

    def before_step(self) -> None:
        """Takes the gradients off the zeros, so that no moment of the optimizer fills there."""
        for entry, alive in zip(self.entries, self.support, strict=True):
            if entry.tensor.grad is not None:
                entry.tensor.grad.mul_(alive)
        super().before_step()

    def after_step(self) -> None:
        """Undoes what moments from before may have done to the zeros."""
        for entry, alive in zip(self.entries, self.support, strict=True):
            if entry.tensor.requires_grad:
                entry.tensor.mul_(alive)
        super().after_step()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "support": [alive.clone() for alive in self.support]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        loaded: list[Tensor] = state["support"]
        for alive, saved in zip(self.support, loaded, strict=True):
            alive.copy_(saved)
