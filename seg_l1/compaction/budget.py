"""The cost of the compact network of present weights, and the nearest weights within a budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seg_l1.compaction.analysis import Selection, select
from seg_l1.compaction.capture import Program
from seg_l1.compaction.graph import Mask
from seg_l1.compaction.mixing import Mixing
from seg_l1.compaction.rules import RULES
from seg_l1.metrics.sparsity import multiply_adds
from seg_l1.penalties import Penalty
from seg_l1.scope import ScopedTensor
from seg_l1.solvers.blocks import blocks

MEASURES = ("multiply_adds", "parameters")

NEAR = 0.99
"""A network within a budget is close enough if it uses at least this share of the budget."""

LONGEST = 1e12
"""The longest proximal step that is tried."""

_HALVINGS, _RETURNS = 40, 30
"""Halvings of the interval in which the step of `CostModel.fit` lies, at most; then smaller steps
after which single channels return."""


class CostModel:
    """The size of the compact network as the weights of a network change: it is captured once.

    Args:
        model: that `torch.export` can capture.
        example: a batch (1, C, H, W) on the device of the model.
        measure: one of `MEASURES`.

    Attributes:
        dense: the size of the network as it is built.

    Raises:
        CaptureError: if `torch.export` cannot capture the network.
    """

    def __init__(self, model: nn.Module, example: Tensor, measure: str) -> None:
        self.model, self.measure = model, measure
        with torch.no_grad():
            self._program = Program(model, [example])
        self.dense = sum(p.numel() for p in model.parameters())
        if measure == "multiply_adds":
            self.dense = multiply_adds(model, example)
        everything = self._select()
        everything.kept[:] = True
        self._rest = self.dense - self._counted(everything)  # attention, for example

    @torch.no_grad()
    def cost(self) -> int:
        """Returns the size of the compact network of the present weights.

        Constant channels that padded convolutions read are not counted: `fit` removes them.
        """
        with self.restored():
            return self._cost(self._close())

    @torch.no_grad()
    def least(self, penalty: Penalty, tensors: Sequence[ScopedTensor]) -> int:
        """Returns the size of the smallest network that `fit` can find."""
        return self._cost(self._after_step(LONGEST, penalty, tensors))

    @torch.no_grad()
    def fit(
        self, budget: float, penalty: Penalty, tensors: Sequence[ScopedTensor]
    ) -> dict[str, Tensor]:
        """Zeroes channels until the compact network costs at most `budget`; changes the weights.

        These are the channels that vanish first as the proximal step of the penalty, with the
        factors of the scope, grows: for a group penalty those with the smallest norms. The largest
        channel of a tensor stays. The weights that stay keep their values. Weights that read a
        constant channel become 0, so that its constant no longer matters.

        Returns:
            bool, by the name of each weight of a convolution or linear layer: the entries that
            stay in the compact network.

        Raises:
            ValueError: if no network within the budget is found, as below `least()`.
        """
        low, high = 0.0, 1e-4
        while self._cost(found := self._after_step(high, penalty, tensors)) > budget:
            low, high = high, 4 * high
            if high > LONGEST:
                raise ValueError(f"no network has a cost of {budget} or less")
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            if self._cost(found) >= NEAR * budget or middle in (low, high):
                break
            tried = self._after_step(middle, penalty, tensors)
            if self._cost(tried) > budget:
                low = middle
            else:
                high, found = middle, tried
        for _ in range(_RETURNS):
            if self._cost(found) >= NEAR * budget:
                break
            high *= 0.93
            found = self._returned(found, self._after_step(high, penalty, tensors), budget)
        masks = _masks(found)
        self.remove(masks)
        return masks

    @torch.no_grad()
    def remove(self, masks: Mapping[str, Tensor]) -> None:
        """Sets to zero what is not in the masks that `fit` returned."""
        parameters = self._parameters()
        for name, mask in masks.items():
            parameters[name].mul_(mask)

    def state_dict(self) -> dict[str, Any]:
        """Returns {}: all is counted anew."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Does nothing."""

    def _returned(self, small: Selection, large: Selection, budget: float) -> Selection:
        """Adds channels of a larger network to a smaller one as long as the budget allows it."""
        kept = small.kept.copy()
        for channel in np.flatnonzero(large.kept & ~small.kept):
            kept[channel] = True
            kept[channel] = self._cost(Selection(large.graph, kept)) <= budget
        return Selection(large.graph, kept)

    def _after_step(
        self, step: float, penalty: Penalty, tensors: Sequence[ScopedTensor]
    ) -> Selection:
        """The channels that stay after a proximal step; the weights stay as they are."""
        with self.restored():
            _take_step(step, penalty, [scoped for scoped in tensors if scoped.penalized])
            return self._close()

    def _close(self) -> Selection:
        """Removes weights that read constants, until there are none; returns what stays."""
        parameters = self._parameters()
        while True:
            selection, changed = self._select(), False
            for name, mask in _masks(selection).items():
                changed |= bool((parameters[name] * ~mask).any())
                parameters[name].mul_(mask)
            if not changed:
                return selection

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Context manager: the weights of layers are afterwards as they were."""
        parameters = self._parameters()
        saved = {name: tensor.clone() for name, tensor in parameters.items()}
        try:
            yield
        finally:
            for name, tensor in parameters.items():
                tensor.copy_(saved[name])

    def _parameters(self) -> dict[str, Tensor]:
        return dict(self.model.named_parameters(remove_duplicate=False))

    def _select(self) -> Selection:
        return select(self._program.graph(RULES))

    def _cost(self, selection: Selection) -> int:
        return self._counted(selection) + self._rest

    def _counted(self, selection: Selection) -> int:
        if self.measure == "parameters":
            names = dict(self.model.named_parameters())
            found = {id(v): v for n, v in selection.graph.parameters.items() if n in names}
            return sum(_entries(v.shape, v.sliced, selection.kept) for v in found.values())
        mixing = [op for op in selection.graph.operations if isinstance(op, Mixing)]
        return sum(
            op.multiply_adds_per_weight
            * _entries(op.weight.shape, op.weight.sliced, selection.kept)
            for op in mixing
        )


def _take_step(step: float, penalty: Penalty, tensors: Sequence[ScopedTensor]) -> None:
    """Takes a proximal step; of a kernel that would vanish, the largest group stays as it was."""
    weights, before = [scoped.tensor for scoped in tensors], []
    for block in blocks(penalty, tensors):
        w = block.gather(weights)
        before.append((block, w.clone()))
        block.store(penalty.prox(w, step * block.factor, out=w), weights)
    for block, old in before:
        kernels = [weights[index] for index in block.indices if weights[index].ndim > 1]
        if not all(kernel.any() for kernel in kernels):
            largest = int(old.flatten(1).square().sum(1).argmax())
            w = block.gather(weights)
            w[largest] = old[largest]
            block.store(w, weights)


def _entries(shape: tuple[int, ...], sliced: dict[int, np.ndarray], kept: Mask) -> int:
    """The number of entries that stay."""
    return math.prod(
        int(kept[sliced[dim]].sum()) if dim in sliced else size for dim, size in enumerate(shape)
    )


def _masks(selection: Selection) -> dict[str, Tensor]:
    """The entries of each weight that stay, but for those that read a constant channel."""
    masks: dict[str, Tensor] = {}
    for op in selection.graph.operations:
        if not isinstance(op, Mixing) or op.weight.data is None or op.out.axis is None:
            continue
        kernel, sources = op.kernel()
        count = int(sources.max()) + 1
        read = op.x.spread(count)[0]
        if op.x.axis is not None:
            read = read & selection.stays(op.x)
        stay = read[sources] & selection.stays(op.out)[:, None]
        before = op.weight.data
        op.store(torch.from_numpy(stay)[..., None].expand_as(kernel).double())
        mask = op.weight.data.bool().to(before.device)
        op.weight.data = before
        name = op.weight.name
        masks[name] = masks[name] | mask if name in masks else mask  # of a shared weight
    return masks
