"""Data terms ℓ(y, ŷ), and the objective that adds the penalty to one of them.

Every loss is a mean over *valid* pixels (or classes), so that α keeps its meaning when more or
fewer pixels are labelled. Logits are (N, K, H, W), targets (N, H, W) int64 with 255 = not labelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot, softmax

from seg_l1.data.split import IGNORE
from seg_l1.penalties import Penalty
from seg_l1.scope import ScopedTensor


class CrossEntropy(nn.Module):
    """Σ_valid c_y · (−log softmax(ŷ)_y) / #valid; 0 where nothing is labelled.

    Args:
        class_weights: c, one number per class; none = all 1. Unlike torch's weighted mean the sum
            is divided by the number of pixels, not by the sum of their weights.
    """

    def __init__(self, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        weight = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        total = cross_entropy(logits, target, weight=weight, ignore_index=IGNORE, reduction="sum")
        return total / (target != IGNORE).sum().clamp_min(1)


class Dice(nn.Module):
    """1 − mean over the classes in y of (2Σ p·y + s) / (Σ p + Σ y + s), p = softmax(ŷ).

    Sums run over the valid pixels of the whole batch (Milletari, Navab, Ahmadi, 2016).

    Args:
        smooth: s, keeps the quotient defined.
    """

    def __init__(self, smooth: float = 1.0) -> None:
        super().__init__()
        self.smooth = smooth

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        valid = target != IGNORE
        truth = one_hot(target.where(valid, 0), logits.shape[1]).movedim(-1, 1) * valid[:, None]
        share = softmax(logits, dim=1) * valid[:, None]
        overlap, size = (share * truth).sum((0, 2, 3)), (share + truth).sum((0, 2, 3))
        present = truth.sum((0, 2, 3)) > 0
        dice = (2 * overlap + self.smooth) / (size + self.smooth)
        return ((1 - dice) * present).sum() / present.sum().clamp_min(1)


class CrossEntropyDice(nn.Module):
    """Cross-entropy plus `dice_weight` times Dice."""

    def __init__(
        self, class_weights: Sequence[float] | None = None, dice_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.cross_entropy, self.dice = CrossEntropy(class_weights), Dice()
        self.dice_weight = dice_weight

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.cross_entropy(logits, target) + self.dice_weight * self.dice(logits, target)


class Terms(NamedTuple):
    """The objective and its parts, each 0-d: total = data + penalty."""

    total: Tensor
    data: Tensor
    penalty: Tensor


class RegularizedLoss(nn.Module):
    """F = ℓ(y, ŷ) + strength·Σ_t ω_t·R(w_t) over the penalised tensors of a scope.

    `subgradient` follows the gradient of the total, `proximal` that of the data term; what is
    reported is the same.
    """

    def __init__(
        self, criterion: nn.Module, penalty: Penalty, tensors: Sequence[ScopedTensor]
    ) -> None:
        super().__init__()
        self.criterion = criterion
        self.penalty = penalty
        self.tensors = [entry for entry in tensors if entry.penalized]

    def forward(self, logits: Tensor, target: Tensor, strength: float = 1.0) -> Terms:
        data, penalty = self.criterion(logits, target), self.penalty_term(strength)
        return Terms(data + penalty, data, penalty)

    def penalty_term(self, strength: float) -> Tensor:
        """strength·Σ_t ω_t·R(w_t); costs one read of the weights."""
        values = [e.factor * self.penalty.value(e.groups_first) for e in self.tensors]
        return strength * torch.stack(values).sum() if values else torch.zeros(())
