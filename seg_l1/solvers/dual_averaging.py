"""Dual averaging: the threshold acts on the running sum of all steps, not on the weights.

z ← z + (step of the optimizer), T ← T + lr·α·λ·ω/D, w ← prox_T(z). A weight is zero as long as the
*mean* of its gradients stays below α: noise averages out, and the support shows earlier than with
a threshold on the last step (Xiao, 2010; Lee and Wright, 2012). With D of `metric.py`, the optimum
is that of the written objective under momentum and Adam too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seg_l1.scope import ScopedTensor, local
from seg_l1.solvers.base import Solver, weight_decay
from seg_l1.solvers.metric import check_metric, prox_step
from seg_l1.solvers.versions import Versions


class DualAveraging(Solver):
    """Keeps z and T for every penalized tensor: up to twice its memory in addition.

    If anything else writes into a tensor between two steps (a checkpoint, a rollback, a clamp),
    its sum starts anew there, with T = 0. Writes through `.data` go unnoticed, and are lost.
    """

    def _prepare(self) -> None:
        size = len(self.penalized_tensors)
        self.latent: list[Tensor | None] = [None] * size
        self.threshold: list[float | Tensor] = [0.0] * size
        self.versions = Versions(self.penalized_tensors)

    def before_step(self) -> None:
        """Puts z in place of w: the optimizer steps from z using the gradient at w."""
        for index, scoped in self._stepping():
            z = self.latent[index]
            if z is None or (self.versions.changed(index) and not self._is_own(index)):
                z = self.latent[index] = scoped.local.clone()
                self.threshold[index] = 0.0
            scoped.local.copy_(z)

    def _stepping(self) -> list[tuple[int, ScopedTensor]]:
        """The tensors that take part in the step, with their indices."""
        indexed = enumerate(self.penalized_tensors)
        return [(index, scoped) for index, scoped in indexed if self.is_stepping[index]]

    def _is_own(self, index: int) -> bool:
        """Whether w is prox_T(z), as after a swap of weights that was undone."""
        scoped, z = self.penalized_tensors[index], self.latent[index]
        if z is None or z.device != scoped.local.device:
            return False
        return torch.equal(self._prox(index), scoped.groups_first)

    def after_step(self) -> None:
        """Adds the step to T, and puts w = prox_T(z) back in place."""
        for index, scoped in self._stepping():
            z, count = self.latent[index], self.counts[index]
            assert z is not None
            z.copy_(scoped.local)
            scaled_lr = self.scaled_lr(scoped) * scoped.factor
            group = self.group_of(scoped)
            step = prox_step(self.optimizer, group, scoped.tensor, scaled_lr, count)
            step = local(step) if isinstance(step, Tensor) else step
            self.threshold[index] = self.threshold[index] + step
        self._write_back()

    def skipped(self) -> None:
        self._write_back()

    def _write_back(self) -> None:
        for index, scoped in self._stepping():
            self._prox(index, out=scoped.groups_first)
            self.versions.record(index)

    def _prox(self, index: int, out: Tensor | None = None) -> Tensor:
        """prox_T(z)."""
        scoped, z = self.penalized_tensors[index], self.latent[index]
        assert z is not None
        return self.penalty.prox(scoped.along(z), scoped.along(self.threshold[index]), out=out)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "latent": self.latent, "threshold": self.threshold}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for index, scoped in enumerate(self.penalized_tensors):
            device = scoped.local.device
            latent, threshold = state["latent"][index], state["threshold"][index]
            self.latent[index] = None if latent is None else latent.to(device, copy=True)
            self.threshold[index] = (
                threshold.to(device, copy=True) if isinstance(threshold, Tensor) else threshold
            )
        self.versions.record_all()

    def _check(self) -> None:
        super()._check()
        self._require(hasattr(self.penalty, "prox"), "it has no prox; use factorized")
        convex = getattr(self.penalty, "convex", True)
        self._require(convex, "it is not convex, so a running sum means nothing; use proximal")
        inside = not getattr(self.penalty, "across_tensors", False)
        self._require(inside, "its groups go across tensors; use proximal")
        coupled = not getattr(self.penalty, "decoupled", False)
        self._require(coupled, "a decoupled decay has no running sum; use proximal")
        if weight_decay(self.optimizer):
            raise ValueError(
                "dual averaging lets the optimizer step from its running sum, which weight_decay"
                " would shrink in place of the weights: set weight_decay=0, use elastic_net"
            )
        check_metric(self.optimizer)
