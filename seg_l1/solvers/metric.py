"""The metric of an optimizer: how far one unit of gradient moves a weight.

An optimizer whose steady step is w ← w − lr·g/D minimizes f + strength·R only if the prox that
follows takes the same metric: its step is lr·strength/D, coordinate by coordinate. D is 1 for
SGD, 1 − β for heavy-ball momentum, √v̂ + ε for Adam (Duchi, Hazan, Singer, 2011; Yun, Lozano,
Yang, 2021).
With another D the run solves a problem with another α (`tests/test_solvers.py` shows it).
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer


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
    known = ", ".join(sorted(kind.__name__ for kind in prox_step.registry if kind is not object))
    raise TypeError(
        f"the metric of {type(optimizer).__name__} is not known; known are {known}."
        " Use the subgradient solver, or register the metric with"
        " seg_l1.solvers.metric.prox_step.register."
    )


def check_metric(optimizer: Optimizer) -> None:
    """Raises `TypeError` if the metric of `optimizer` is unknown, before any step is taken."""
    if prox_step.dispatch(type(optimizer)) is prox_step.dispatch(object):
        prox_step(optimizer, {}, torch.empty(0), 0.0, 1)


def cache_steps(group: dict[str, Any]) -> int:
    """Steps for which a metric may be cached: up to 8, and 1 where it costs nothing.

    v̂ forgets the share 1 − β₂ of itself per step, and may forget 1 % in these steps. A cached
    metric is still a metric: it moves no fixed point.
    """
    betas = group.get("betas")
    return 1 if betas is None else max(1, min(8, int(0.01 / max(1e-9, 1 - float(betas[1])))))


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
    """scaled_lr/(√v̂ + ε), with v̂ = v/(1 − β₂ᵗ), in one buffer.

    Source of the step count: the optimizer's own, on the device where it lies (fused and
    capturable optimizers keep it beside the weights, and reading it would wait for them).
    """
    state = optimizer.state.get(tensor)
    if not state:
        return 0.0
    second = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
    taken = state["step"] if state["step"].is_cuda else float(state["step"])
    correction = (1 - float(group["betas"][1]) ** taken) ** 0.5
    metric = second.sqrt().add_(group["eps"] * correction)
    return metric.reciprocal_().mul_(scaled_lr * correction)
