"""Optimizers that wrap another one: a penalty belongs to the one that takes the step."""

from __future__ import annotations

import sys
from typing import Any

from torch.optim import Optimizer

TRANSPARENT = frozenset(("AcceleratedOptimizer", "LightningOptimizer", "_FabricOptimizer"))
"""Wrappers, by class name, whose step is that of the optimizer in them, or none."""

REWRITING = frozenset(("ZeroRedundancyOptimizer", "PostLocalSGDOptimizer", "Lookahead"))
"""Wrappers that write weights after the step of the optimizer in them."""

_ATTRIBUTES = ("optimizer", "_optimizer", "optim", "base_optimizer")


def unwrapped(optimizer: Any) -> Optimizer:
    """Returns the optimizer that takes the step: of accelerate's and Lightning's, the one inside.

    Raises:
        TypeError: if it is none of torch's, or a wrapper that is not known.
    """
    name = _inner(optimizer)
    if name is not None:
        inner = getattr(optimizer, name)
        kinds = {kind.__name__ for kind in type(optimizer).__mro__}
        wrapper, wrapped = type(optimizer).__name__, type(inner).__name__
        if kinds & TRANSPARENT:
            return unwrapped(inner)
        if kinds & REWRITING:
            raise TypeError(
                f"optimizer: {wrapper} writes the weights after the step of {wrapped}, so that"
                " zeros would be lost: train with the plain optimizer (to shard it, use"
                " fully_shard)"
            )
        raise TypeError(
            f"optimizer: {wrapper} wraps {wrapped}, and the penalty belongs to the one that takes"
            f" the step: call attach(optimizer.{name}, ...), or attach before wrapping"
        )
    if not isinstance(optimizer, Optimizer) or not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        raise TypeError(
            f"optimizer: got {type(optimizer).__name__}, expected an optimizer of torch.optim; if"
            " it wraps one, attach to that before wrapping"
        )
    return optimizer


def is_nested(optimizer: Optimizer) -> bool:
    """Whether the step whose hook is running was called by another step of the same optimizer.

    torch calls the hooks in both where a subclass calls `super().step()`, if an optimizer of the
    parent class was ever made. The penalty belongs to the outermost of them.
    """
    steps = [vars(kind).get("step") for kind in type(optimizer).__mro__]
    if sum(hasattr(step, "hooked") for step in steps) < 2:
        return False
    frame, depth = sys._getframe(1), 0
    codes = {step.__code__ for step in steps if step is not None and hasattr(step, "hooked")}
    while frame := frame.f_back:  # type: ignore[assignment]  # None at the end
        depth += frame.f_code in codes and frame.f_locals.get("self") is optimizer
    return depth > 1


def _inner(optimizer: Any) -> str | None:
    """The attribute that holds the wrapped optimizer, or None."""
    for name in _ATTRIBUTES:
        inner = getattr(optimizer, name, None)
        if inner is not optimizer and (isinstance(inner, Optimizer) or _holds_groups(inner)):
            return name
    return None


def _holds_groups(inner: Any) -> bool:
    return hasattr(inner, "param_groups") and hasattr(inner, "step")
