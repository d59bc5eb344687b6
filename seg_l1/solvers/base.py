"""What all solvers share: their place at the optimizer, refusals, clipping and saved state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, SupportsIndex
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from seg_l1.penalties import Penalty
from seg_l1.scope import ScopedTensor


class Solver:
    """A penalty at an optimizer: from now on `optimizer.step()` applies it.

    It uses the optimizer's own step hooks. A step that a GradScaler skips calls no hook, and so
    skips the penalty too. A tensor that is frozen later (`requires_grad_(False)`) is left alone.

    Args:
        penalty: R.
        tensors: of these the penalized ones, which the optimizer must own.
        optimizer: it takes the step of the data term.
        strength: α·λ(t). May be changed at any time; counts from the next step on.

    Attributes:
        penalized_tensors: the tensors that the penalty acts on.
        count: steps that the optimizer has taken with this solver; very large if it had taken
            steps before.
        clip_factor: by how much the gradients of the coming step were clipped.

    Raises:
        TypeError: if the solver cannot apply this penalty, or does not know the optimizer.
        ValueError: if the three do not fit together, or if one of the tensors has a penalty there.
    """

    reads_gradients = False
    """Whether `before_step` needs the gradients of the data term, unscaled."""

    takes_closure = False
    """Whether `optimizer.step(closure)` may compute the loss between the two hooks."""

    def __init__(
        self,
        penalty: Penalty,
        tensors: Sequence[ScopedTensor],
        optimizer: Optimizer,
        *,
        strength: float = 0.0,
    ) -> None:
        self.penalty, self.optimizer, self.strength = penalty, optimizer, strength
        self.penalized_tensors = [scoped for scoped in tensors if scoped.penalized]
        # an optimizer that has stepped before is past the filling of its momentum buffers
        self.count = _MANY_STEPS if optimizer.state else 0
        self.clip_factor = 1.0
        self._check()
        self._prepare()
        self._hooks = [
            optimizer.register_step_pre_hook(self._on_start),
            optimizer.register_step_post_hook(self._on_end),
        ]
        _attached.add(self)

    def before_step(self) -> None:
        """Called before every optimizer step, when its gradients are complete and clipped."""

    def after_step(self) -> None:
        """Called after every optimizer step that was not skipped."""

    def skipped(self) -> None:
        """Called in place of `after_step` where a fused optimizer was called and did nothing."""

    def flush(self) -> None:
        """Called before weights are evaluated or saved, as at the end of an epoch."""

    def detach(self) -> None:
        """Takes the penalty off the optimizer."""
        for hook in self._hooks:
            hook.remove()
        _attached.discard(self)

    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """Clips the gradients of the optimizer's parameters to a norm; returns the norm before.

        Every penalty at this optimizer takes the same factor in its next step: otherwise clipping
        the gradient of the data term would raise α.
        """
        weights = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(weights, max_norm)
        factor = min(1.0, max_norm / (float(norm) + 1e-6)) if norm.isfinite() else 1.0
        for solver in _attached:
            if solver.optimizer is self.optimizer:
                solver.clip_factor = factor
        return norm

    def state_dict(self) -> dict[str, Any]:
        """What the next steps depend on, beside weights and optimizer; the strength too."""
        return {"count": self.count, "strength": self.strength}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a `state_dict`; its tensors are copied."""
        self.count, self.strength = state["count"], state["strength"]

    def group_of(self, scoped: ScopedTensor) -> dict[str, Any]:
        """The optimizer's parameter group that holds the tensor."""
        return self.optimizer.param_groups[self._group_index[id(scoped.tensor)]]

    def scaled_lr(self, scoped: ScopedTensor) -> float:
        """lr·strength in the tensor's parameter group."""
        return float(self.group_of(scoped)["lr"]) * self.strength

    def _prepare(self) -> None:
        """Makes what the solver keeps per tensor; called once, when all checks have passed."""

    @torch.no_grad()
    def _on_start(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        kind = type(self).__name__.lower()
        if self.reads_gradients and getattr(optimizer, "grad_scale", None) is not None:
            raise ValueError(f"{kind} needs true gradients: call scaler.unscale_(optimizer) first")
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is not None and not self.takes_closure:
            raise ValueError(f"{kind} does not work with optimizer.step(closure)")
        with self._clipped():
            self.before_step()

    @torch.no_grad()
    def _on_end(self, optimizer: Optimizer, *_: Any) -> None:
        # a fused optimizer is called by the scaler even when it is to skip the step
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is not None and bool(found_inf):
            self.skipped()
        else:
            self.count += 1
            with self._clipped():
                self.after_step()
        self.clip_factor = 1.0

    @contextmanager
    def _clipped(self) -> Iterator[None]:
        """The strength of one step, beside gradients that were clipped."""
        unclipped = self.strength
        self.strength = unclipped * self.clip_factor
        try:
            yield
        finally:
            self.strength = unclipped

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            "a solver belongs to its optimizer and is not copied or pickled, and a copy of the"
            " optimizer has no penalty: attach a new one there, and load this one's state_dict()"
        )

    def _check(self) -> None:
        """Refuses a penalty or an optimizer that the solver cannot serve."""
        groups = self.optimizer.param_groups
        self._group_index = {
            id(p): index for index, group in enumerate(groups) for p in group["params"]
        }
        kind, penalty = type(self).__name__.lower(), type(self.penalty).__name__
        others = (solver for solver in _attached if solver.optimizer is self.optimizer)
        taken = {id(scoped.tensor) for solver in others for scoped in solver.penalized_tensors}
        for scoped in self.penalized_tensors:
            if id(scoped.tensor) not in self._group_index:
                raise ValueError(f"the optimizer does not own the penalized tensor {scoped.name}")
            if id(scoped.tensor) in taken:
                raise ValueError(
                    f"{scoped.name} has a penalty at this optimizer already: call its solver's"
                    " detach() first, or change its strength"
                )
            if getattr(self.penalty, "grouped", False) and scoped.no_group_reason:
                raise ValueError(
                    f"{penalty} needs the output channels of {scoped.name}, but"
                    f" {scoped.no_group_reason}: leave it out, by Rule(penalize=False) or"
                    " {penalize: false}"
                )
        if any(group.get("maximize") for group in groups):
            raise ValueError(f"the {kind} solver minimizes: maximize=True makes no sense with it")

    def _require(self, condition: bool, why: str) -> None:
        if not condition:
            kind, penalty = type(self).__name__.lower(), type(self.penalty).__name__
            raise TypeError(f"the {kind} solver cannot carry out {penalty}: {why}")


_MANY_STEPS = 2**31

_attached: WeakSet[Solver] = WeakSet()
"""Which solvers hang on an optimizer; the optimizers' hooks keep them alive."""


def weight_decay(optimizer: Optimizer) -> float:
    """The largest decay that the optimizer itself applies."""
    return max(float(group.get("weight_decay") or 0.0) for group in optimizer.param_groups)
