"""Segmentation networks: (N, C, H, W) float images in, (N, K, H, W) logits out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # `tiles` is used without torch too
    from torch import Tensor


class TrainingOutput(NamedTuple):
    """What a network with an auxiliary head returns in training mode: logits (N, K, H, W) of both.

    The data term is ℓ(main) + weight·ℓ(aux), see `seg_l1.losses.data_term`.
    """

    main: Tensor
    aux: Tensor
    weight: float
