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
from seg_l1.solvers import Solver, weight_decay
from seg_l1.solvers.metric import check_metric, prox_step


class DualAveraging(Solver):
    """Keeps z and T of every penalised tensor: twice its memory."""

    def __init__(
        self,
        penalty: Penalty,
        tensors: Sequence[ScopedTensor],
        optimizer: Optimizer,
        *,
        strength: float = 0.0,
    ) -> None:
        super().__init__(penalty, tensors, optimizer, strength=strength)
        self.latent = [torch.empty_like(entry.tensor) for entry in self.entries]
        self.started = False
        self.threshold: list[float | Tensor] = [0.0] * len(self.entries)

    def before_step(self) -> None:
        """The optimizer steps from z, with the gradient at w: what it adds to w, z has got."""
        for entry, latent in zip(self.entries, self.latent, strict=True):
            if not self.started:
                latent.copy_(entry.tensor)
            entry.tensor.copy_(latent)
        self.started = True

    def after_step(self) -> None:
        for index, entry in enumerate(self.entries):
            group = self.group_of(entry)
            size = float(group["lr"]) * self.strength * entry.factor
            self.latent[index].copy_(entry.tensor)
            step = prox_step(self.optimizer, group, entry.tensor, size, self.count)
            if torch.is_tensor(self.threshold[index]):
                self.threshold[index].add_(step)
            else:
                self.threshold[index] += step
        self._land()

    def skipped(self) -> None:
        self._land()

    def _land(self) -> None:
        for entry, latent, threshold in zip(self.entries, self.latent, self.threshold, strict=True):
            w, z = entry.groups_first, entry.along(latent)
            step = entry.along(threshold) if torch.is_tensor(threshold) else threshold
            self.penalty.prox(z, step, out=w)

    def state_dict(self) -> dict[str, Any]:
        own = {"latent": self.latent, "threshold": self.threshold, "started": self.started}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.started = state["started"]
        for index, entry in enumerate(self.entries):
            self.latent[index].copy_(state["latent"][index])
            threshold = state["threshold"][index]
            self.threshold[index] = (
                threshold.to(entry.tensor.device) if torch.is_tensor(threshold) else threshold
            )

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
