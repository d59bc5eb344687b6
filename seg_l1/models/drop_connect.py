"""Random regularization of weights; that of activations, dropout, is part of the models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import dropout

from seg_l1.scope import ScopedTensor

STOCHASTIC_LAYERS = ("Dropout", "DropPath", "StochasticDepth")
"""Prefixes of the class names of layers that draw random numbers in training."""


@dataclass(frozen=True)
class DropConnect:
    """Calls `model` with each weight of the scope dropped with probability p (Wan et al., 2013).

    Those that stay are divided by 1 − p. A new draw, from torch's generator, at every call of a
    model in training mode; nothing in evaluation mode. Gradients reach the weights that stayed.

    Attributes:
        p: probability in [0, 1) that a weight is dropped.
        tensors: the scope of the model; its penalized tensors are dropped from.
    """

    p: float
    tensors: Sequence[ScopedTensor]

    def __call__(self, model: nn.Module, images: Tensor) -> Tensor:
        if self.p == 0 or not model.training:
            return model(images)
        dropped = {s.name: dropout(s.tensor, self.p) for s in self.tensors if s.penalized}
        return functional_call(model, dropped, (images,))
