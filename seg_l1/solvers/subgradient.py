"""The textbook way: the penalty is part of the loss that is differentiated.

Never lands on zero: a weight rings around it with the amplitude of one step. Under Adam the
penalty is divided by √v̂ with everything else. A baseline to compare with, nothing more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from seg_l1.penalties import Penalty
from seg_l1.scope import ScopedTensor


class Subgradient:
    """Adds strength·∂R(w) to the gradients, once per optimizer step, before clipping."""

    def __init__(
        self, penalty: Penalty, tensors: Sequence[ScopedTensor], optimizer: Optimizer
    ) -> None:
        self.penalty = penalty
        self.tensors = [entry for entry in tensors if entry.penalized]

    def before_step(self, strength: float) -> None:
        if strength == 0:
            return
        for entry in self.tensors:
            value = strength * entry.factor * self.penalty.value(entry.groups_first)
            if not value.requires_grad:
                continue
            (gradient,) = torch.autograd.grad(value, entry.tensor)
            if entry.tensor.grad is None:
                entry.tensor.grad = gradient
            else:
                entry.tensor.grad.add_(gradient)

    def after_step(self, strength: float) -> None:
        pass

    def flush(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass
