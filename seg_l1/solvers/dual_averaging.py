"""Dual averaging: the threshold acts on the running sum of all steps, not on the weights.

z ← z + (step of the optimizer), T ← T + lr·α·λ·ω/D, w ← prox_T(z). A weight is zero as long as the
*mean* of its gradients stays below α: noise averages out, and the support shows earlier than with
a threshold on the last step (Xiao, 2010; Lee and Wright, 2012). With D of `metric.py`, the optimum
is that of the written objective under momentum and Adam too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from seg_l1.penalties import Penalty
from seg_l1.scope import ScopedTensor
from seg_l1.solvers.base import Solver, weight_decay
from seg_l1.solvers.metric import check_metric, prox_step


class DualAveraging(Solver):
    """Keeps z and T of every penalised tensor: twice its memory.

    A tensor that somebody else writes into between two steps (a checkpoint, a rollback, a clamp) is
    taken as a new start, with T = 0. Writes through `.data` go unseen, and are lost.
    """

    def __init__(
        self,
        penalty: Penalty,
        tensors: Sequence[ScopedTensor],
        optimizer: Optimizer,
        *,
        strength: float = 0.0,
    ) -> None:
        super().__init__(penalty, tensors, optimizer, strength=strength)
        self.latent: list[Tensor | None] = [None] * len(self.entries)
        self.threshold: list[float | Tensor] = [0.0] * len(self.entries)
        self.version: list[int | None] = [None] * len(self.entries)

    def before_step(self) -> None:
        """The optimizer steps from z, with the gradient at w: what it adds to w, z has got."""
        for index, entry in enumerate(self.entries):
            w = entry.tensor
            if w._version != self.version[index] and not self._is_ours(index):
                self.latent[index], self.threshold[index] = w.clone(), 0.0
            w.copy_(self.latent[index])

    def _is_ours(self, index: int) -> bool:
        """Whether w is prox_T(z), as after a swap of weights that was undone."""
        entry, z = self.entries[index], self.latent[index]
        if z is None or z.device != entry.tensor.device:
            return False
        return torch.equal(self._landing(index), entry.groups_first)

    def after_step(self) -> None:
        for index, entry in enumerate(self.entries):
            if not entry.tensor.requires_grad:
                continue
            group = self.group_of(entry)
            size = float(group["lr"]) * self.strength * entry.factor
            self.latent[index].copy_(entry.tensor)
            step = prox_step(self.optimizer, group, entry.tensor, size, self.count)
            self.threshold[index] = self.threshold[index] + step
        self._land()

    def skipped(self) -> None:
        self._land()

    def _land(self) -> None:
        for index, entry in enumerate(self.entries):
            self._landing(index, out=entry.groups_first)
            self.version[index] = entry.tensor._version

    def _landing(self, index: int, out: Tensor | None = None) -> Tensor:
        entry = self.entries[index]
        z, step = entry.along(self.latent[index]), entry.along(self.threshold[index])
        return self.penalty.prox(z, step, out=out)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "latent": self.latent, "threshold": self.threshold}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for index, entry in enumerate(self.entries):
            device = entry.tensor.device
            latent, threshold = state["latent"][index], state["threshold"][index]
            self.latent[index] = None if latent is None else latent.to(device, copy=True)
            self.threshold[index] = (
                threshold.to(device, copy=True) if torch.is_tensor(threshold) else threshold
            )
            self.version[index] = None if latent is None else entry.tensor._version

    def _check(self) -> None:
        super()._check()
        self._needs(hasattr(self.penalty, "prox"), "it has no prox; use factorized")
        convex = getattr(self.penalty, "convex", True)
        self._needs(convex, "a running sum has no meaning for a penalty that is not convex")
        coupled = not getattr(self.penalty, "decoupled", False)
        self._needs(coupled, "a decoupled decay has no running sum; use proximal")
        if weight_decay(self.optimizer):
            raise ValueError(
                "dual averaging lets the optimizer step from its running sum, which weight_decay"
                " would shrink in place of the weights: set weight_decay=0, use elastic_net"
            )
        check_metric(self.optimizer)
