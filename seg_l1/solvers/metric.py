"""The metric of an optimizer: how far one unit of gradient moves a weight.

An optimizer whose steady step is w ← w − lr·g/D minimises f + strength·R only if the prox that
follows takes the same metric: its step is lr·strength/D, coordinate by coordinate. D is 1 for
SGD, 1 − β for heavy-ball momentum, √v̂ + ε for Adam (Duchi, Hazan, Singer, 2011; Yun, Lozano,
Yang, 2021).
With another D the run solves a problem with another α (`tests/test_solvers.py` shows it).
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer


@singledispatch
def prox_step(
    optimizer: Optimizer, group: dict[str, Any], tensor: Tensor, size: float, count: int
) -> float | Tensor:
    """Returns size/D: what `size` = lr·strength becomes in the metric of `optimizer`.

    Register another optimizer with `@prox_step.register`; it is asked after each of its steps.

    Args:
        group: the parameter group of `tensor`.
        count: steps that the optimizer has taken, this one included.

    Raises:
        TypeError: if the metric of the optimizer is unknown.
    """
    known = ", ".join(sorted(kind.__name__ for kind in prox_step.registry if kind is not object))
    raise TypeError(
        f"the proximal solver does not know the metric of {type(optimizer).__name__};"
        f" known are {known}. Use regularizer.solver=subgradient, or register the metric with"
        " seg_l1.solvers.metric.prox_step.register."
    )


@prox_step.register
def _(optimizer: SGD, group: dict[str, Any], tensor: Tensor, size: float, count: int) -> float:
    """Heavy ball: the share of lr·g that has arrived after `count` steps of a constant g.

    The buffer starts with g itself and takes (1 − dampening)·g from then on; without momentum
    there is no buffer, and torch ignores dampening.
    """
    beta, dampening = group["momentum"], group["dampening"]
    if beta == 0:
        return size
    first = beta ** (count - 1)
    arrived = first + (1 - dampening) * (1 - first) / (1 - beta)
    return size * (1 + beta * arrived if group["nesterov"] else arrived)


@prox_step.register(Adam)
@prox_step.register(AdamW)
def _(
    optimizer: Adam, group: dict[str, Any], tensor: Tensor, size: float, count: int
) -> float | Tensor:
    """size/(√v̂ + ε), with v̂ = v/(1 − β₂ᵗ), in one buffer."""
    state = optimizer.state.get(tensor)
    if not state:
        return size / group["eps"]
    second = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
    correction = (1 - group["betas"][1] ** float(state["step"])) ** 0.5
    metric = second.sqrt().add_(group["eps"] * correction)
    return metric.reciprocal_().mul_(size * correction)
