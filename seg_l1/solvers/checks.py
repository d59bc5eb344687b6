"""What no solver can do: refused before the first step, with the remedy."""

from __future__ import annotations

import re
from collections.abc import Collection

import torch
from torch.optim import LBFGS, Optimizer

from seg_l1.penalties import Penalty
from seg_l1.scope import ScopedTensor

REPEATED = (
    "the {} solver does not work with an optimizer that calls its closure several times in a step,"
    " as LBFGS does: use SGD or Adam"
)


def name_of(solver: object) -> str:
    """Returns what messages call a solver: its class as an option, such as "dual_averaging"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(solver).__name__).lower()


def check_tensor(
    scoped: ScopedTensor,
    penalty: Penalty,
    *,
    optimizer: str,
    owned: Collection[int],
    taken: Collection[int],
) -> None:
    """Checks that `penalty` can act on a tensor.

    Args:
        optimizer: what to call the optimizer in messages.
        owned: ids of the tensors that the optimizer owns.
        taken: ids of the tensors that already have a penalty at this optimizer.

    Raises:
        TypeError: if the precision of the tensor is too low.
        ValueError: if the optimizer does not own it, it has a penalty already, or lacks groups.
    """
    check_dtype(scoped)
    if id(scoped.tensor) not in owned:
        raise ValueError(f"{optimizer} does not own the penalized tensor {scoped.name}")
    if id(scoped.tensor) in taken:
        raise ValueError(
            f"{scoped.name} has a penalty at {optimizer} already: call its solver's"
            " detach() first, or change its strength"
        )
    if getattr(penalty, "grouped", False) and scoped.no_group_reason:
        raise ValueError(
            f"{type(penalty).__name__} needs the output channels of {scoped.name}, but"
            f" {scoped.no_group_reason}: leave it out, by Rule(penalize=False) or"
            " {penalize: false}"
        )


def check_dtype(scoped: ScopedTensor) -> None:
    """Refuses weights of a precision in which the steps of a penalty round to nothing."""
    dtype = scoped.tensor.dtype
    if dtype is not torch.float32 and dtype is not torch.float64:
        raise TypeError(
            f"{scoped.name} is {str(dtype).removeprefix('torch.')}, in which small steps are lost:"
            " keep the weights in float32 (model.float()), and compute under torch.autocast"
        )


def check_optimizer(optimizer: Optimizer, kind: str, *, repeatable: bool) -> None:
    """Refuses an optimizer; `repeatable` is that of the solver."""
    if any(group.get("maximize") for group in optimizer.param_groups):
        raise ValueError(f"the {kind} solver minimizes: set maximize=False and negate the loss")
    if isinstance(optimizer, LBFGS) and not repeatable:
        raise ValueError(REPEATED.format(kind))
