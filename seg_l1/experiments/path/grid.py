"""The grid of a path: values of alpha in equal ratios, found from a network without penalty.

Zero is optimal for a weight if −g ∈ α·∂R(0), g the gradient of the data term: for L1 if |g| ≤ α.
At w = 0 the least α for which this holds everywhere is the α_max of a convex problem. In a network
of several layers the gradient at w = 0 is zero for every weight, and so says nothing. The gradients
of a network trained without penalty tell, for each alpha, for how many of its weights zero would
be optimal.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seg_l1.penalties import Penalty
from seg_l1.scope import ScopedTensor
from seg_l1.solvers.blocks import blocks


def alpha_grid(largest: float, smallest: float, *, num: int) -> list[float]:
    """Returns `num` falling values, each the same multiple of the one before.

    >>> alpha_grid(1.0, 0.01, num=3)
    [1.0, 0.1, 0.01]
    """
    if num == 1:
        return [largest]
    ratio = (smallest / largest) ** (1 / (num - 1))
    return [float(f"{largest * ratio**index:.6g}") for index in range(num)]


@torch.no_grad()
def zero_share(
    penalty: Penalty, tensors: Sequence[ScopedTensor], *, grads: Sequence[Tensor], alpha: float
) -> float:
    """Returns the share of weights (or groups) for which zero is optimal.

    Args:
        grads: the gradient of the data term of each tensor.
    """
    optimal = total = 0
    for block in blocks(penalty, tensors):
        grad = block.gather(grads)
        distance = penalty.distance(torch.zeros_like(grad), grad, alpha * block.factor)
        optimal, total = optimal + int((distance == 0).sum()), total + distance.numel()
    return optimal / max(1, total)


def alpha_for_zero_share(
    share: float,
    penalty: Penalty,
    *,
    tensors: Sequence[ScopedTensor],
    grads: Sequence[Tensor],
    precision: float = 1e-7,
) -> float:
    """Returns the smallest alpha at which `zero_share` reaches `share`, by bisection.

    With share 1 and the gradients at w = 0 it is the α_max of a convex problem: from there on all
    weights are zero. With those of a network without penalty it is an estimate of that alpha.

    Args:
        share: in (0, 1].
        grads: the gradient of the data term of each tensor.
        precision: relative, of the result.

    Raises:
        ValueError: if zero is optimal at every alpha or at none, as under L2.
    """

    def share_at(alpha: float) -> float:
        return zero_share(penalty, tensors, grads=grads, alpha=alpha)

    low, high = 1e-30, 1e30
    if not share_at(low) < share <= 1:
        raise ValueError("zero is optimal at any alpha")
    if share_at(high) < share:
        raise ValueError("no alpha makes zeros")
    while high / low > 1 + precision:
        middle = high**0.5 * low**0.5
        if share_at(middle) < share:
            low = middle
        else:
            high = middle
    return high
