"""The metric of an optimizer: how far one unit of gradient moves a weight.

An optimizer whose steady step is w ← w − lr·g/D minimizes f + strength·R only if the prox that
follows takes the same metric: its step is lr·strength/D, coordinate by coordinate. D is 1 for
SGD, 1 − β for heavy-ball momentum, √v̂ + ε for Adam (Duchi, Hazan, Singer, 2011; Yun, Lozano,
Yang, 2021). With a wrong D the run minimizes the objective of another α
(`tests/test_optima.py` shows it).
"""

from __future__ import annotations

import inspect
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor
from torch.optim import (
    SGD,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
)


@singledispatch
def prox_step(
    optimizer: Optimizer, group: dict[str, Any], tensor: Tensor, scaled_lr: float, count: int
) -> float | Tensor:
    """Returns scaled_lr/D: what lr·strength becomes in the metric of `optimizer`.

    0 for a tensor that the optimizer has not stepped yet and whose metric it therefore lacks.
    Register another optimizer with `@prox_step.register`; it is asked after each of its steps.

    Args:
        group: the parameter group of `tensor`.
        scaled_lr: lr·strength.
        count: steps that the optimizer has taken with this tensor, this one included.

    Raises:
        TypeError: if the metric of the optimizer is unknown.
    """
    raise TypeError(_unknown(type(optimizer)))


def check_metric(optimizer: Optimizer) -> None:
    """Raises `TypeError` if the metric of `optimizer` is unknown, before any step is taken.

    A subclass has the metric of its parent unless it takes its steps in another way.
    """
    kind = type(optimizer)
    parent: Any = next(base for base in kind.__mro__ if base in prox_step.registry)
    if parent is object:
        raise TypeError(_unknown(kind))
    if inspect.unwrap(kind.step) is not inspect.unwrap(parent.step):
        raise TypeError(
            f"{kind.__name__} takes its steps differently than {parent.__name__}, so its metric"
            f" may differ too. {_REGISTER}"
        )


def _unknown(kind: type) -> str:
    if any(base.__name__ == "Muon" for base in kind.__mro__):
        return (
            "Muon orthogonalizes the update of a whole matrix, so that no learning rate belongs to"
            " a single weight and no prox fits. Use the subgradient solver, or another optimizer"
            " for the penalized tensors."
        )
    known = {entry.__name__ for entry in prox_step.registry if entry.__module__[:5] == "torch"}
    return (
        f"the metric of {kind.__name__} is not known; known are {', '.join(sorted(known))}."
        f" {_REGISTER}"
    )


_REGISTER = (
    "Use the subgradient solver, or register the metric with"
    " seg_l1.solvers.metric.prox_step.register; for train.py, name its function as"
    " +optimizer.metric=<module>.<function>."
)


def cache_steps(optimizer: Optimizer, group: dict[str, Any], count: int) -> int:
    """Steps for which a metric may be cached: up to 8 for Adam and its variants, 1 for others.

    v̂ forgets the share 1 − β₂ of itself per step, and may forget 1 % in these steps. The factors
    of NAdam and RAdam change by less than 0.5/count per step. A cached metric is still a metric: it
    moves no fixed point.
    """
    if not isinstance(optimizer, Adam | AdamW | NAdam | RAdam):
        return 1
    steps = 0.01 / max(1e-9, 1 - float(group["betas"][1]))
    if isinstance(optimizer, NAdam | RAdam):
        steps = min(steps, 0.02 * count)
    return max(1, min(8, int(steps)))


@prox_step.register
def _(optimizer: SGD, group: dict[str, Any], tensor: Tensor, scaled_lr: float, count: int) -> float:
    """Heavy ball: the share of lr·g that has arrived after `count` steps of a constant g.

    The buffer starts with g itself and takes (1 − dampening)·g from then on; without momentum
    there is no buffer, and torch ignores dampening.
    """
    beta, dampening = group["momentum"], group["dampening"]
    if beta == 0:
        return scaled_lr
    first = beta ** (count - 1)
    arrived = first + (1 - dampening) * (1 - first) / (1 - beta)
    return scaled_lr * (1 + beta * arrived if group["nesterov"] else arrived)


@prox_step.register(Adam)
@prox_step.register(AdamW)
def _(
    optimizer: Adam, group: dict[str, Any], tensor: Tensor, scaled_lr: float, count: int
) -> float | Tensor:
    """scaled_lr/(√v̂ + ε), with v̂ = v/(1 − β₂ᵗ)."""
    state = optimizer.state.get(tensor)
    if not state:
        return 0.0
    second = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
    correction = (1 - float(group["betas"][1]) ** _steps_taken(state)) ** 0.5
    return _divided(scaled_lr * correction, second, group["eps"] * correction)


