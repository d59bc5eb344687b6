"""Penalties R(w): a value and a prox, without strength, which is α·λ(t) and belongs to the run.

The constants are those of the objective everywhere in this project: L1 is Σ|w|, L2 is ½Σw², a
group counts √p·‖w_g‖ for its p weights. Axis 0 of w is the group; where a penalty has no groups
it takes tensors of any shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from seg_l1 import prox
from seg_l1.errors import as_scalar


class Penalty(Protocol):
    """Interface of a penalty. One without `prox` needs the solver `factorized` or `subgradient`.

    Special properties are attributes; one that is missing counts as false: `grouped` (axis 0
    counts groups), `across_tensors` (groups span several tensors, see `solvers.blocks`),
    `decoupled` (the prox ignores the optimizer's metric), `scales` (the prox multiplies by slowly
    changing numbers), `depth` (number of factors whose least L2 is R). A missing `convex` is true.
    """

    def value(self, w: Tensor) -> Tensor:
        """R(w), a 0-d tensor of float32 or better; differentiable, with ∂|w| = 0 at w = 0."""
        ...

    def prox(self, w: Tensor, step: float | Tensor, *, out: Tensor | None = None) -> Tensor:
        """argmin_x ½‖x − w‖² + step·R(x), see `seg_l1.prox`."""
        ...

    def distance(self, w: Tensor, gradient: Tensor, strength: float) -> Tensor:
        """How far −gradient is from strength·∂R(w): 0 where w is optimal (or stationary).

        Shaped as w, or (groups,) for a penalty on groups.
        """
        ...


class Hyperparameters:
    """Base class of penalties with hyperparameters: fields that are made by `number` and `choice`.

    Raises:
        ValueError: on a value that its field does not accept; the message begins with its name.
    """

    def __post_init__(self) -> None:
        for entry in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value, accepted = as_scalar(getattr(self, entry.name)), entry.metadata
            object.__setattr__(self, entry.name, value)
            if accepted and not accepted["fits"](value):
                raise ValueError(f"{entry.name}: got {value!r}, expected {accepted['expected']}")


def number(default: float, fits: Callable[[Any], bool], expected: str) -> Any:
    """A field for a finite number of which `fits` is true; `expected` describes it."""

    def accepted(value: Any) -> bool:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and fits(value) and math.isfinite(value)

    return field(default=default, metadata={"fits": accepted, "expected": expected})


POSITIVE = (lambda x: 0 < x < 1e30, "a number above 0")


def choice(default: str, *others: str) -> Any:
    """A field for one of several strings."""
    options = (default, *others)
    expected = f"one of {', '.join(options)}"
    return field(default=default, metadata={"fits": options.__contains__, "expected": expected})


@dataclass(frozen=True)
class Zero:
    """R(w) = 0: no penalty."""

    def value(self, w: Tensor) -> Tensor:
        return torch.zeros((), dtype=_accumulator(w), device=w.device)

    def prox(self, w: Tensor, step: float | Tensor, *, out: Tensor | None = None) -> Tensor:
        return w.clone() if out is None else out.copy_(w)

    def distance(self, w: Tensor, gradient: Tensor, strength: float) -> Tensor:
        return gradient.abs()


@dataclass(frozen=True)
class L1:
    """R(w) = Σ|w| (Tibshirani, 1996): exact zeros."""

    depth = 2
    """Number of factors: R is the least ½Σ(u² + v²) over all u·v = w. Used by `factorized`."""

    def value(self, w: Tensor) -> Tensor:
        return w.abs().sum(dtype=_accumulator(w))

    def prox(self, w: Tensor, step: float | Tensor, *, out: Tensor | None = None) -> Tensor:
        return prox.soft_threshold(w, step, out=out)

    def distance(self, w: Tensor, gradient: Tensor, strength: float) -> Tensor:
        return _distance(w, gradient, strength, slope=1.0)


@dataclass(frozen=True)
class L2(Hyperparameters):
    """R(w) = ½Σw²: small weights; under SGD the objective of torch's `weight_decay` = α.

    Args:
        mode: "loss" is the written objective under every optimizer. "decoupled" is AdamW's decay,
            w/(1 + lr·α) whatever the optimizer's metric: it belongs to no written objective
            (Loshchilov and Hutter, 2019; Zhuang et al., 2022, for its proximal form).
    """

    mode: str = choice("loss", "decoupled")

    @property
    def decoupled(self) -> bool:
        """Whether the prox leaves the optimizer's metric aside."""
        return self.mode == "decoupled"

    def value(self, w: Tensor) -> Tensor:
        return 0.5 * w.to(_accumulator(w)).square().sum()

    def prox(self, w: Tensor, step: float | Tensor, *, out: Tensor | None = None) -> Tensor:
        return prox.shrink(w, step, out=out)

    def distance(self, w: Tensor, gradient: Tensor, strength: float) -> Tensor:
        return (gradient + strength * w).abs()


