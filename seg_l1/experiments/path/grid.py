"""The strengths of a path: in equal ratios between two that the dense network tells.

Zero is right for a weight if the gradient of the data term there is within α·∂R(0): for L1 if
|g| ≤ α. At w = 0 this gives the α_max of a convex problem. In a network of several layers the
gradient at w = 0 is zero for every weight, so that it says nothing; the gradients of a network
trained without penalty do, if one asks for how many weights zero would do.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seg_l1.penalties import Penalty
from seg_l1.scope import ScopedTensor


def geometric(high: float, low: float, num: int) -> list[float]:
    """`num` strengths from `high` down to `low`, each the same multiple of the one before.

    >>> geometric(1.0, 0.01, 3)
    [1.0, 0.1, 0.01]
    """
    if num == 1:
        return [high]
    ratio = (low / high) ** (1 / (num - 1))
    return [float(f"{high * ratio**index:.6g}") for index in range(num)]


@torch.no_grad()
def zero_share(
    penalty: Penalty, tensors: Sequence[ScopedTensor], slopes: Sequence[Tensor], strength: float
) -> float:
    """The share of weights (or groups) for which zero fulfils the optimality condition.

    Args:
        slopes: the gradients of the data term, by tensor.
    """
    right = total = 0
    for entry, slope in zip(tensors, slopes, strict=True):
        zero, gradient = torch.zeros_like(entry.groups_first), entry.along(slope)
        distance = penalty.distance(zero, gradient, strength * entry.factor)
        right, total = right + int((distance == 0).sum()), total + distance.numel()
    return right / max(1, total)


def strength_for(
    share: float,
    penalty: Penalty,
    tensors: Sequence[ScopedTensor],
    slopes: Sequence[Tensor],
    precision: float = 1e-7,
) -> float:
    """The smallest strength at which `zero_share` is `share`, by bisection to a relative precision.

    With `share` 1 and the gradients at w = 0 it is the α_max of a convex problem: from there on
    all is zero. With those of a dense network it is where the last survivor would die.

    Raises:
        ValueError: if zero is right at every strength or at none, as under L2.
    """
    low, high = 1e-30, 1e30
    if not zero_share(penalty, tensors, slopes, low) < share <= 1:
        raise ValueError("zero is right at any strength")
    if zero_share(penalty, tensors, slopes, high) < share:
        raise ValueError("no strength makes zeros")
    while high / low > 1 + precision:
        middle = high**0.5 * low**0.5
        if zero_share(penalty, tensors, slopes, middle) < share:
            low = middle
        else:
            high = middle
    return high
