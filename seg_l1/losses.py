"""Data terms ℓ(y, ŷ), and the objective that adds the penalty to one of them.

Every loss is a mean over *valid* pixels (or classes), so that α keeps its meaning when more or
fewer pixels are labeled. Logits are (N, K, H, W), targets (N, H, W) int64 with 255 = not labeled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot, softmax

from seg_l1.data.labels import IGNORE
from seg_l1.models import TrainingOutput
from seg_l1.penalties import Penalty
from seg_l1.scope import ScopedTensor
from seg_l1.solvers.blocks import blocks


class PerPixel(nn.Module):
    """A loss that is a mean over pixels: that of a batch follows from those of its parts.

    For other losses several processes gather their logits first: see `whole_batch.gather_outputs`.
    """


class CrossEntropy(PerPixel):
    """Σ_valid c_y · (−log softmax(ŷ)_y) / #valid; 0 where nothing is labeled.

    Args:
        class_weights: c, one number per class; None = all 1. Unlike torch's weighted mean the sum
            is divided by the number of pixels, not by the sum of their weights.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.register_buffer("class_weights", _vector(class_weights), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        weight = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        total = cross_entropy(logits, target, weight=weight, ignore_index=IGNORE, reduction="sum")
        return total / (target != IGNORE).sum().clamp_min(1)

    def weighted_mean(self, losses: Tensor, target: Tensor) -> Tensor:
        """Returns Σ_valid c_y · losses / #valid of losses (N, H, W), 0 where y is not valid."""
        valid = target != IGNORE
        if self.class_weights is not None:
            losses = losses * self.class_weights.to(losses.dtype)[target.where(valid, 0)]
        return losses.sum() / valid.sum().clamp_min(1)


class Focal(CrossEntropy):
    """Σ_valid c_y · (1 − p_y)^γ · (−log p_y) / #valid, p = softmax(ŷ) (Lin et al., 2017).

    Their α_t is the class weight c_y. γ = 0 is cross-entropy; 0 where nothing is labeled.

    Args:
        class_weights: c, one number per class; None = all 1.
        gamma: γ, how strongly pixels that are already right are down-weighted.
    """

    def __init__(self, class_weights: Sequence[float] | None = None, gamma: float = 2.0) -> None:
        super().__init__(class_weights)
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        nll = cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
        # 0^γ has no finite derivative for γ < 1
        wrong = (-torch.expm1(-nll)).clamp_min(torch.finfo(nll.dtype).tiny)
        return self.weighted_mean(wrong**self.gamma * nll, target)


class MeanAbsoluteError(CrossEntropy):
    """Σ_valid c_y · Σ_k |p_k − [k = y]| / #valid = Σ_valid c_y · 2(1 − p_y) / #valid (MAE).

    p = softmax(ŷ). A pixel costs at most 2c_y, and without weights its K possible labels cost
    2K − 2 together whatever p is. Labels that are wrong uniformly, with a probability below
    1 − 1/K, therefore do not move the minimum of the expected loss (Ghosh, Kumar, Sastry, 2017).
    torch's `l1_loss` of p and one-hot y, a mean over the classes too, is 1/K of it. 0 where nothing
    is labeled.

    Args:
        class_weights: c, one number per class; None = all 1.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        nll = cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
        return self.weighted_mean(-2 * torch.expm1(-nll), target)


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
        share, truth = _masked(logits, target)
        overlap, size = (share * truth).sum((0, 2, 3)), (share + truth).sum((0, 2, 3))
        dice = (2 * overlap + self.smooth) / (size + self.smooth).clamp_min(1e-7)
        return _mean(1 - dice, truth.sum((0, 2, 3)) > 0)


class Tversky(nn.Module):
    """Mean over the classes in y of 1 − (TP + s) / (TP + a·FP + b·FN + s) (Salehi et al., 2017).

    With p = softmax(ŷ), TP = Σ p·y, FP = Σ p·(1−y) and FN = Σ (1−p)·y over the valid pixels of the
    whole batch; 0 where nothing is labeled. a = b = ½ is Dice of twice the s, a = b = 1 the IoU.

    Args:
        fp_weight: a, the cost of a false positive; theirs is α = 0.3.
        fn_weight: b, the cost of a false negative; theirs is β = 0.7.
        smooth: s, keeps the quotient defined.
        class_weights: c, the mean over the classes is Σ c·loss / Σ c; None = all 1.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        fp_weight: float = 0.3,
        fn_weight: float = 0.7,
        smooth: float = 1.0,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if fp_weight + fn_weight == 0:
            raise ValueError("fp_weight and fn_weight: both are 0, so that no mistake has a cost")
        self.fp_weight, self.fn_weight, self.smooth = fp_weight, fn_weight, smooth
        self.register_buffer("class_weights", _vector(class_weights), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        share, truth = _masked(logits, target)
        overlap = (share * truth).sum((0, 2, 3))
        positives, predicted = truth.sum((0, 2, 3)), share.sum((0, 2, 3))
        cost = self.fp_weight * (predicted - overlap) + self.fn_weight * (positives - overlap)
        index = (overlap + self.smooth) / (overlap + cost + self.smooth).clamp_min(1e-7)
        return _mean(1 - index, positives > 0, self.class_weights)


class Lovasz(nn.Module):
    """Lovász-softmax (Berman, Triki, Blaschko, 2018): mean over the classes in y of J(|y − p|).

    J is the Lovász extension of 1 − IoU of a class: Σ_i e_(i)·(J_i − J_(i−1)), with the errors e of
    the valid pixels of the whole batch in descending order and J_i the 1 − IoU of a prediction that
    is wrong at the first i. For hard predictions it is 1 − IoU; 0 where nothing is labeled.

    Args:
        class_weights: c, the mean over the classes is Σ c·J / Σ c; None = all 1.
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.register_buffer("class_weights", _vector(class_weights), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        share, truth = (x.movedim(1, 0).flatten(1) for x in _masked(logits, target))
        errors, order = (truth - share).abs().sort(descending=True)  # not valid: 0, at the end
        truth = truth.gather(1, order).double()  # differences of sums over millions of pixels
        positives = truth.sum(1, keepdim=True)
        union = positives + (1 - truth).cumsum(1)
        jaccard = 1 - (positives - truth.cumsum(1)) / union.clamp_min(1)
        weights = jaccard.diff(dim=1, prepend=torch.zeros_like(positives))
        losses = (errors * weights.to(errors.dtype)).sum(1)
        return _mean(losses, positives[:, 0] > 0, self.class_weights)


class CrossEntropyDice(nn.Module):
    """Cross-entropy, to which alone `class_weights` apply, plus `dice_weight` times Dice."""

    def __init__(
        self, class_weights: Sequence[float] | None = None, dice_weight: float = 1.0
    ) -> None:
        super().__init__()
        self.cross_entropy, self.dice = CrossEntropy(class_weights), Dice()
        self.dice_weight = dice_weight

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.cross_entropy(logits, target) + self.dice_weight * self.dice(logits, target)


def main_logits(output: Tensor | TrainingOutput) -> Tensor:
    """Returns the main logits (N, K, H, W) in a network's output, without an auxiliary head's."""
    return output.main if isinstance(output, TrainingOutput) else output


def data_term(criterion: nn.Module, output: Tensor | TrainingOutput, target: Tensor) -> Tensor:
    """Returns ℓ of the logits in float32; with an auxiliary head, ℓ(main) + weight·ℓ(aux)."""
    data = criterion(main_logits(output).float(), target)
    if isinstance(output, TrainingOutput):
        data = data + output.weight * criterion(output.aux.float(), target)
    return data


class Terms(NamedTuple):
    """The objective and its parts, each 0-d: total = data + penalty."""

    total: Tensor
    data: Tensor
    penalty: Tensor


class RegularizedLoss(nn.Module):
    """F = ℓ(y, ŷ) + strength·Σ_t ω_t·R(w_t) over the penalized tensors (or groups) of a scope.

    The solver `subgradient` follows the gradient of the total, `proximal` that of the data term;
    both report the same objective.
    """

    def __init__(
        self, criterion: nn.Module, penalty: Penalty, tensors: Sequence[ScopedTensor]
    ) -> None:
        super().__init__()
        self.criterion = criterion
        self.penalty = penalty
        self.tensors = [entry for entry in tensors if entry.penalized]
        self.blocks = blocks(penalty, self.tensors)

    def forward(self, logits: Tensor, target: Tensor, strength: float = 1.0) -> Terms:
        data, penalty = self.criterion(logits, target), self.penalty_term(strength)
        return Terms(data + penalty, data, penalty)

    def penalty_term(self, strength: float) -> Tensor:
        """Returns strength·Σ_t ω_t·R(w_t); costs one pass over the weights."""
        weights = [scoped.tensor for scoped in self.tensors]
        values = [b.factor * self.penalty.value(b.gather(weights)) for b in self.blocks]
        return strength * torch.stack(values).sum() if values else torch.zeros(())


def _masked(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax and one-hot truth, both (N, K, H, W) and 0 at pixels that are not valid."""
    valid = (target != IGNORE)[:, None]
    truth = one_hot(target.where(valid[:, 0], 0), logits.shape[1]).movedim(-1, 1)
    share = softmax(logits, dim=1) * valid
    return share, (truth * valid).to(share.dtype)


def _mean(losses: Tensor, present: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean, by weight, of the losses (K,) of the classes that are present; 0 where none is."""
    share = present.to(losses.dtype) if weights is None else present * weights.to(losses.dtype)
    return (losses * share).sum() / share.sum().clamp_min(1e-7)


def _vector(weights: Sequence[float] | None) -> Tensor | None:
    """Weights of classes as a tensor.

    Raises:
        ValueError: if all are 0.
    """
    if weights is not None and not any(weights):
        raise ValueError("class_weights: all are 0, so that nothing is learned")
    return None if weights is None else torch.tensor(weights, dtype=torch.float32)
