"""Proximal operators: pure functions prox(w, s) = argmin_x ½‖x − w‖² + s·R(x).

`step` is s: a number ≥ 0, or a tensor ≥ 0 that broadcasts against w, one s per coordinate (the
prox in a diagonal metric). Every function takes w of any shape and memory layout and returns a
tensor of that shape, written into `out` where given; `out=w` works in place. NaN stays NaN, and a
zero may be -0.0, which equals 0. Source: Parikh and Boyd, Proximal Algorithms (2014), section 6.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softshrink


def soft_threshold(w: Tensor, step: float | Tensor, *, out: Tensor | None = None) -> Tensor:
    """argmin_x ½‖x − w‖² + step·Σ|x| = sign(w)·max(|w| − step, 0).

    >>> soft_threshold(torch.tensor([-3.0, 0.5, 2.0]), 1.0)
    tensor([-2.,  0.,  1.])
    """
    if isinstance(step, Tensor):
        return torch.sub(w, w.clamp(-step, step), out=out)
    return softshrink(w, step, out=out)


def shrink(w: Tensor, step: float | Tensor, *, out: Tensor | None = None) -> Tensor:
    """argmin_x ½‖x − w‖² + step·½Σx² = w / (1 + step).

    >>> shrink(torch.tensor([-3.0, 1.0]), 1.0)
    tensor([-1.5000,  0.5000])
    """
    return torch.div(w, 1 + step, out=out)


def elastic_net(
    w: Tensor, step: float | Tensor, l1_ratio: float, *, out: Tensor | None = None
) -> Tensor:
    """argmin_x ½‖x − w‖² + step·(l1_ratio·Σ|x| + (1 − l1_ratio)·½Σx²).

    >>> elastic_net(torch.tensor([-3.0, 0.5, 2.0]), 2.0, 0.5)
    tensor([-1.0000,  0.0000,  0.5000])
    """
    return shrink(soft_threshold(w, step * l1_ratio, out=out), step * (1 - l1_ratio), out=out)
