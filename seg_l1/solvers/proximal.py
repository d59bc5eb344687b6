"""The proximal solver: after each optimizer step the prox of the penalty, in the same metric.

w ← prox_{lr·α·λ·ω/D}(w), where D is the metric of the optimizer (`metric.py`). It lands on exact
zeros, and its fixed points are the optima of the written objective whatever
the optimizer (Combettes and Wajs, 2005). No autograd but for a look every `LOOK_EVERY` steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from seg_l1.penalties import Penalty
from seg_l1.scope import ScopedTensor
from seg_l1.solvers.base import Solver
from seg_l1.solvers.metric import check_metric, lasts, prox_step

RESOLVED = 8
"""A shrinkage counts when it is at least so many units in the last place of the weight."""

LOOK_EVERY = 128
"""Steps between two looks at the resolution: each reads all weights, and waits for the device."""


@dataclass
class Account:
    """What one tensor owes: lr·strength of the updates that are not applied yet.

    `kept` is what was dear to compute for the size `size`, `age` updates ago, where D is a tensor:
    size/D; or for groups t/‖x_g‖ of `prox.group_soft_threshold`, by which w ← w/(1 + kept).
    """

    owed: float = 0.0
    waited: int = 0
    interval: int = 1
    kept: Tensor | None = None
    size: float = 0.0
    age: int = 0


class Proximal(Solver):
    """Applies the prox after every optimizer step, or less often where a step would be lost.

    In float32 0.1 − 1e-9 is 0.1: a step lr·α below the resolution of the weights would do nothing
    for ever. Where that threatens, a tensor's steps are added up and applied at once.

    What is dear to compute and changes slowly is kept for some steps (`metric.lasts`): Adam's
    1/D, and for groups in Adam's metric the factors by which they shrink; a change of lr·strength
    scales both. Neither moves a fixed point, since there D and the norms of the groups stand still.
    """

    takes_closure = True

    def __init__(
        self,
        penalty: Penalty,
        tensors: Sequence[ScopedTensor],
        optimizer: Optimizer,
        *,
        strength: float = 0.0,
    ) -> None:
        super().__init__(penalty, tensors, optimizer, strength=strength)
        self.scales = getattr(penalty, "scales", False)
        self.look_at = 0
        self.accounts = [Account() for _ in self.entries]
        self.version: list[int | None] = [None] * len(self.entries)

    def before_step(self) -> None:
        """Forgets factors that were kept for weights which somebody has written since."""
        if self.scales:
            versions = [entry.tensor._version for entry in self.entries]
            for account, now, then in zip(self.accounts, versions, self.version, strict=True):
                account.kept = account.kept if now == then else None

    def after_step(self) -> None:
        self._apply()
        self.version = [entry.tensor._version for entry in self.entries]

    def _apply(self) -> None:
        if self.strength and self.count >= self.look_at:
            self._look()
        groups = self.optimizer.param_groups
        sizes = [float(group["lr"]) * self.strength for group in groups]
        lasting = [lasts(group) for group in groups]
        for entry, account in zip(self.entries, self.accounts, strict=True):
            if not entry.tensor.requires_grad:
                continue
            group = self._owner[id(entry.tensor)]
            account.owed += sizes[group]
            if account.owed == 0:
                continue
            account.waited += 1
            if account.waited >= account.interval:
                self._pay(entry, account, lasting[group])

    @torch.no_grad()
    def flush(self) -> None:
        """Sets to zero what the prox would, where steps are still being added up.

        The other weights stay, and so does what they owe: paid now it would be lost in rounding.
        """
        for entry, account in zip(self.entries, self.accounts, strict=True):
            if account.waited and entry.tensor.requires_grad:
                w = entry.groups_first
                step = entry.along(self._step(entry, account.owed))
                w.masked_fill_(self.penalty.prox(w, step) == 0, 0.0)
            account.kept = None

    def _pay(self, entry: ScopedTensor, account: Account, lasting: int) -> None:
        w, size = entry.groups_first, account.owed
        ratio = size / account.size if account.kept is not None else 1.0
        # factors kept for a very different size would magnify the rounding they are known with
        far = self.scales and not 0.25 <= ratio <= 4
        if account.kept is None or account.age >= lasting or far:
            step = self._step(entry, size)
            account.kept, account.size, account.age = None, size, 0
            if self.scales and torch.is_tensor(step):
                before = w.clone()
                self.penalty.prox(w, entry.along(step), out=w)
                account.kept = (before / w).sub_(1).nan_to_num_(math.inf, math.inf)
            else:
                self.penalty.prox(w, entry.along(step), out=w)
                account.kept = step if torch.is_tensor(step) else None
        elif self.scales:
            w.div_(torch.add(w.new_ones(()), account.kept, alpha=ratio))
        else:
            if size != account.size:
                account.kept.mul_(ratio)
                account.size = size
            self.penalty.prox(w, entry.along(account.kept), out=w)
        account.age += 1
        account.owed, account.waited = 0.0, 0

    def _step(self, entry: ScopedTensor, size: float) -> float | Tensor:
        size *= entry.factor
        if getattr(self.penalty, "decoupled", False):
            return size
        return prox_step(self.optimizer, self.group_of(entry), entry.tensor, size, self.count)

    def state_dict(self) -> dict[str, Any]:
        accounts = [dict(vars(account)) for account in self.accounts]
        return {**super().state_dict(), "look_at": self.look_at, "accounts": accounts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.look_at = state["look_at"]
        self.accounts = [Account(**account) for account in state["accounts"]]
        for entry, account in zip(self.entries, self.accounts, strict=True):
            if account.kept is not None:
                account.kept = account.kept.to(entry.tensor.device, copy=True)
        self.version = [entry.tensor._version for entry in self.entries]

    def _check(self) -> None:
        super()._check()
        self._needs(hasattr(self.penalty, "prox"), "it has no prox; use the factorized solver")
        check_metric(self.optimizer)

    def _look(self) -> None:
        """Finds for each tensor the steps to add up, so that its slowest weight moves at all.

        A weight moves by step·|∂R| per update, so it takes RESOLVED·eps·|w| / (step·|∂R|) updates
        to move by `RESOLVED` units in its last place. Where ∂R nearly vanishes, as for MCP beneath
        its knot, little is lost: |∂R| counts as at least 10 % of its largest, or not at all.
        """
        needed = [self._updates(entry).float() for entry in self.entries]
        for account, updates in zip(self.accounts, torch.stack(needed).tolist(), strict=True):
            account.interval = max(1, math.ceil(min(updates, 1e6)))
        self.look_at = self.count + LOOK_EVERY

    def _updates(self, entry: ScopedTensor) -> Tensor:
        size = float(self.group_of(entry)["lr"]) * self.strength
        with torch.enable_grad():
            w = entry.groups_first.detach().requires_grad_()
            value = self.penalty.value(w)
        step = self._step(entry, size)
        resting = not torch.is_tensor(step) and step == 0
        if resting or entry.tensor.numel() == 0 or not value.requires_grad:
            return torch.ones((), device=w.device)
        (pull,) = torch.autograd.grad(value, w)
        pull = torch.where(pull == 0, math.inf, pull.abs().clamp_min(0.1 * pull.abs().amax()))
        moved = entry.along(step) * pull
        updates = RESOLVED * torch.finfo(w.dtype).eps * w.detach().abs() / moved
        return updates.nan_to_num(0, 0, 0).amax()
