"""`compact`: a network without the channels that do nothing."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from seg_l1.compaction.analysis import Selection, select
from seg_l1.compaction.capture import Program
from seg_l1.compaction.graph import Graph, Operation
from seg_l1.compaction.mixing import Mixing
from seg_l1.compaction.rules import RULES, SHAPES
from seg_l1.compaction.slicing import sliced
from seg_l1.metrics.sparsity import multiply_adds, parameters
from seg_l1.models.layers import eval_mode

TOLERANCE = 1e-3
"""A larger difference, relative to the largest output, is a fault of a rule and not rounding."""


@dataclass(frozen=True)
class LayerChannels:
    """The output channels of a layer with weights.

    Attributes:
        name: of its weight, without ".weight".
        live: number of channels that vary and are read.
        constant: number that have the same value for all pixels and images.
        unread: number that vary, but that nothing reads.
        kept: number in the compact network.
    """

    name: str
    live: int
    constant: int
    unread: int
    kept: int

    @property
    def total(self) -> int:
        """Channels of the dense network."""
        return self.live + self.constant + self.unread


@dataclass(frozen=True)
class CompactModel:
    """A compact network, and what was removed to get it.

    Attributes:
        model: the compact network, of the same class as the dense one and in the same mode.
        layers: the channels of each layer with weights, in the order of execution.
        whole: operators whose inputs keep all channels: (operator, layer, reason).
        parameters: number in the dense and in the compact network.
        multiply_adds: number in the dense and in the compact network, for the example.
        difference: the largest absolute difference between their outputs for the example.
    """

    model: nn.Module
    layers: list[LayerChannels]
    whole: list[tuple[str, str, str]]
    parameters: tuple[int, int]
    multiply_adds: tuple[int, int]
    difference: float

    @property
    def is_unchanged(self) -> bool:
        """Whether no channel was removed."""
        return all(layer.kept == layer.total for layer in self.layers)

    def __str__(self) -> str:
        (dense, small), (dense_adds, small_adds) = self.parameters, self.multiply_adds
        if self.is_unchanged:
            return f"nothing to remove: {dense:,} parameters, {dense_adds:,} multiply-adds"
        return (
            f"{dense:,} -> {small:,} parameters ({dense / small:.1f}x fewer),"
            f" {dense_adds:,} -> {small_adds:,} multiply-adds"
            f" ({dense_adds / max(1, small_adds):.1f}x fewer),"
            f" outputs equal within {self.difference:.1e}"
        )


class CompactionError(RuntimeError):
    """The compact network does not give the outputs of the dense one."""


class Compactor:
    """Compacts a network whose weights change: it is captured once.

    Args:
        model, example: as for `compact`.

    Raises:
        CaptureError: if `torch.export` cannot capture the network.
    """

    def __init__(self, model: nn.Module, example: Tensor | Sequence[Tensor]) -> None:
        self.model = model
        self.inputs = [example] if isinstance(example, Tensor) else list(example)
        with torch.no_grad():
            self._program = Program(model, self.inputs)
        self._multiply_adds = multiply_adds(model, *self.inputs)

    @torch.no_grad()
    def compact(self, multiple: int = 1) -> CompactModel:
        """Returns what `compact` does, for the present weights.

        Raises:
            CompactionError: see `compact`.
        """
        dense = _outputs(self.model, self.inputs)
        # a network may have sizes of its tensors in its code, so that reshapes cannot change, and
        # a class of its own for its layers, which ignores a bias
        without_shapes = {name: rule for name, rule in RULES.items() if name not in SHAPES}
        attempts = (
            self._attempt(dense, self._program.graph(rules, biases=biases), multiple)
            for biases in (True, False)
            for rules in (RULES, without_shapes)
        )
        made = next(filter(None, attempts), None)
        if made is None:
            raise CompactionError("the compact network gives other outputs; please report it")
        small, difference, selection = made
        return CompactModel(
            small,
            [_layer(op, selection) for op in selection.graph.operations if _has_channels(op)],
            [(op.operator, op.layer, op.whole) for op in selection.graph.operations if op.whole],
            (parameters(self.model), parameters(small)),
            (self._multiply_adds, multiply_adds(small, *self.inputs)),
            difference,
        )

    def _attempt(
        self, dense: list[Tensor], graph: Graph, multiple: int
    ) -> tuple[nn.Module, float, Selection] | None:
        """The compact network, the largest difference, the selection; None if it is not equal."""
        selection = select(graph, multiple)
        small = sliced(self.model, selection)
        try:
            outputs = _outputs(small, self.inputs)
        except RuntimeError:
            return None
        pairs = list(zip(outputs, dense, strict=True))
        if any(a.shape != b.shape for a, b in pairs):
            return None
        difference = max((float((a - b).abs().max()) for a, b in pairs), default=0.0)
        scale = max((float(b.abs().max()) for b in dense), default=0.0)
        equal = difference <= _tolerance(self.model) * scale
        return (small, difference, selection) if equal else None


def compact(
    model: nn.Module, example: Tensor | Sequence[Tensor], *, multiple: int = 1
) -> CompactModel:
    """Removes the channels that cannot change what `model` computes in eval mode.

    A channel goes if it has the same value for all pixels and images, or if all weights that read
    it are 0. Its constant moves into the biases of the layers that read it. Nothing is ranked, and
    nothing is approximated: outputs agree up to rounding, with the statistics of the norm layers
    as they are stored. A network without such channels keeps its size.

    Args:
        model: any network that `torch.export` can capture; it is not changed.
        example: input (N, C, H, W), or the sequence of inputs, on the device of the model.
        multiple: channels that could go are kept until each layer has a multiple of this, which
            some processors compute faster.

    Raises:
        CaptureError: if `torch.export` cannot capture the network.
        CompactionError: if the outputs for the example differ: please report it.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
    >>> net[0].weight.data[2:] = 0
    >>> compact(net, torch.zeros(1, 3, 16, 16)).model[0]
    Conv2d(3, 2, kernel_size=(3, 3), stride=(1, 1))
    """
    return Compactor(model, example).compact(multiple)


def _outputs(model: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Returns the outputs in eval mode; those of 16 bits are computed in float32."""
    if _precision(model) > torch.finfo(torch.float32).eps:
        model = deepcopy(model).float()
        inputs = [x.float() if x.is_floating_point() else x for x in inputs]
    with eval_mode(model):
        return [leaf for leaf in tree_leaves(model(*inputs)) if isinstance(leaf, Tensor)]


def _precision(model: nn.Module) -> float:
    """The largest spacing of numbers around 1 among the parameters of a network."""
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return max((torch.finfo(kind).eps for kind in kinds), default=0.0)


def _tolerance(model: nn.Module) -> float:
    """Biases are rounded to the precision of the parameters."""
    return max(TOLERANCE, 4 * _precision(model))


def _has_channels(operation: Operation) -> bool:
    return isinstance(operation, Mixing) and operation.out.axis is not None


def _layer(operation: Operation, selection: Selection) -> LayerChannels:
    out = operation.out
    return LayerChannels(
        operation.arguments["weight"].name.removesuffix(".weight"),
        live=int((out.varying & out.used).sum()),
        constant=int((~out.varying).sum()),
        unread=int((out.varying & ~out.used).sum()),
        kept=int(selection.stays(out).sum()),
    )
