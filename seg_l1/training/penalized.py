"""The tensors of a run: which are penalized, by which factors, in which groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from seg_l1 import distributed
from seg_l1.compaction.channel_groups import channel_groups
from seg_l1.compaction.costs import cost_factors
from seg_l1.models.layers import eval_mode
from seg_l1.penalties import Penalty, Zero
from seg_l1.runs.files import Config
from seg_l1.scope import Rule, ScopedTensor, scope
from seg_l1.training.network import fitting_the_images


def penalized_tensors(
    model: nn.Module,
    example: Tensor | None,
    rules: Sequence[Rule],
    *,
    penalty: Penalty,
    regularizer: Config,
) -> list[ScopedTensor]:
    """Returns all trainable tensors, with what `regularizer.scope` and `regularizer.cost` say.

    Args:
        example: a batch (1, C, H, W); None if there are no images to train on. Then nothing is
            penalized if costs or channels would have to be found from a batch.
        rules: those of `regularizer.scope`.

    Raises:
        UserError: if the scope makes no sense, if images do not fit the network, or if costs or
            channels cannot be found.
    """
    tensors = scope(model, rules)
    cost = regularizer.get("cost", "none")  # older runs have no such key
    across_tensors = getattr(penalty, "across_tensors", False)
    if isinstance(penalty, Zero) or (cost == "none" and not across_tensors):
        return tensors
    if example is None:
        return [replace(scoped, penalized=False) for scoped in tensors]
    with fitting_the_images(), eval_mode(model), torch.no_grad():
        model(example)  # what it raises has nothing to do with costs
    if across_tensors:
        tensors = channel_groups(model, example, tensors)
    factors = cost_factors(
        model,
        example,
        tensors,
        cost=cost,
        power=regularizer["cost_power"],
        grouped=getattr(penalty, "grouped", False),
    )
    factors = distributed.broadcast_object(factors)  # images of the ranks may differ in size
    return [replace(s, factor=s.factor * f) for s, f in zip(tensors, factors, strict=True)]
