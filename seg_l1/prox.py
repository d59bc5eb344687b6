"""Proximal operators: pure functions prox(w, s) = argmin_x ½‖x − w‖² + s·R(x).

`step` is s: a number ≥ 0, or a tensor ≥ 0 that broadcasts against w, one s per coordinate: the
prox in a diagonal metric, argmin_x Σ (x − w)²/(2s) + R(x). Every function takes w of any shape and
memory layout and returns a tensor of that shape, written into `out` where given; `out=w` works in
place. NaN stays NaN, and a zero may be -0.0, which equals 0. Source: Parikh and Boyd, Proximal
Algorithms (2014), section 6.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softshrink

TINY = 1e-30
"""Keeps 0/0 away, and changes no other number."""


def soft_threshold(w: Tensor, step: float | Tensor, *, out: Tensor | None = None) -> Tensor:
    """argmin_x ½‖x − w‖² + step·Σ|x| = sign(w)·max(|w| − step, 0).

    >>> soft_threshold(torch.tensor([-3.0, 0.5, 2.0]), 1.0)
    tensor([-2.,  0.,  1.])
    """
    if isinstance(step, Tensor):
        return torch.sub(w, w.clamp(-step, step), out=out)
    return softshrink(w, step, out=out)  # type: ignore[call-arg]  # its stub has no `out`


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


def mcp(w: Tensor, step: float | Tensor, knot: float, *, out: Tensor | None = None) -> Tensor:
    """argmin_x ½‖x − w‖² + step·Σ m(x), m(x) = |x| − x²/(2·knot) up to |x| = knot, then knot/2.

    For step < knot: S(w, step)/(1 − step/knot) up to |w| = knot, then w. From there on the
    problem has two minima, and the lower one is 0 up to |w| = √(step·knot), then w. Source: Zhang
    (2010), whose γ is knot/α.

    >>> mcp(torch.tensor([0.5, 1.5, 4.0]), 1.0, knot=2.0)
    tensor([0., 1., 4.])
    """
    step = torch.as_tensor(step, dtype=w.dtype, device=w.device)
    soft = soft_threshold(w, step) / (1 - step / knot).clamp_min(torch.finfo(w.dtype).tiny)
    edge = torch.where(step < knot, knot, (step * knot).sqrt())
    result = torch.where(w.abs() > edge, w, torch.where(step < knot, soft, 0 * w))
    return result if out is None else out.copy_(result)


def log_sum(
    w: Tensor, step: float | Tensor, epsilon: float, *, out: Tensor | None = None
) -> Tensor:
    """argmin_x ½‖x − w‖² + step·epsilon·Σ log(1 + |x|/epsilon).

    Where it is not 0, x solves x − |w| + step·epsilon/(x + epsilon) = 0; the larger root is taken
    if it lies below the value at 0 (Gong et al., A general iterative shrinkage and thresholding
    algorithm, 2013). It is computed as |w| − d, since (|w| − epsilon + √…)/2 cancels.

    >>> log_sum(torch.tensor([0.5, 3.0]), 1.0, epsilon=1.0)
    tensor([0.0000, 2.7321])
    """
    magnitude = w.abs()
    root = (magnitude + epsilon).square() - 4 * step * epsilon
    drop = 2 * step * epsilon / (magnitude + epsilon + root.clamp_min(0).sqrt())
    x = (magnitude - drop).clamp_min(0)
    penalty = 2 * step * epsilon * (x / epsilon).log1p()
    gain = magnitude.square() - (x - magnitude).square() - penalty
    result = torch.where((root < 0) | (gain <= 0), 0 * w, x.copysign(w))
    return result if out is None else out.copy_(result)


def group_soft_threshold(w: Tensor, step: float | Tensor, *, out: Tensor | None = None) -> Tensor:
    """argmin_x ½‖x − w‖² + step·Σ_g √p·‖x_g‖ = max(0, 1 − step·√p/‖w_g‖)·w_g.

    The groups are the slices along axis 0, each of p weights (Yuan and Lin, 2006). A scalar and a
    vector are groups of one weight each. With one step per coordinate there is no closed form:
    with t = step·√p a group is 0 if ‖w_g/t_g‖ ≤ 1, else x = w·s/(s + t), where s = ‖x_g‖ is the
    root of ‖w_g/(s + t_g)‖ = 1.

    >>> group_soft_threshold(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), 1.0)
    tensor([[2.1515, 2.8686],
            [0.0000, 0.0000]])
    """
    if w.ndim < 2:
        return soft_threshold(w, step, out=out)
    width = (w.numel() / max(1, len(w))) ** 0.5
    inside = (len(w), *[1] * (w.ndim - 1))
    if isinstance(step, Tensor):
        threshold = (step.expand_as(w) * width).add_(TINY)
        norms = _group_norms(w, threshold).view(inside)
        return torch.mul(w, threshold.add_(norms).reciprocal_().mul_(norms), out=out)
    norms = torch.linalg.vector_norm(_rows(w), dim=1)
    scale = norms.add_(TINY).reciprocal_().mul_(-step * width).add_(1).clamp_min_(0)
    return torch.mul(w, scale.view(inside), out=out)


def sparse_group(
    w: Tensor, step: float | Tensor, l1_ratio: float, *, out: Tensor | None = None
) -> Tensor:
    """argmin_x ½‖x − w‖² + step·(l1_ratio·Σ|x| + (1 − l1_ratio)·Σ_g √p·‖x_g‖).

    The soft threshold first, then the group's, in any diagonal metric (Friedman, Hastie,
    Tibshirani, 2010).

    >>> sparse_group(torch.tensor([[3.0, 0.4], [0.3, 0.4]]), 1.0, 0.5)
    tensor([[1.7929, 0.0000],
            [0.0000, 0.0000]])
    """
    soft = soft_threshold(w, step * l1_ratio, out=out)
    return group_soft_threshold(soft, step * (1 - l1_ratio), out=out)


def _group_norms(w: Tensor, threshold: Tensor) -> Tensor:
    """(groups,): the root s ≥ 0 of ‖w_g/(s + threshold_g)‖ = 1, or 0 where ‖w_g/threshold_g‖ ≤ 1.

    Newton on 1/‖·‖ − 1, which is concave in s and nearly linear (Moré and Sorensen, 1983): two to
    six steps. It stops early on the CPU only: on a GPU the check would force a synchronization.
    """
    w, threshold = _rows(w), _rows(threshold, like=w)
    share = w / threshold
    root = torch.linalg.vector_norm(w, dim=1)
    root *= torch.linalg.vector_norm(share, dim=1) > 1
    tolerance = 0.1 * torch.finfo(w.dtype).eps ** 0.5
    for _ in range(16 if w.is_cpu else 8):
        total = threshold + root[:, None]
        torch.div(w, total, out=share)
        square = share.square().sum(1)
        slope = torch.div(share.square_(), total, out=total).sum(1).add_(TINY)
        newton = root + square * (square.sqrt() - 1) / slope
        before, root = root, torch.maximum(newton, root / 16)
        if w.is_cpu and bool(((root - before).abs() <= tolerance * root).all()):
            break
    return root


def _rows(w: Tensor, like: Tensor | None = None) -> Tensor:
    """(groups, p), a view in the order of memory where axis 0 is the outermost, else a copy.

    With `like` the weights come in the order that `_rows(like)` has.
    """
    like = w if like is None else like
    if w.ndim == 4 and like.is_contiguous(memory_format=torch.channels_last):
        w = w.permute(0, 2, 3, 1)
    return w.flatten(1)
