"""What all solvers share: their place at the optimizer, refusals, clipping and saved state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import add
from typing import Any, NoReturn, SupportsIndex
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from seg_l1.errors import finite_number
from seg_l1.penalties import Penalty
from seg_l1.scope import ScopedTensor, left_out, penalized_share
from seg_l1.solvers.checks import REPEATED, check_dtype, check_optimizer, check_tensor, name_of
from seg_l1.solvers.wrappers import is_nested, unwrapped


class Solver:
    """A penalty at an optimizer: from now on `optimizer.step()` applies it.

    It uses the optimizer's own step hooks. A step that a GradScaler skips calls no hook, and so
    skips the penalty too. Like the optimizer itself, it leaves alone tensors that have no gradient
    in a step (`grad` is None) or are frozen later (`requires_grad_(False)`).

    Args:
        penalty: R.
        tensors: what `scope` returned; the optimizer must own the penalized ones.
        optimizer: takes the step of the data term. The wrappers of accelerate and Lightning are
            unwrapped.
        strength: α·λ(t), a finite number ≥ 0. May be changed at any time; takes effect in the next
            step.

    Attributes:
        tensors: those that were given, penalized or not.
        penalized_tensors: the tensors that the penalty acts on.
        counts: steps that the optimizer has taken with each penalized tensor; very large if it had
            taken steps before the solver was attached.
        is_stepping: for each, whether it takes part in the present (or took part in the last) step.
        clip_factor: the factor by which the gradients of the coming step were clipped.

    Raises:
        TypeError: if the solver cannot apply this penalty, or does not know the optimizer, or if
            weights are not float32 or float64.
        ValueError: if these do not fit together, or a tensor already has a penalty at `optimizer`.
    """

    reads_gradients = False
    """Whether `before_step` needs the gradients of the data term, unscaled."""

    repeatable = False
    """Whether `before_step` may be called several times in a step, as often as a closure is."""

    def __init__(
        self,
        penalty: Penalty,
        tensors: Sequence[ScopedTensor],
        optimizer: Optimizer,
        *,
        strength: float = 0.0,
    ) -> None:
        self.penalty, self.optimizer, self.strength = penalty, unwrapped(optimizer), strength
        self.tensors = list(tensors)
        self.penalized_tensors = [scoped for scoped in tensors if scoped.penalized]
        # a tensor that has stepped before is past the filling of its momentum buffer
        state = self.optimizer.state
        self.counts = [_MANY_STEPS * (s.tensor in state) for s in self.penalized_tensors]
        self.is_stepping = [False] * len(self.counts)
        self.clip_factor = 1.0
        self._groups: dict[int, dict[str, Any]] | None = None
        self._begun = False
        self._wrapper = None if self.optimizer is optimizer else type(optimizer).__name__
        self._check()
        self._prepare()
        self._hooks = [
            self.optimizer.register_step_pre_hook(self._on_start),
            self.optimizer.register_step_post_hook(self._on_end),
        ]
        _attached.add(self)

    @property
    def strength(self) -> float:
        return self._strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._strength = finite_number("strength", value)

    @property
    def entries(self) -> list[ScopedTensor]:
        """The former name of `penalized_tensors`."""
        return self.penalized_tensors

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

    def summary(self) -> str:
        """What is penalized: the share of the weights, and each tensor that is left out.

        The share is of the trainable weights in tensors of two or more axes; vectors, as biases
        are, count only if they are penalized.
        """
        kind, penalty = type(self).__name__, type(self.penalty).__name__
        share = 100 * penalized_share(self.tensors)
        lines = [f"{kind}, {penalty}, strength {self.strength:g}: {share:.1f} % of the weights"]
        for scoped in left_out(self.tensors):
            size = f"{scoped.tensor.numel():,}"
            lines.append(f"  not penalized: {scoped.name} ({scoped.kind.__name__}, {size})")
        return "\n".join(lines)

    def clip_grad_norm_(self, max_norm: float) -> Tensor:
        """Clips the gradients of the optimizer's parameters to a norm; returns the norm before.

        Every penalty at this optimizer takes the same factor in its next step: otherwise clipping
        the gradient of the data term would raise α.
        """
        if not max_norm >= 0:
            raise ValueError(f"max_norm: got {max_norm}, expected a number of at least 0")
        if any(scoped.flat for scoped in self.tensors):
            raise ValueError(
                "clip_grad_norm_ sees only one process's shard: use norm = model.clip_grad_norm_(m)"
                " and set solver.clip_factor = min(1.0, m / (float(norm) + 1e-6)) instead"
            )
        weights = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(weights, max_norm)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        factor = min(1.0, max_norm / (float(norm) + 1e-6)) if norm.isfinite() else 1.0
        for solver in _attached:
            if solver.optimizer is self.optimizer:
                solver.clip_factor = factor
        return norm

    def state_dict(self) -> dict[str, Any]:
        """What the next steps depend on, beside weights and optimizer; the strength too."""
        return {"counts": list(self.counts), "strength": self.strength}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over a `state_dict`; its tensors are copied."""
        # older checkpoints have one `count` for all tensors
        size = len(self.counts)
        counts = list(state["counts"]) if "counts" in state else [state["count"]] * size
        if len(counts) != size:
            raise ValueError(f"the state is of {len(counts)} penalized tensors, here are {size}")
        self.counts, self.strength = counts, state["strength"]

    def group_of(self, scoped: ScopedTensor) -> dict[str, Any]:
        """The optimizer's parameter group that holds the tensor.

        Raises:
            ValueError: if the optimizer does not own it any more.
        """
        group = (self._groups or self._all_groups()).get(id(scoped.tensor))
        if group is None:
            raise ValueError(f"the optimizer does not own the penalized tensor {scoped.name}")
        return group

    def scaled_lr(self, scoped: ScopedTensor) -> float:
        """lr·strength in the tensor's parameter group."""
        return float(self.group_of(scoped)["lr"]) * self.strength

    def _all_groups(self) -> dict[int, dict[str, Any]]:
        """The parameter group of each tensor, by its id."""
        groups = self.optimizer.param_groups
        return {id(p): group for group in groups for p in group["params"]}

    def _prepare(self) -> None:
        """Makes what the solver keeps per tensor; called once, when all checks have passed."""

    @torch.no_grad()
    def _on_start(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if is_nested(optimizer):
            return None
        kind = name_of(self)
        if self.reads_gradients and getattr(optimizer, "grad_scale", None) is not None:
            raise ValueError(f"{kind} needs true gradients: call scaler.unscale_(optimizer) first")
        self._begun = False
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._begin()
            return None
        closure = self._with_penalty(closure)
        if len(args) > 1:
            return (args[0], closure, *args[2:]), kwargs
        return args, {**kwargs, "closure": closure}

    def _with_penalty(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """The closure, after which the gradients of the step are complete."""

        def closure_then_begin() -> Any:
            if self._begun and not self.repeatable:
                raise ValueError(REPEATED.format(name_of(self)))
            loss = closure()
            self._begin()
            return loss

        return closure_then_begin

    @torch.no_grad()
    def _begin(self) -> None:
        """Called when the gradients of the step are complete."""
        self._begun = True
        self._groups = self._all_groups()
        self.is_stepping = [self._takes_step(scoped) for scoped in self.penalized_tensors]
        owned = [id(scoped.tensor) in self._groups for scoped in self.penalized_tensors]
        if owned and not any(owned):
            raise ValueError(
                "the optimizer does not own the penalized tensors any more: attach after what"
                " replaced them, such as fully_shard or accelerator.prepare"
            )
        with self._clipped():
            self.before_step()

    def _takes_step(self, scoped: ScopedTensor) -> bool:
        tensor = scoped.tensor
        check_dtype(scoped)
        with_gradient = tensor.requires_grad and tensor.grad is not None
        return with_gradient and id(tensor) in (self._groups or ())

    @torch.no_grad()
    def _on_end(self, optimizer: Optimizer, *_: Any) -> None:
        if is_nested(optimizer):
            return
        if not self._begun and not self.repeatable:
            raise ValueError(f"{type(optimizer).__name__} did not call the closure of its step")
        if not self._begun:
            self._begin()
        # a fused optimizer is called by the scaler even when it is to skip the step
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is not None and bool(found_inf):
            self.skipped()
        else:
            self.counts = list(map(add, self.counts, self.is_stepping))
            with self._clipped():
                self.after_step()
        self.clip_factor = 1.0
        self._groups, self._begun = None, False

    @contextmanager
    def _clipped(self) -> Iterator[None]:
        """The strength of one step, beside gradients that were clipped."""
        unclipped = self._strength
        self._strength = unclipped * self.clip_factor
        try:
            yield
        finally:
            self._strength = unclipped

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            "a solver cannot be copied or pickled, and a copied optimizer has none: attach a new"
            " one to the copy, and load this one's state_dict() into it"
        )

    def _check(self) -> None:
        """Refuses a penalty or an optimizer that the solver cannot serve."""
        owned, called = self._all_groups(), "the optimizer"
        if self._wrapper:
            called = f"the {type(self.optimizer).__name__} that {self._wrapper} wraps"
        others = (solver for solver in _attached if solver.optimizer is self.optimizer)
        taken = {id(scoped.tensor) for solver in others for scoped in solver.penalized_tensors}
        for scoped in self.penalized_tensors:
            check_tensor(scoped, self.penalty, optimizer=called, owned=owned, taken=taken)
        kind = name_of(self)
        check_optimizer(self.optimizer, kind, repeatable=self.repeatable)

    def _require(self, condition: bool, why: str) -> None:
        if not condition:
            kind, penalty = name_of(self), type(self.penalty).__name__
            raise TypeError(f"the {kind} solver cannot carry out {penalty}: {why}")


_MANY_STEPS = 2**31

_attached: WeakSet[Solver] = WeakSet()
"""Which solvers hang on an optimizer; the optimizers' hooks keep them alive."""


def weight_decay(optimizer: Optimizer) -> float:
    """The largest decay that the optimizer itself applies."""
    return max(float(group.get("weight_decay") or 0.0) for group in optimizer.param_groups)
