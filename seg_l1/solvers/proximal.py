"""The proximal solver: after each optimizer step the prox of the penalty, in the same metric.

w ← prox_{lr·α·λ·ω/D}(w), where D is the metric of the optimizer (`metric.py`). It lands on exact
zeros, and its fixed points are the stationary points of the written objective (the optima if it is
convex) under any optimizer (Combettes and Wajs, 2005). Autograd runs every `CHECK_EVERY` steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seg_l1.penalties import Zero
from seg_l1.scope import local
from seg_l1.solvers.base import Solver
from seg_l1.solvers.blocks import blocks
from seg_l1.solvers.metric import cache_steps, check_metric, prox_step
from seg_l1.solvers.versions import Versions

MIN_ULPS = 8
"""A shrinkage counts when it is at least so many units in the last place of the weight."""

CHECK_EVERY = 128
"""Steps between two checks of the resolution: each reads all weights, and waits for the device."""


@dataclass
class PendingStep:
    """Updates of one block that are not applied yet, since float32 would lose them one by one.

    Attributes:
        pending: sum of lr·strength of these updates.
        skipped: their number.
        interval: number of updates that are applied at once.
    """

    pending: float = 0.0
    skipped: int = 0
    interval: int = 1


@dataclass
class CachedMetric:
    """What was expensive to compute for one block, where the metric D is a tensor.

    Attributes:
        cached: scaled_lr/D; or for groups t/‖x_g‖ of `prox.group_soft_threshold`, by which
            w ← w/(1 + cached). None if there is nothing.
        scaled_lr: lr·strength for which it was computed.
        cache_age: number of updates since.
    """

    cached: Tensor | None = None
    scaled_lr: float = 0.0
    cache_age: int = 0


class Proximal(Solver):
    """Applies the prox after every optimizer step, or less often where a step would be lost.

    In float32, 0.1 − 1e-9 is 0.1: a step lr·α below the resolution of the weights would never have
    any effect. Where that is the case, the steps of a block are added up and applied at once.

    What is expensive to compute and changes slowly is cached for some steps (`cache_steps`):
    Adam's 1/D, and for groups in that metric the factors by which they shrink; a change of
    lr·strength scales both. Neither moves a fixed point, since there D and the norms of the groups
    stand still.
    """

    repeatable = True

    def _prepare(self) -> None:
        self.blocks = blocks(self.penalty, self.penalized_tensors)
        self.weights = [scoped.tensor for scoped in self.penalized_tensors]
        self.across_tensors: bool = getattr(self.penalty, "across_tensors", False)
        self.caches_factors: bool = getattr(self.penalty, "scales", False)
        self.next_checks = [0] * len(self.blocks)
        self.pending_steps = [PendingStep() for _ in self.blocks]
        self.caches = [CachedMetric() for _ in self.blocks]
        self.versions = Versions(self.penalized_tensors)

    def before_step(self) -> None:
        """Drops the cached factors of weights that somebody has written since."""
        if self.caches_factors:
            for block, cache in zip(self.blocks, self.caches, strict=True):
                changed = any(self.versions.changed(index) for index in block.indices)
                cache.cached = None if changed else cache.cached

    def after_step(self) -> None:
        """Adds the step of this update to those pending, and applies them where they are due."""
        moving, checks = self.is_stepping, self.next_checks
        stepping = [
            number
            for number, block in enumerate(self.blocks)
            if any(moving[index] for index in block.indices)
        ]
        if self.strength:
            self._update_intervals([n for n in stepping if self._count(n) >= checks[n]])
        ages: dict[tuple[int, int], int] = {}
        for number in stepping:
            step = self.pending_steps[number]
            step.pending += self._lr(number) * self.strength
            if step.pending == 0:
                continue
            step.skipped += 1
            if step.skipped >= step.interval:
                self._apply_pending(number, self._cache_steps(number, ages))
        if self.caches_factors:
            self.versions.record_all()

    @torch.no_grad()
    def flush(self) -> None:
        """Sets the weights to zero that the pending steps would set to zero.

        The shrinkage of other weights stays pending: applied now, it would be lost in rounding.
        """
        owned = self._all_groups()
        for number, (block, step) in enumerate(zip(self.blocks, self.pending_steps, strict=True)):
            members = [self.weights[index] for index in block.indices]
            if step.skipped and all(t.requires_grad and id(t) in owned for t in members):
                w = block.gather(self.weights)
                threshold = block.along(self._threshold(number, step.pending))
                w.masked_fill_(self.penalty.prox(w, threshold) == 0, 0.0)
                block.store(w, self.weights, self.is_stepping)
            self.caches[number].cached = None

    def _count(self, number: int) -> int:
        """The steps that the optimizer has taken with a block."""
        indices = self.blocks[number].indices
        if len(indices) == 1:
            return self.counts[indices[0]]
        return max([self.counts[index] for index in indices])

    def _lr(self, number: int) -> float:
        """The learning rate of a block: of parameter groups that differ, the largest."""
        lrs = self._lrs(number)
        return lrs[0] if len(lrs) == 1 else max(lrs)

    def _lrs(self, number: int) -> list[float]:
        members = [self.penalized_tensors[index] for index in self.blocks[number].indices]
        return [float(self.group_of(scoped)["lr"]) for scoped in members]

    def _cache_steps(self, number: int, known: dict[tuple[int, int], int]) -> int:
        """`cache_steps` of a block, which is asked once per step for all blocks that are alike."""
        group = self.group_of(self.penalized_tensors[self.blocks[number].indices[0]])
        key = (id(group), self._count(number))
        if key not in known:
            known[key] = cache_steps(self.optimizer, group, key[1])
        return known[key]

    def _apply_pending(self, number: int, most: int) -> None:
        """Applies the pending steps of a block; `most` is how old its cache may become."""
        block, step, cache = self.blocks[number], self.pending_steps[number], self.caches[number]
        scaled_lr = step.pending
        ratio = scaled_lr / cache.scaled_lr if cache.cached is not None else 1.0
        # factors cached for a very different lr·strength would magnify their rounding error
        far = self.caches_factors and not 0.25 <= ratio <= 4
        w = block.gather(self.weights)
        if cache.cached is None or cache.cache_age >= most or far:
            self._apply_and_cache(number, w, scaled_lr)
        elif self.caches_factors:
            w.div_(torch.add(w.new_ones(()), cache.cached, alpha=ratio))
        else:
            if scaled_lr != cache.scaled_lr:
                cache.cached.mul_(ratio)
                cache.scaled_lr = scaled_lr
            self.penalty.prox(w, block.along(cache.cached), out=w)
        block.store(w, self.weights, self.is_stepping)
        cache.cache_age += 1
        step.pending, step.skipped = 0.0, 0

    def _apply_and_cache(self, number: int, w: Tensor, scaled_lr: float) -> None:
        """Applies the prox to `w`, which is what the block gathers."""
        cache, threshold = self.caches[number], self._threshold(number, scaled_lr)
        step = self.blocks[number].along(threshold)
        cache.cached, cache.scaled_lr, cache.cache_age = None, scaled_lr, 0
        if not isinstance(threshold, Tensor):
            self.penalty.prox(w, step, out=w)
        elif self.caches_factors:
            before = w.clone()
            self.penalty.prox(w, step, out=w)
            cache.cached = (before / w).sub_(1).nan_to_num_(math.inf, math.inf)
        else:
            self.penalty.prox(w, step, out=w)
            cache.cached = threshold

    def _threshold(self, number: int, scaled_lr: float) -> float | Tensor:
        """The step of the prox, in the optimizer's metric where the penalty is in the objective.

        It is 0 for tensors that do not take part in the step, if others of the block do.

        Args:
            scaled_lr: lr·strength, with the learning rate of the block.
        """
        block = self.blocks[number]
        scaled_lr *= block.factor
        if not self._needs_metric:
            return scaled_lr
        if len(block.indices) == 1:
            return self._step_of(block.indices[0], scaled_lr)
        lrs, largest = self._lrs(number), self._lr(number)
        return block.join(
            [
                self._step_of(index, scaled_lr * (lr / largest if largest else 1.0))
                for index, lr in zip(block.indices, lrs, strict=True)
            ]
        )

    def _step_of(self, index: int, scaled_lr: float) -> float | Tensor:
        """The step of one tensor, in the metric of the optimizer."""
        scoped = self.penalized_tensors[index]
        if self.across_tensors and not self.is_stepping[index]:
            return 0.0
        step = prox_step(
            self.optimizer, self.group_of(scoped), scoped.tensor, scaled_lr, self.counts[index]
        )
        return local(step) if isinstance(step, Tensor) else step

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "next_checks": list(self.next_checks),
            "pending_steps": [dict(vars(step)) for step in self.pending_steps],
            "caches": [dict(vars(cache)) for cache in self.caches],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        state = _renamed(state)
        self.next_checks = list(state["next_checks"])
        self.pending_steps = [PendingStep(**step) for step in state["pending_steps"]]
        self.caches = [CachedMetric(**cache) for cache in state["caches"]]
        for block, cache in zip(self.blocks, self.caches, strict=True):
            if cache.cached is not None:
                device = self.weights[block.indices[0]].device
                cache.cached = cache.cached.to(device, copy=True)
        self.versions.record_all()

    def _check(self) -> None:
        super()._check()
        self._require(hasattr(self.penalty, "prox"), "it has no prox; use the factorized solver")
        if self._needs_metric:
            check_metric(self.optimizer)

    @property
    def _needs_metric(self) -> bool:
        return not (isinstance(self.penalty, Zero) or getattr(self.penalty, "decoupled", False))

    def _update_intervals(self, due: Sequence[int]) -> None:
        """Sets how many steps to add up in the `due` blocks, so that even the slowest weight moves.

        A weight moves by step·|∂R| per update, so it takes MIN_ULPS·eps·|w| / (step·|∂R|) updates
        to move by `MIN_ULPS` units in its last place. Where ∂R nearly vanishes, as for MCP beneath
        its knot, little is lost: |∂R| counts as at least 10 % of its largest, or not at all.
        """
        if not due:
            return
        needed = [self._updates(number).float() for number in due]
        for number, updates in zip(due, torch.stack(needed).tolist(), strict=True):
            self.pending_steps[number].interval = max(1, math.ceil(min(updates, 1e6)))
            self.next_checks[number] = self._count(number) + CHECK_EVERY

    def _updates(self, number: int) -> Tensor:
        """The updates, as a 0-d tensor, in which the slowest weight moves by `MIN_ULPS`."""
        block = self.blocks[number]
        with torch.enable_grad():
            w = block.gather(self.weights).detach().requires_grad_()
            value = self.penalty.value(w)
        threshold = self._threshold(number, self._lr(number) * self.strength)
        resting = not isinstance(threshold, Tensor) and threshold == 0
        if resting or w.numel() == 0 or not value.requires_grad:
            return torch.ones((), device=w.device)
        (subgrad,) = torch.autograd.grad(value, w)
        least = 0.1 * subgrad.abs().amax()
        subgrad = torch.where(subgrad == 0, math.inf, subgrad.abs().clamp_min(least))
        moved = block.along(threshold) * subgrad
        updates = MIN_ULPS * torch.finfo(w.dtype).eps * w.detach().abs() / moved
        return updates.nan_to_num(0, 0, 0).amax()


def _renamed(state: dict[str, Any]) -> dict[str, Any]:
    """The state under the names of today; older ones have `next_check`, or even `accounts`."""
    if "next_checks" in state:
        return state
    if "next_check" in state:
        return {**state, "next_checks": [state["next_check"]] * len(state["caches"])}
    pending = {"pending": "owed", "skipped": "waited", "interval": "interval"}
    cache = {"cached": "kept", "scaled_lr": "size", "cache_age": "age"}
    accounts = state["accounts"]
    return {
        "next_checks": [state["look_at"]] * len(accounts),
        "pending_steps": [{new: a[old] for new, old in pending.items()} for a in accounts],
        "caches": [{new: a[old] for new, old in cache.items()} for a in accounts],
    }
