"""The factorized solver: w = u_1·…·u_D entry by entry, with a plain L2 on the factors.

The least ½Σ_k u_k² over all factors of w is (D/2)·|w|^(2/D), for D = 2 that is |w|: gradient
descent on the factors, with the coupled decay strength·u_k, solves the problem of the penalty, and
every optimizer can do it since nothing is left but a smooth loss (Hoff, 2017; Ziyin and Wang,
2023). What it lacks is exact zeros: those are cut, where the optimality condition allows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adagrad

from seg_l1.solvers.base import Solver, weight_decay
from seg_l1.solvers.versions import Versions

IMBALANCE = 0.1
"""Initial imbalance of the factors. With |u| = |v| their product could never change its sign."""

AWAKE = 1e-2
"""What all factors but one of a zero weight start from: with two zeros it would stay zero."""


class Factorized(Solver):
    """Trains the factors of every penalized tensor in its place.

    The tensors stay in the model, hold the product after every step, and collect the gradient of
    the data term; checkpoints are plain. The optimizer gets the factors as further parameters: move
    the model to its device and attach before `optimizer.load_state_dict`. A tensor that somebody
    else writes into between two steps is split anew; writes through `.data` go unseen.

    Attributes:
        cut: a weight is cut when it is smaller than this share of the tensor's largest, and zero
            fulfills the optimality condition for its gradient (a running mean).
        depth: the number of factors.
        factors: of each penalized tensor.
    """

    reads_gradients = True
    cut = 1e-3

    def _prepare(self) -> None:
        weights = [scoped.tensor for scoped in self.penalized_tensors]
        self.mean_grads = [torch.zeros_like(w) for w in weights]
        self.factors = [factors(w, self.depth) for w in weights]
        self.versions = Versions(self.penalized_tensors)
        for scoped, parts in zip(self.penalized_tensors, self.factors, strict=True):
            self.group_of(scoped)["params"].extend(parts)

    def before_step(self) -> None:
        """Gives the factors their gradients, and takes that of the product away."""
        self._split()
        for index, scoped in enumerate(self.penalized_tensors):
            parts, mean_grad = self.factors[index], self.mean_grads[index]
            grad = scoped.tensor.grad
            if grad is None or not self.is_stepping[index]:
                for part in parts:
                    part.grad = None
                continue
            mean_grad.lerp_(grad.nan_to_num(0, 0, 0), 0.1)  # a step may overflow, and be skipped
            for k, part in enumerate(parts):
                part.grad = _product([*parts[:k], *parts[k + 1 :]]).mul_(grad)
                part.grad.add_(part, alpha=self.strength * scoped.factor)
            scoped.tensor.grad = None  # so that the optimizer leaves the product alone

    def _split(self) -> None:
        """Factorizes changed tensors anew: after loading, a DDP broadcast, or any other write."""
        for index, scoped in enumerate(self.penalized_tensors):
            w, parts = scoped.tensor, self.factors[index]
            if parts[0].device != w.device or parts[0].dtype != w.dtype:
                raise ValueError(
                    f"{scoped.name} has another device or dtype than when the factorized solver was"
                    " attached: move the model first, then attach"
                )
            if self.versions.changed(index) and not torch.equal(w, _product(parts)):
                for part, value in zip(parts, factors(w, self.depth), strict=True):
                    part.copy_(value)

    def after_step(self) -> None:
        """Writes the product of the factors into the tensor."""
        for index, scoped in enumerate(self.penalized_tensors):
            parts = self.factors[index]
            if self.is_stepping[index]:
                scoped.tensor.copy_(_product(parts))
            for part in parts:
                part.grad = None  # it belongs to no later step, and to no norm
        self.versions.record_all()

    @torch.no_grad()
    def flush(self) -> None:
        """Cuts small weights in the model, not in the factors, from which the next step goes on."""
        for index, scoped in enumerate(self.penalized_tensors):
            w, mean_grad = scoped.tensor, self.mean_grads[index]
            if not w.requires_grad or not self.counts[index]:
                continue
            small = w.abs() < self.cut * w.abs().max() if w.numel() else w != w
            strength = self.strength * scoped.factor
            optimal = self.penalty.distance(0 * w, mean_grad, strength) == 0
            w.masked_fill_(small & optimal, 0.0)
            self.versions.record(index)

    def detach(self) -> None:
        super().detach()
        for scoped, parts in zip(self.penalized_tensors, self.factors, strict=True):
            gone = {id(part) for part in parts}
            group = self.group_of(scoped)
            group["params"] = [p for p in group["params"] if id(p) not in gone]
            for part in parts:
                self.optimizer.state.pop(part, None)

    def state_dict(self) -> dict[str, Any]:
        factors = [[part.detach() for part in parts] for parts in self.factors]
        return {**super().state_dict(), "factors": factors, "mean_grads": self.mean_grads}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        for parts, saved in zip(self.factors, state["factors"], strict=True):
            for part, value in zip(parts, saved, strict=True):
                part.copy_(value)
        # older checkpoints have `pull`
        loaded = state["mean_grads"] if "mean_grads" in state else state["pull"]
        for mean_grad, value in zip(self.mean_grads, loaded, strict=True):
            mean_grad.copy_(value)
        self.versions.record_all()

    def _check(self) -> None:
        super()._check()
        self.depth: int = getattr(self.penalty, "depth", 0)
        self._require(self.depth > 0, "it is not the least L2 of factors; l1 and bridge are")
        shards = [s.name for s in self.penalized_tensors if s.flat or s.local is not s.tensor]
        if shards:
            raise ValueError(
                f"the factorized solver needs whole tensors, but {shards[0]} is in shards: use the"
                " proximal solver"
            )
        if weight_decay(self.optimizer):
            raise ValueError(
                "the factorized solver decays the factors itself: weight_decay would add to alpha"
                " (SGD, Adam), or be no objective at all (AdamW): set weight_decay=0"
            )
        if isinstance(self.optimizer, Adagrad):
            raise ValueError(
                "the factorized solver gives the optimizer further parameters, for which Adagrad"
                " would lack the sums of its squared gradients: use the proximal solver"
            )
        if self.optimizer.state:
            raise ValueError("the factorized solver must be attached before the first step")


@torch.no_grad()
def factors(w: Tensor, depth: int) -> list[nn.Parameter]:
    """Returns `depth` tensors whose product is w, nearly balanced.

    Their sizes are |w|^(1/depth) but for the first, which is larger by 5 to 15 % (`IMBALANCE`),
    and the last, which is smaller by as much. Where w is 0, only the last is. The draw is the same
    in every process.
    """
    size = w.abs().pow(1 / depth)
    draw = torch.rand(w.shape, generator=torch.Generator().manual_seed(0), dtype=w.dtype)
    tilt = 1 + IMBALANCE * (0.5 + torch.empty_like(w).copy_(draw))
    size = torch.where(w == 0, AWAKE, size)
    last = (w / size.pow(depth - 1)).div_(tilt)
    first = size * tilt
    parts = [first, *(size.clone() for _ in range(depth - 2)), last]
    return [nn.Parameter(part) for part in parts]


def _product(parts: Sequence[Tensor]) -> Tensor:
    result = parts[0].detach().clone()
    for part in parts[1:]:
        result.mul_(part)
    return result
