"""A penalty for anybody's loop: on an existing model and torch optimizer, by one call."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from seg_l1.compaction import channel_groups
from seg_l1.errors import finite_number
from seg_l1.penalties import L1, Penalty
from seg_l1.scope import DEFAULT_RULES, Rule, coverage, is_partial, left_out, scope
from seg_l1.solvers.base import Solver
from seg_l1.solvers.proximal import Proximal


def attach(
    optimizer: Optimizer,
    model: nn.Module,
    penalty: Penalty | None = None,
    *,
    alpha: float,
    rules: Sequence[Rule] = DEFAULT_RULES,
    solver: type[Solver] = Proximal,
    example: Tensor | None = None,
) -> Solver:
    """Adds a penalty: from now on `optimizer.step()` minimizes loss + alpha·Σ R(w).

    Returns the solver. Its `strength` is alpha, and may be changed between any two steps. Use its
    `clip_grad_norm_()` instead of torch's, which would leave the penalty unclipped and so raise α.
    Save its `state_dict()`, which includes the strength, in checkpoints; call `flush()` before an
    evaluation, to set zeros that float32 rounding has delayed; `detach()` removes the penalty.

    The scope is decided now: tensors that are frozen now, or come to the optimizer later, are not
    penalized; those frozen later are left alone. A copy of the optimizer has no penalty. A weight
    whose gradient stays 0 moves by lr·alpha/eps per step under Adam: with torch's eps=1e-8 it is
    zero at once, with 1e-5 it can become nonzero again.

    Args:
        optimizer: of `torch.optim`; accelerate's and Lightning's wrappers are seen through.
        model: with weights in float32 or float64.
        penalty: R, L1 for None; see `seg_l1.penalties`.
        alpha: the strength, a finite number of at least 0, of the objective that the optimizer
            minimizes: where the loss is a mean, so is its α.
        rules: which tensors; the first rule that matches decides (`seg_l1.scope`). By default all
            kernels (see `Rule`), with a warning if these are less than 95 % of the weights.
        solver: a solver class from a module in `seg_l1.solvers`; applies the penalty.
        example: a batch of images on the device of the model, for `ChannelL1`: the network is
            captured to find what vanishes with a channel. Others ignore it.

    Raises:
        TypeError: if the metric of the optimizer is unknown, if the solver cannot do this penalty,
            or if the weights are bfloat16 or float16.
        ValueError: if alpha is no finite number ≥ 0, a rule matches nothing, the optimizer lacks a
            tensor, shards cut the groups of the penalty, or its channels are not known.
    """
    alpha = finite_number("alpha", alpha)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}, expected a torch.nn.Module")
    tensors = scope(model, rules)
    penalty = penalty or L1()
    if getattr(penalty, "across_tensors", False):
        if example is None:
            raise ValueError(f"{type(penalty).__name__} finds its groups by a batch: give example=")
        tensors = channel_groups(model, example, tensors)
    attached = solver(penalty, tensors, optimizer, strength=alpha)
    if is_partial(rules, tensors):
        missing = left_out(tensors)[0].name
        warnings.warn(
            f"attach: {coverage(tensors)}. To include one, give"
            f" rules=[Rule({missing!r}), *seg_l1.scope.DEFAULT_RULES]",
            stacklevel=2,
        )
    return attached
