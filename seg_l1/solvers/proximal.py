"""The proximal solver: after each optimizer step the prox of the penalty, in the same metric.

w ← prox_{lr·α·λ·ω/D}(w), where D is the metric of the optimizer (`metric.py`). It lands on exact
zeros, and its fixed points are the optima of the written objective whatever
the optimizer (Combettes and Wajs, 2005). No autograd but for a look every `LOOK_EVERY` steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from seg_l1.penalties import Penalty
from seg_l1.scope import ScopedTensor
from seg_l1.solvers.metric import prox_step

RESOLVED = 4
"""A shrinkage counts when it is at least so many units in the last place of the weight."""

LOOK_EVERY = 128
"""Steps between two looks at the resolution: each reads all weights, and waits for the device."""


class Proximal:
    """Applies the prox after every optimizer step, or less often where a step would be lost.

    In float32 0.1 − 1e-9 is 0.1: a step lr·α below the resolution of the weights would do nothing
    for ever. Where that threatens, the steps of several updates are added up and applied at once.

    Args:
        penalty: its `prox` is used.
        tensors: of these the penalised ones, which the optimizer must own.
        optimizer: any whose metric `prox_step` knows.

    Raises:
        TypeError: if the metric of the optimizer is unknown.
        ValueError: if the optimizer maximises, or does not own a penalised tensor.
    """

    def __init__(
        self, penalty: Penalty, tensors: Sequence[ScopedTensor], optimizer: Optimizer
    ) -> None:
        self.penalty = penalty
        self.optimizer = optimizer
        self.count = 0
        self.interval = 1
        self.look_at = 0
        self.waited = 0
        self.owed = [0.0] * len(optimizer.param_groups)
        owner = {
            id(tensor): index
            for index, group in enumerate(optimizer.param_groups)
            for tensor in group["params"]
        }
        missing = [e.name for e in tensors if e.penalized and id(e.tensor) not in owner]
        if missing:
            raise ValueError(f"the optimizer does not own the penalised tensor {missing[0]}")
        if any(group.get("maximize") for group in optimizer.param_groups):
            raise ValueError("the proximal solver minimises: maximize=True makes no sense with it")
        self.tensors = [(e, owner[id(e.tensor)]) for e in tensors if e.penalized]
        if prox_step.dispatch(type(optimizer)) is prox_step.dispatch(object):
            prox_step(optimizer, {}, torch.empty(0), 0.0, 1)

    def before_step(self, strength: float) -> None:
        pass

    @torch.no_grad()
    def after_step(self, strength: float) -> None:
        self.count += 1
        if strength == 0 and not self.waited:
            return
        for index, group in enumerate(self.optimizer.param_groups):
            self.owed[index] += float(group["lr"]) * strength
        if strength and self.count >= self.look_at:
            self.interval, self.look_at = self._interval(strength), self.count + LOOK_EVERY
        self.waited += 1
        if self.waited >= self.interval:
            self._apply(zeros_only=False)
            self.owed = [0.0] * len(self.owed)
            self.waited = 0

    @torch.no_grad()
    def flush(self) -> None:
        """Sets to zero what the prox would, where steps are still being added up.

        The other weights stay, and so does what they owe: paid now it would be lost in rounding.
        """
        if self.waited:
            self._apply(zeros_only=True)

    def _apply(self, *, zeros_only: bool) -> None:
        for entry, index in self.tensors:
            step = self._step(entry, index, self.owed[index])
            w = entry.groups_first
            if zeros_only:
                w.masked_fill_(self.penalty.prox(w, step) == 0, 0.0)
            else:
                self.penalty.prox(w, step, out=w)

    def state_dict(self) -> dict[str, Any]:
        names = ("count", "interval", "look_at", "waited", "owed")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def _step(self, entry: ScopedTensor, index: int, size: float) -> float | torch.Tensor:
        group = self.optimizer.param_groups[index]
        step = prox_step(self.optimizer, group, entry.tensor, size * entry.factor, self.count)
        return entry.along(step) if torch.is_tensor(step) else step

    def _interval(self, strength: float) -> int:
        """Steps to add up so that the slowest weight moves by `RESOLVED` units in its last place.

        A weight moves by step·|∂R| per update, so it needs RESOLVED·eps·|w| / (step·|∂R|) of them.
        """
        needed = [torch.ones(())]
        for entry, index in self.tensors:
            size = float(self.optimizer.param_groups[index]["lr"]) * strength
            if size == 0 or entry.tensor.numel() == 0:
                continue
            with torch.enable_grad():
                w = entry.groups_first.detach().requires_grad_()
                value = self.penalty.value(w)
            if not value.requires_grad:
                continue
            (pull,) = torch.autograd.grad(value, w)
            step = self._step(entry, index, size)
            updates = RESOLVED * torch.finfo(w.dtype).eps * w.abs() / (step * pull.abs())
            needed.append(updates.nan_to_num(0, 0, 0).amax().float().cpu())
        return math.ceil(min(float(torch.stack(needed).amax()), 1e6))
