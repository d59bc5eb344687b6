"""The textbook way: the penalty is part of the loss that is differentiated.

Never lands on zero: a weight rings around it with the amplitude of one step. Under Adam the
penalty is divided by √v̂ with everything else. A baseline to compare with, nothing more.
"""

from __future__ import annotations

import torch

from seg_l1.solvers.base import Solver
from seg_l1.solvers.blocks import blocks


class Subgradient(Solver):
    """Adds strength·∂R(w) to the gradients, once per optimizer step, after clipping."""

    reads_gradients = True

    def _prepare(self) -> None:
        self.blocks = blocks(self.penalty, self.penalized_tensors)

    @torch.enable_grad()
    def before_step(self) -> None:
        if self.strength == 0:
            return
        weights = [scoped.tensor for scoped in self.penalized_tensors]
        for block in self.blocks:
            stepping = [weights[index] for index in block.indices if self.is_stepping[index]]
            if not stepping:
                continue
            value = self.strength * block.factor * self.penalty.value(block.gather(weights))
            if not value.requires_grad:
                continue
            for tensor, subgrad in zip(stepping, torch.autograd.grad(value, stepping), strict=True):
                assert tensor.grad is not None
                tensor.grad.add_(subgrad)

    def _check(self) -> None:
        super()._check()
        coupled = not getattr(self.penalty, "decoupled", False)
        self._require(coupled, "a decoupled decay is no part of the loss; use proximal")
