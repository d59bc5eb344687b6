"""The certificate: how far the weights are from the optimality condition of the written objective.

With g the gradient of the data term, w is a stationary point of it plus α·R iff −g ∈ α·∂R(w)
(Karush, Kuhn, Tucker); for L1: |g_j| ≤ α·ω where w_j = 0, and g_j = −α·ω·sign(w_j) elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from seg_l1 import distributed
from seg_l1.data.labels import IGNORE
from seg_l1.losses import data_term
from seg_l1.models.drop_connect import STOCHASTIC_LAYERS
from seg_l1.penalties import Penalty, Zero
from seg_l1.scope import ScopedTensor
from seg_l1.solvers import Solver
from seg_l1.solvers.blocks import blocks
from seg_l1.solvers.metric import prox_step

NAMES = ("kkt/zeros", "kkt/support", "kkt/mapping")


def gradients(
    model: nn.Module,
    criterion: nn.Module,
    *,
    batches: Iterable[tuple[Tensor, Tensor]],
    tensors: Sequence[ScopedTensor],
) -> list[Tensor]:
    """Returns the gradient of the data term per tensor, the mean over the labeled pixels.

    Norm layers use the statistics of each batch, as in training, but their running statistics are
    not changed; nothing is dropped; `.grad` is not touched. In a distributed run each process
    passes whole batches of its own, and gets the mean over those of all processes.

    Args:
        batches: images (N, C, H, W) and masks (N, H, W).
        tensors: the tensors to differentiate with respect to.
    """
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = not type(module).__name__.startswith(STOCHASTIC_LAYERS)
    weights = [scoped.tensor for scoped in tensors]
    sums = [torch.zeros_like(w) for w in weights]
    labeled = torch.zeros((), dtype=torch.int64, device=next(model.parameters()).device)
    for images, masks in batches:
        pixels = (masks != IGNORE).sum()
        with torch.enable_grad(), distributed.local_only():
            loss = data_term(criterion, model(images), masks) * pixels
            grads = torch.autograd.grad(loss, weights, allow_unused=True)
        for total, grad in zip(sums, grads, strict=True):
            if grad is not None:
                total.add_(grad)
        labeled += pixels
    for module, training in modes:
        module.training = training
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    distributed.all_reduce(labeled, *sums)
    return [total / labeled.clamp_min(1) for total in sums]


@torch.no_grad()
def certificate(
    penalty: Penalty,
    tensors: Sequence[ScopedTensor],
    *,
    grads: Sequence[Tensor],
    strength: float,
) -> dict[str, float]:
    """Returns how well the penalized `tensors` fulfill the condition.

    "kkt/zeros" is the share of zero weights (or groups) for which zero is right, "kkt/support" the
    largest violation among the others, in units of strength·ω. Each is NaN where there are none;
    "kkt/support" also without a penalty.

    Args:
        grads: the gradient of the data term of each tensor.
        strength: α·λ(t).
    """
    zeros = optimal = 0
    largest = [torch.zeros(())]
    weights = [scoped.tensor for scoped in tensors]
    for block in blocks(penalty, tensors):
        w = block.gather(weights)
        distance = penalty.distance(w, block.gather(grads), strength * block.factor)
        alive = w != 0 if distance.shape == w.shape else (w != 0).reshape(len(w), -1).any(1)
        optimal += int((distance[~alive] == 0).sum())
        zeros += int((~alive).sum())
        if bool(alive.any()) and strength and not isinstance(penalty, Zero):
            largest.append((distance[alive].amax() / (strength * block.factor)).cpu())
    return {
        "kkt/zeros": optimal / zeros if zeros else float("nan"),
        "kkt/support": float(torch.stack(largest).max()) if len(largest) > 1 else float("nan"),
    }


@torch.no_grad()
def mapping_norm(solver: Solver, grads: Sequence[Tensor]) -> float:
    """‖D·(w − w⁺)/lr‖₂ of one full step w⁺ = prox(w − lr·g/D) in the optimizer's present metric.

    0 at a stationary point; the gradient's norm where there is no penalty. NaN where the metric is
    unknown (as Adam's is before the first step), the learning rate is 0, or there is no prox.
    """
    if not hasattr(solver.penalty, "prox"):
        return float("nan")
    units: list[float | Tensor] = []
    for scoped, count in zip(solver.penalized_tensors, solver.counts, strict=True):
        group = solver.group_of(scoped)
        try:
            lr, count = float(group["lr"]), max(1, count)
            unit = prox_step(solver.optimizer, group, scoped.tensor, lr, count)
        except TypeError:
            return float("nan")
        if not isinstance(unit, Tensor) and unit == 0:
            return float("nan")
        units.append(unit)
    total = torch.zeros(())
    weights = [scoped.tensor for scoped in solver.penalized_tensors]
    for block in blocks(solver.penalty, solver.penalized_tensors):
        w, grad = block.gather(weights), block.gather(grads)
        unit = block.along(block.join([units[index] for index in block.indices]))
        step = unit * solver.strength * block.factor
        moved = w - solver.penalty.prox(w - unit * grad, step)
        total = total + (moved / unit).square().sum().cpu()
    return float(total.sqrt())
