"""A penalty for anybody's loop: on an existing model and torch optimizer, by one call."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from seg_l1.penalties import L1, Penalty
from seg_l1.scope import DEFAULT_RULES, Rule, scope
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
) -> Solver:
    """After this call, `optimizer.step()` minimizes the loss + alpha·Σ R(w), with exact zeros.

    Returns the solver. Its `strength` is alpha, and may be changed between any two steps. Its
    `clip_grad_norm_()` takes the place of torch's, which would leave the penalty unclipped and so
    raise α. Its `state_dict()`, strength included, belongs in the checkpoint; `flush()` before an
    evaluation restores zeros where float32 makes steps wait; `detach()` removes the penalty.

    The scope is decided now: tensors that are frozen now, or come to the optimizer later, are not
    penalized; those frozen later are left alone. A copy of the optimizer has no penalty. A weight
    whose gradient stays 0 moves by lr·alpha/eps per step under Adam: with torch's eps=1e-8 it is
    zero at once, with 1e-5 it can become nonzero again.

    Args:
        penalty: R, L1 for None; see `seg_l1.penalties`.
        alpha: the strength, of the objective that the optimizer minimizes: where the loss is a
            mean, so is its α.
        rules: which tensors; the first rule that matches decides (`seg_l1.scope`).
        solver: how; one of `seg_l1.solvers`.

    Raises:
        TypeError: if the metric of the optimizer is unknown, or the solver cannot do this penalty.
        ValueError: if alpha < 0, a rule matches nothing, or the optimizer lacks a tensor.
    """
    if not 0 <= alpha < float("inf"):
        raise ValueError(f"alpha: got {alpha}, expected a number of at least 0")
    return solver(penalty or L1(), scope(model, rules), optimizer, strength=alpha)
