"""The network at the chosen alpha: on all training images, then relaxed on its support."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from seg_l1.config.commands import assignment
from seg_l1.errors import UserError
from seg_l1.experiments.jobs import complete
from seg_l1.experiments.path import sizes
from seg_l1.experiments.path.job import follow
from seg_l1.experiments.path.plan import Plan

if TYPE_CHECKING:
    from seg_l1.data.batches import Batches
    from seg_l1.training.loop import Loop


def refit(plan: Plan, data: Any, chosen: float) -> None:
    """Makes `plan.refit`, and `plan.relaxed` if `path.relax_epochs` asks for it.

    The refit follows the path to the chosen alpha on all training images, as did the runs whose
    scores decided it. The validation split picks the best epoch; the test split is scored once.

    Raises:
        RunError: if a run of it fails.
        UserError: if the path on all images ends before the chosen alpha.
    """
    follow(plan, plan.whole, refit_at=chosen)
    if not plan.refit.best.is_file():
        raise UserError(
            f"path: on all images it ends before alpha={chosen:g}; give path.direction=down, or"
            " smaller values as path.alphas=[...]"
        )
    if plan.settings["relax_epochs"]:
        _relax(plan, data)


def _relax(plan: Plan, data: Any) -> None:
    config = deepcopy(plan.config)
    config["start"] = str(plan.refit.path)
    config["trainer"]["epochs"] = plan.settings["relax_epochs"]
    config["regularizer"] |= {"alpha": 0.0, "solver": "frozen", "schedule": "constant"}
    config["regularizer"]["schedule_start"] = 0
    words = [
        *plan.words,
        "regularizer.alpha=0",
        "regularizer.solver=frozen",
        f"trainer.epochs={plan.settings['relax_epochs']}",
        assignment("start", plan.refit.path),
    ]

    def within_budget(loop: Loop) -> None:
        if (budget := plan.settings.get("budget")) is not None:
            sizes.cut(loop, budget)

    def relax(loop: Loop) -> None:
        penalized = plan.refit.model_state("best")
        blend(loop.model, penalized, plan.settings["relax_blend"])
        sizes.frozen(loop).restrict({})  # of what the budget removed nothing comes back
        recalibrate(loop.model, loop.train)

    complete(
        config,
        words,
        plan.relaxed,
        data=data,
        before_training=within_budget,
        after_training=relax,
    )


@torch.no_grad()
def blend(model: nn.Module, other: dict[str, torch.Tensor], share: float) -> None:
    """Moves the parameters of `model` to share·other + (1 − share)·model.

    With the penalized weights as `other` this is the γ of the relaxed lasso as glmnet has it.
    """
    for name, parameter in model.named_parameters():
        parameter.lerp_(other[name].to(parameter), share)


@torch.no_grad()
def recalibrate(model: nn.Module, batches: Batches) -> None:
    """Recomputes the statistics of all batch-norm layers: the mean over one epoch of batches."""
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    momenta = [layer.momentum for layer in layers]
    model.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean
        layer.train()
    if layers:
        for images, _ in batches.epoch():
            model(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    model.eval()
