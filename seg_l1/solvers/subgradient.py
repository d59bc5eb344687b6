"""The textbook way: the penalty is part of the loss that is differentiated.

Never lands on zero: a weight rings around it with the amplitude of one step. Under Adam the
penalty is divided by √v̂ with everything else. A baseline to compare with, nothing more.
"""

from __future__ import annotations

import torch

from seg_l1.solvers.base import Solver


class Subgradient(Solver):
    """Adds strength·∂R(w) to the gradients, once per optimizer step, after clipping."""

    reads_gradients = True

    @torch.enable_grad()
    def before_step(self) -> None:
        if self.strength == 0:
            return
        for scoped, steps in zip(self.penalized_tensors, self.is_stepping, strict=True):
            if not steps:
                continue
            value = self.strength * scoped.factor * self.penalty.value(scoped.groups_first)
            if not value.requires_grad:
                continue
            (subgrad,) = torch.autograd.grad(value, scoped.tensor)
            assert scoped.tensor.grad is not None
            scoped.tensor.grad.add_(subgrad)

    def _check(self) -> None:
        super()._check()
        coupled = not getattr(self.penalty, "decoupled", False)
        self._require(coupled, "a decoupled decay is no part of the loss; use proximal")