@dataclass(frozen=True)
class ElasticNet(Hyperparameters):
    """R(w) = l1_ratio·Σ|w| + (1 − l1_ratio)·½Σw² (Zou and Hastie, 2005; as in scikit-learn)."""

    l1_ratio: float = number(0.5, lambda x: 0 <= x <= 1, "a number from 0 to 1")

    def value(self, w: Tensor) -> Tensor:
        return self.l1_ratio * L1().value(w) + (1 - self.l1_ratio) * L2().value(w)

    def prox(self, w: Tensor, step: float | Tensor, *, out: Tensor | None = None) -> Tensor:
        return prox.elastic_net(w, step, self.l1_ratio, out=out)

    def distance(self, w: Tensor, gradient: Tensor, strength: float) -> Tensor:
        gradient = gradient + strength * (1 - self.l1_ratio) * w
        return L1().distance(w, gradient, strength * self.l1_ratio)


@dataclass(frozen=True)
class MCP(Hyperparameters):
    """R(w) = Σ m(w), m(w) = |w| − w²/(2·knot) up to |w| = knot, then knot/2 (Zhang, 2010).

    Like L1 at zero, constant from `knot` on: weights above `knot` are not shrunk. The literature's
    γ is knot/α; `knot` is in the unit of the weights, so that a sweep of α does not move it.
    """

    knot: float = number(0.1, *POSITIVE)
    convex = False

    def value(self, w: Tensor) -> Tensor:
        capped = w.to(_accumulator(w)).abs().clamp(max=self.knot)
        return (capped - capped.square() / (2 * self.knot)).sum()

    def prox(self, w: Tensor, step: float | Tensor, *, out: Tensor | None = None) -> Tensor:
        return prox.mcp(w, step, self.knot, out=out)

    def distance(self, w: Tensor, gradient: Tensor, strength: float) -> Tensor:
        return _distance(w, gradient, strength, slope=(1 - w.abs() / self.knot).clamp_min(0))


@dataclass(frozen=True)
class ReweightedL1(Hyperparameters):
    """R(w) = epsilon·Σ log(1 + |w|/epsilon): L1 with ω = epsilon/(|w| + epsilon) per weight.

    Candès, Wakin and Boyd (2008) solve it by a sequence of L1 problems whose ω are renewed from
    time to time. Its prox has a closed form, so here ω is up to date at every step. ω = 1 at zero:
    α is the gradient that a zero weight withstands, as for L1.
    """

    epsilon: float = number(0.1, *POSITIVE)
    convex = False

    def value(self, w: Tensor) -> Tensor:
        return self.epsilon * (w.to(_accumulator(w)).abs() / self.epsilon).log1p().sum()

    def prox(self, w: Tensor, step: float | Tensor, *, out: Tensor | None = None) -> Tensor:
        return prox.log_sum(w, step, self.epsilon, out=out)

    def distance(self, w: Tensor, gradient: Tensor, strength: float) -> Tensor:
        return _distance(w, gradient, strength, slope=self.epsilon / (w.abs() + self.epsilon))


@dataclass(frozen=True)
class Bridge(Hyperparameters):
    """R(w) = (depth/2)·Σ|w|^(2/depth), the least of ½Σ_k u_k² over u_1·…·u_depth = w.

    depth 2 is L1; more factors give the L_q penalties with q < 1 (Frank and Friedman, 1993; Hoff,
    2017). Zero is a stationary point whatever the gradient. There is no prox: use `factorized`.
    """

    depth: int = number(
        3, lambda x: x in range(2, 65), "a whole number of at least 2 and at most 64"
    )
    convex = False

    def value(self, w: Tensor) -> Tensor:
        # the derivative at 0 is infinite: the 0 that the protocol wants comes from the mask
        magnitude = torch.where(w == 0, 1.0, w.to(_accumulator(w)).abs())
        return (self.depth / 2 * magnitude.pow(2 / self.depth) * (w != 0)).sum()

    def distance(self, w: Tensor, gradient: Tensor, strength: float) -> Tensor:
        slope = w.abs().pow(2 / self.depth - 1)
        return torch.where(w == 0, 0 * w, (gradient + strength * slope * w.sign()).abs())


