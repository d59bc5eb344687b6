"""The optimizer of a configuration, with a metric of the user's own where one is named."""

from __future__ import annotations

import inspect

from torch import nn
from torch.optim import Optimizer, SparseAdam

from seg_l1.errors import UserError
from seg_l1.runs.files import Config
from seg_l1.solvers.metric import prox_step
from seg_l1.training.instantiate import instantiate, load_function

_OTHER = "choose another, such as optimizer=adam"
_METRIC = ("optimizer", "group", "tensor", "scaled_lr", "count")


def build_optimizer(spec: Config, model: nn.Module) -> Optimizer:
    """Returns what `spec` describes, for all parameters of `model`.

    Args:
        spec: `_target_` and its arguments; `metric`, if it is there, names the function that
            `seg_l1.solvers.metric.prox_step` is to call for this optimizer.

    Raises:
        UserError: if it cannot be built, or if the training loop cannot step it.
    """
    arguments = {key: value for key, value in spec.items() if key != "metric"}
    optimizer = instantiate("optimizer", arguments, params=list(model.parameters()))
    name = type(optimizer).__name__
    if not isinstance(optimizer, Optimizer):
        raise UserError(f"optimizer._target_: makes a {name}, expected a torch optimizer")
    if isinstance(optimizer, SparseAdam):
        raise UserError(f"optimizer ({name}): takes sparse gradients only; {_OTHER}")
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise UserError(
            f"optimizer ({name}): evaluates the loss several times per step, which the training"
            f" loop does not; {_OTHER}"
        )
    if spec.get("metric") is not None:
        _set_metric(optimizer, spec["metric"])
    return optimizer


def _set_metric(optimizer: Optimizer, name: str) -> None:
    """Registers the function `name` for this optimizer, and for no other of its class."""
    metric = load_function("optimizer.metric", name, _METRIC)
    # another job of this process may give the same class another metric
    kind = type(optimizer)
    optimizer.__class__ = type(kind.__name__, (kind,), {"__module__": kind.__module__})
    prox_step.register(type(optimizer), metric)
