"""Penalties R(w): a value and a prox, without strength, which is α·λ(t) and belongs to the run.

The constants are those of the objective everywhere in this project: L1 is Σ|w|, L2 is ½Σw².
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from seg_l1 import prox


class Penalty(Protocol):
    """What a solver asks of a penalty."""

    def value(self, w: Tensor) -> Tensor:
        """R(w), a 0-d tensor of float32 or better; differentiable, with ∂|w| = 0 at w = 0."""
        ...

    def prox(self, w: Tensor, step: float | Tensor, *, out: Tensor | None = None) -> Tensor:
        """argmin_x ½‖x − w‖² + step·R(x), see `seg_l1.prox`."""
        ...


class Zero:
    """R(w) = 0: no penalty."""

    def value(self, w: Tensor) -> Tensor:
        return torch.zeros((), dtype=_accumulator(w), device=w.device)

    def prox(self, w: Tensor, step: float | Tensor, *, out: Tensor | None = None) -> Tensor:
        return w.clone() if out is None else out.copy_(w)


class L1:
    """R(w) = Σ|w| (Tibshirani, 1996): exact zeros."""

    def value(self, w: Tensor) -> Tensor:
        return w.abs().sum(dtype=_accumulator(w))

    def prox(self, w: Tensor, step: float | Tensor, *, out: Tensor | None = None) -> Tensor:
        return prox.soft_threshold(w, step, out=out)


class L2:
    """R(w) = ½Σw²: small weights; with plain SGD the same as torch's `weight_decay` = α."""

    def value(self, w: Tensor) -> Tensor:
        return 0.5 * w.to(_accumulator(w)).square().sum()

    def prox(self, w: Tensor, step: float | Tensor, *, out: Tensor | None = None) -> Tensor:
        return prox.shrink(w, step, out=out)


@dataclass(frozen=True)
class ElasticNet:
    """R(w) = l1_ratio·Σ|w| + (1 − l1_ratio)·½Σw² (Zou and Hastie, 2005; scikit-learn's constants).

    Raises:
        ValueError: if `l1_ratio` is outside [0, 1].
    """

    l1_ratio: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.l1_ratio <= 1:
            raise ValueError(f"l1_ratio: got {self.l1_ratio}, expected a number from 0 to 1")

    def value(self, w: Tensor) -> Tensor:
        return self.l1_ratio * L1().value(w) + (1 - self.l1_ratio) * L2().value(w)

    def prox(self, w: Tensor, step: float | Tensor, *, out: Tensor | None = None) -> Tensor:
        return prox.elastic_net(w, step, self.l1_ratio, out=out)


def _accumulator(w: Tensor) -> torch.dtype:
    """Half-precision sums overflow at 65504, so they are taken in float32."""
    return torch.promote_types(w.dtype, torch.float32)