@prox_step.register
def _(
    optimizer: NAdam, group: dict[str, Any], tensor: Tensor, scaled_lr: float, count: int
) -> float | Tensor:
    """scaled_lr·c/(√v̂ + ε), where c·g is the numerator of the step after t steps of a constant g.

    c = (1 − μ_t)/(1 − μ_1⋯μ_t) + μ_{t+1}·(1 − β₁ᵗ)/(1 − μ_1⋯μ_{t+1}) goes from 1 by way of 0.84 to
    1, since both averages are corrected for another bias than they have.
    """
    state = optimizer.state.get(tensor)
    if not state:
        return 0.0
    taken, product = _steps_taken(state), _number(state["mu_product"])
    (beta1, beta2), decay = map(float, group["betas"]), group["momentum_decay"]
    mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (t * decay)) for t in (taken, taken + 1))
    numerator = (1 - mu) / (1 - product) + mu_next * (1 - beta1**taken) / (1 - product * mu_next)
    correction = (1 - beta2**taken) ** 0.5
    scale = scaled_lr * correction * numerator
    return _divided(scale, state["exp_avg_sq"], group["eps"] * correction)


@prox_step.register
def _(
    optimizer: RAdam, group: dict[str, Any], tensor: Tensor, scaled_lr: float, count: int
) -> float | Tensor:
    """scaled_lr·r·√(1 − β₂ᵗ)/(√v + ε), r the rectification; scaled_lr while that is undefined.

    It is undefined for the first 5 steps of the usual β₂, which are those of SGD.
    """
    state = optimizer.state.get(tensor)
    if not state:
        return 0.0
    taken, beta2 = _steps_taken(state), float(group["betas"][1])
    correction = 1 - beta2**taken
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * taken * beta2**taken / correction
    if not isinstance(length, Tensor) and length <= 5:
        return scaled_lr
    rate = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
    scale = scaled_lr * (rate * correction) ** 0.5
    adapted = _divided(scale, state["exp_avg_sq"], group["eps"])
    return torch.where(length > 5, adapted, scaled_lr) if isinstance(length, Tensor) else adapted


@prox_step.register
def _(
    optimizer: RMSprop, group: dict[str, Any], tensor: Tensor, scaled_lr: float, count: int
) -> float | Tensor:
    """scaled_lr·(1 − βᵗ)/(1 − β)/(√v + ε); of v the centered variant takes off the squared mean.

    The heavy ball runs over steps g/D, so that its factor is exact once D stands still.
    """
    state = optimizer.state.get(tensor)
    if not state:
        return 0.0
    second, beta = state["square_avg"], group["momentum"]
    if group["centered"]:
        second = second.addcmul(state["grad_avg"], state["grad_avg"], value=-1)
    if beta:
        scaled_lr *= (1 - beta ** _steps_taken(state)) / (1 - beta)
    return _divided(scaled_lr, second, group["eps"])


@prox_step.register
def _(
    optimizer: Adagrad, group: dict[str, Any], tensor: Tensor, scaled_lr: float, count: int
) -> float | Tensor:
    """scaled_lr/(1 + (t − 1)·lr_decay)/(√(sum of g²) + ε)."""
    state = optimizer.state.get(tensor)
    if not state:
        return 0.0
    taken = _steps_taken(state)
    if not isinstance(taken, Tensor) and taken == 0:
        return 0.0  # the sum is there from the start
    scale = scaled_lr * (taken > 0) / (1 + (taken - 1) * group["lr_decay"])
    return _divided(scale, state["sum"], group["eps"])


@prox_step.register
def _(
    optimizer: Adamax, group: dict[str, Any], tensor: Tensor, scaled_lr: float, count: int
) -> float | Tensor:
    """scaled_lr/u, u the decaying maximum of |g| + ε."""
    state = optimizer.state.get(tensor)
    return state["exp_inf"].reciprocal().mul_(scaled_lr) if state else 0.0


def _divided(scale: float | Tensor, second: Tensor, eps: float | Tensor) -> Tensor:
    """scale/(√second + eps), in one buffer."""
    return second.sqrt().add_(eps).reciprocal_().mul_(scale)


def _steps_taken(state: dict[str, Any]) -> Any:
    """The optimizer's own count of steps, see `_number`."""
    return _number(state["step"])


def _number(value: Tensor | float) -> Any:
    """A number, but a 0-d tensor where it lies on another device.

    Fused and capturable optimizers keep it beside the weights, and reading it would wait for them.
    """
    return value if isinstance(value, Tensor) and not value.is_cpu else float(value)
