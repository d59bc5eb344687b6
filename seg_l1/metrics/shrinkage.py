"""The ledger of shrinkage: everything that makes weights smaller, and what must not be confused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seg_l1.scope import ScopedTensor

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def sources(config: dict[str, Any], rows: Sequence[dict[str, float]] = ()) -> list[str]:
    """What shrinks weights, or stops them from growing, in a run of `config`.

    Args:
        rows: the epochs done, for the share of clipped steps.
    """
    regularizer, trainer = config["regularizer"], config["trainer"]
    penalty = _penalty(config)
    found = []
    if penalty != "Zero":
        decoupled = " (decoupled)" if regularizer["mode"] == "decoupled" else ""
        found.append(f"{penalty} with alpha={regularizer['alpha']:g}{decoupled}")
    if decay := config["optimizer"].get("weight_decay"):
        found.append(f"the optimizer's weight_decay={decay:g}")
    if rate := config["model"].get("dropout"):
        found.append(f"dropout of {100 * rate:g} %")
    if rate := regularizer["drop_connect"]:
        found.append(f"drop_connect of {100 * rate:g} % of the penalised weights")
    if trainer["early_stopping"]:
        found.append(f"early stopping after {trainer['early_stopping']} epochs")
    for name in ("clip_norm", "clip_value"):
        if trainer[name]:
            share = sum(row["train/clipped"] for row in rows) / max(1, len(rows))
            steps = f" in {100 * share:.0f} % of the steps" if rows else ""
            found.append(f"clipping of gradients at {name}={trainer[name]:g}{steps}")
    return found


def notes(config: dict[str, Any], tensors: Sequence[ScopedTensor], fed: set[str]) -> list[str]:
    """What a reader of the results should know: mixes of penalties, keys without an effect, scales.

    Args:
        fed: the modules that feed a norm layer, see `scale_invariant_layers`.
    """
    optimizer, regularizer = config["optimizer"], config["regularizer"]
    penalty, decay = _penalty(config), optimizer.get("weight_decay")
    found = []
    if decay and penalty == "Zero":
        found.append(
            f"there is no penalty, but the optimizer decays weights (weight_decay={decay:g}):"
            " this is no run without regularisation"
        )
    elif decay:
        name = optimizer["_target_"].rsplit(".", 1)[-1]
        what = "decoupled from the loss, no alpha" if name == "AdamW" else "an L2 of that alpha"
        found.append(f"two penalties at once: {penalty}, and weight_decay={decay:g} ({what})")
    if (config["model"].get("dropout") or regularizer["drop_connect"]) and penalty != "Zero":
        found.append(f"{penalty} and random dropping at once")
    if regularizer["mode"] == "decoupled":
        found.append("the decoupled decay belongs to no written objective: it depends on lr")
    if config["trainer"]["clip_value"] and penalty != "Zero":
        found.append("while clip_value clips, alpha weighs more than it says; clip_norm keeps it")
    if config["dataset"].get("class_weights") and "class_weights" not in config["loss"]:
        name = config["loss"]["_target_"].rsplit(".", 1)[-1]
        found.append(f"{name} is a mean over classes, and does not use dataset.class_weights")
    if penalty != "Zero":
        found += _scales(tensors, fed)
    return found


def _penalty(config: dict[str, Any]) -> str:
    """The class of the penalty, Zero where its strength is none."""
    regularizer = config["regularizer"]
    name = regularizer["penalty"]["_target_"].rsplit(".", 1)[-1]
    return name if regularizer["alpha"] * regularizer["lam"] > 0 else "Zero"


def _scales(tensors: Sequence[ScopedTensor], fed: set[str]) -> list[str]:
    penalised = [entry for entry in tensors if entry.penalized]
    free = [entry for entry in penalised if entry.name.rpartition(".")[0] in fed]
    scales = [entry for entry in penalised if issubclass(entry.kind, NORMS)]
    found = []
    if free:
        found.append(
            f"{len(free)} of {len(penalised)} penalised tensors feed a norm layer, which takes"
            " their scale away: there the penalty chooses zeros, and otherwise only raises the"
            " effective learning rate; compare zeros, not norms"
        )
    if scales:
        found.append(
            f"{len(scales)} of {len(penalised)} penalised tensors are scales of norm layers: all"
            " scales of a layer can shrink together while the next layer makes up for it, so their"
            " norm says little; compare zeros and mIoU"
        )
    return found


@torch.no_grad()
def scale_invariant_layers(model: nn.Module, image: Tensor) -> set[str]:
    """The names of the modules whose output enters a norm layer directly, by one forward pass.

    f(c·w) = f(w) for such a layer's weights and any c > 0.
    """
    made: dict[int, str] = {}
    found: set[str] = set()
    kept: list[Tensor] = []  # so that no two outputs share an id

    def after(name: str, module: nn.Module) -> Any:
        def hook(module: nn.Module, inputs: tuple, output: Any) -> None:
            if isinstance(output, Tensor):
                kept.append(output)
                if next(module.parameters(recurse=False), None) is not None:
                    made[id(output)] = name

        return module.register_forward_hook(hook)

    def before(module: nn.Module) -> Any:
        def hook(module: nn.Module, inputs: tuple) -> None:
            if inputs and id(inputs[0]) in made:
                found.add(made[id(inputs[0])])

        return module.register_forward_pre_hook(hook)

    hooks = [after(name, module) for name, module in model.named_modules()]
    hooks += [before(module) for module in model.modules() if isinstance(module, NORMS)]
    training = model.training
    model.eval()
    try:
        model(image)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return found