@dataclass(frozen=True)
class GroupL1:
    """R(w) = Σ_g √p·‖w_g‖, the group lasso (Yuan and Lin, 2006): whole channels are zero."""

    grouped = True
    scales = True
    """Its prox multiplies the weights by numbers that change slowly from step to step."""

    def value(self, w: Tensor) -> Tensor:
        rows = _rows(w).to(_accumulator(w))
        return rows.shape[1] ** 0.5 * torch.linalg.vector_norm(rows, dim=1).sum()

    def prox(self, w: Tensor, step: float | Tensor, *, out: Tensor | None = None) -> Tensor:
        return prox.group_soft_threshold(w, step, out=out)

    def distance(self, w: Tensor, gradient: Tensor, strength: float) -> Tensor:
        rows, grads = _rows(w), _rows(gradient)
        norms = torch.linalg.vector_norm(rows, dim=1)
        strength = strength * rows.shape[1] ** 0.5
        zero = (torch.linalg.vector_norm(grads, dim=1) - strength).clamp_min(0)
        unit = rows / norms.clamp_min(torch.finfo(w.dtype).tiny)[:, None]
        alive = torch.linalg.vector_norm(grads + strength * unit, dim=1)
        return torch.where(norms == 0, zero, alive)


@dataclass(frozen=True)
class ChannelL1(GroupL1):
    """R(w) = Σ_g √p·‖w_g‖, where a group is all that vanishes with a channel.

    These are the slices of kernels that compute it, their biases, and the scales and offsets of its
    norm layers, in all layers whose outputs are added. Axis 0 of w counts channels: see
    `seg_l1.solvers.blocks`.
    """

    across_tensors = True


@dataclass(frozen=True)
class SparseGroupL1(Hyperparameters):
    """R(w) = l1_ratio·Σ|w| + (1 − l1_ratio)·Σ_g √p·‖w_g‖ (Friedman, Hastie, Tibshirani, 2010)."""

    l1_ratio: float = number(0.5, lambda x: 0 <= x <= 1, "a number from 0 to 1")
    grouped = True

    def value(self, w: Tensor) -> Tensor:
        return self.l1_ratio * L1().value(w) + (1 - self.l1_ratio) * GroupL1().value(w)

    def prox(self, w: Tensor, step: float | Tensor, *, out: Tensor | None = None) -> Tensor:
        return prox.sparse_group(w, step, self.l1_ratio, out=out)

    def distance(self, w: Tensor, gradient: Tensor, strength: float) -> Tensor:
        rows, grads = _rows(w), _rows(gradient)
        norms = torch.linalg.vector_norm(rows, dim=1)
        single = strength * self.l1_ratio
        group = strength * (1 - self.l1_ratio) * rows.shape[1] ** 0.5
        rest = prox.soft_threshold(grads, single)
        zero = (torch.linalg.vector_norm(rest, dim=1) - group).clamp_min(0)
        unit = rows / norms.clamp_min(torch.finfo(w.dtype).tiny)[:, None]
        alive = torch.linalg.vector_norm(L1().distance(rows, grads + group * unit, single), dim=1)
        return torch.where(norms == 0, zero, alive)


def _rows(w: Tensor) -> Tensor:
    """(groups, p); the weights of a vector are groups of one."""
    return w.flatten(1) if w.ndim > 1 else w.reshape(-1, 1)


def _distance(w: Tensor, gradient: Tensor, strength: float, slope: float | Tensor) -> Tensor:
    """For Σ r(|w|) with the derivative `slope` of r at |w|, which is 1 at zero."""
    zero = (gradient.abs() - strength).clamp_min(0)
    return torch.where(w == 0, zero, (gradient + strength * slope * w.sign()).abs())


def _accumulator(w: Tensor) -> torch.dtype:
    """Half-precision sums overflow at 65504, so they are taken in float32."""
    return torch.promote_types(w.dtype, torch.float32)
