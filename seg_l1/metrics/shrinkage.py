"""Sources of shrinkage: all that makes weights smaller, and notes on what is easily confused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seg_l1.models.layers import eval_mode
from seg_l1.scope import ScopedTensor

DECOUPLED = ("AdamW", "Adafactor", "Muon")
"""Optimizers of torch whose weight decay bypasses the gradients."""

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def sources(config: dict[str, Any], rows: Sequence[dict[str, float]] = ()) -> list[str]:
    """Returns what shrinks weights, or keeps them from growing, in a run of `config`.

    Args:
        rows: those of the finished epochs, for the share of clipped steps.
    """
    regularizer, trainer = config["regularizer"], config["trainer"]
    penalty = _penalty(config)
    causes = []
    if penalty != "Zero":
        decoupled = " (decoupled)" if regularizer["penalty"].get("mode") == "decoupled" else ""
        causes.append(f"{penalty} with alpha={regularizer['alpha']:g}{decoupled}")
    if decay := config["optimizer"].get("weight_decay"):
        causes.append(f"the optimizer's weight_decay={decay:g}")
    if rate := config["model"].get("dropout"):
        causes.append(f"dropout of {100 * rate:g} %")
    if rate := regularizer["drop_connect"]:
        causes.append(f"drop_connect of {100 * rate:g} % of the penalized weights")
    if trainer["early_stopping"]:
        causes.append(f"early stopping after {trainer['early_stopping']} epochs")
    for name in ("clip_norm", "clip_value"):
        if trainer[name]:
            share = sum(row["train/clipped"] for row in rows) / max(1, len(rows))
            steps = f" in {100 * share:.0f} % of the steps" if rows else ""
            causes.append(f"clipping of gradients at {name}={trainer[name]:g}{steps}")
    return causes


def notes(
    config: dict[str, Any], tensors: Sequence[ScopedTensor], scale_invariant: set[str]
) -> list[str]:
    """Returns remarks on the results: mixed penalties, keys without an effect, free scales.

    Args:
        scale_invariant: names of modules, see `scale_invariant_layers`.
    """
    optimizer, regularizer = config["optimizer"], config["regularizer"]
    penalty, decay = _penalty(config), optimizer.get("weight_decay")
    remarks = []
    if decay and penalty == "Zero":
        remarks.append(
            f"there is no penalty, but the optimizer decays weights (weight_decay={decay:g}):"
            " this is not a run without regularization"
        )
    elif decay:
        kind = _kind_of_decay(optimizer)
        remarks.append(f"two penalties at once: {penalty}, and weight_decay={decay:g} ({kind})")
    if (config["model"].get("dropout") or regularizer["drop_connect"]) and penalty != "Zero":
        remarks.append(f"{penalty} and random dropping at once")
    if regularizer["penalty"].get("mode") == "decoupled":
        remarks.append("decoupled decay minimizes no explicit objective: it depends on lr")
    if config["trainer"]["clip_value"] and penalty != "Zero":
        remarks.append("while clip_value clips, alpha counts for more; clip_norm preserves it")
    if config["dataset"].get("class_weights") and "class_weights" not in config["loss"]:
        name = config["loss"]["_target_"].rsplit(".", 1)[-1]
        remarks.append(f"{name} is a mean over classes and does not use dataset.class_weights")
    if penalty != "Zero":
        remarks += _scales(tensors, scale_invariant)
    return remarks


def _kind_of_decay(optimizer: dict[str, Any]) -> str:
    """Returns what the weight decay of the configured optimizer amounts to."""
    module, _, name = optimizer["_target_"].rpartition(".")
    if optimizer.get("decoupled_weight_decay") or name in DECOUPLED:
        return "decoupled from the loss, so that it is no alpha"
    if module.startswith("torch.optim"):
        return "an L2 penalty of that alpha, on every parameter"
    return f"applied in the way of {name}"


def _penalty(config: dict[str, Any]) -> str:
    """Returns the class name of the penalty, Zero where its strength is 0."""
    regularizer = config["regularizer"]
    name = regularizer["penalty"]["_target_"].rsplit(".", 1)[-1]
    return name if regularizer["alpha"] * regularizer["lam"] > 0 else "Zero"


def _scales(tensors: Sequence[ScopedTensor], scale_invariant: set[str]) -> list[str]:
    penalized = [entry for entry in tensors if entry.penalized]
    invariant = [e for e in penalized if e.name.rpartition(".")[0] in scale_invariant]
    scales = [entry for entry in penalized if issubclass(entry.kind, NORMS)]
    remarks = []
    if invariant:
        remarks.append(
            f"{len(invariant)} of {len(penalized)} penalized tensors are followed by a"
            " normalization layer, so compare their zeros, not their norms (docs/objective.md)"
        )
    if scales:
        remarks.append(
            f"{len(scales)} of {len(penalized)} penalized tensors are scales of norm layers: all"
            " scales of a layer can shrink together while the next layer compensates, so their norm"
            " says little; compare zeros and mIoU"
        )
    return remarks


@torch.no_grad()
def scale_invariant_layers(model: nn.Module, image: Tensor) -> set[str]:
    """Returns the names of the modules whose output is the input of a norm layer.

    For the weights w of such a layer f(c·w) = f(w) for any c > 0. Found by one forward pass.
    """
    producer: dict[int, str] = {}
    names: set[str] = set()
    outputs: list[Tensor] = []  # kept so that no two of them share an id

    def record_output(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor):
                outputs.append(output)
                if next(module.parameters(recurse=False), None) is not None:
                    producer[id(output)] = name

        return hook

    def record_norm(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs and id(inputs[0]) in producer:
            names.add(producer[id(inputs[0])])

    hooks = [m.register_forward_hook(record_output(name)) for name, m in model.named_modules()]
    norms = [module for module in model.modules() if isinstance(module, NORMS)]
    hooks += [module.register_forward_pre_hook(record_norm) for module in norms]
    try:
        with eval_mode(model):
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return names
