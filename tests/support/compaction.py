"""Networks with channels that do nothing, and a check of what the analysis says of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from seg_l1.compaction.analysis import select
from seg_l1.compaction.capture import Program
from seg_l1.compaction.rules import RULES

MIXING = (nn.modules.conv._ConvNd, nn.Linear)
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


@torch.no_grad()
def randomize(model: nn.Module, seed: int, *, dead: float = 0.5, unread: float = 0.3) -> nn.Module:
    """Gives every layer weights and statistics at random, with zero filters and zero columns.

    Args:
        dead, unread: the largest share of output channels, and of input channels, with weight 0.
    """
    draw = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.rand(*shape, generator=draw, dtype=torch.float64)  # noqa: E731
    randn = lambda *shape: torch.randn(*shape, generator=draw, dtype=torch.float64)  # noqa: E731
    for module in model.double().modules():
        if isinstance(module, MIXING):
            weight = module.weight
            weight.copy_(randn(weight.shape) / weight[0].numel() ** 0.5)
            weight[rand(len(weight)) < dead * rand(1)] = 0
            weight[:, rand(weight.shape[1]) < unread * rand(1)] = 0
            if module.bias is not None:
                module.bias.copy_(randn(module.bias.shape) * (rand(module.bias.shape) < 0.7))
        if isinstance(module, NORMS) and module.weight is not None:
            module.weight.copy_(randn(module.weight.shape) * (rand(module.weight.shape) < 0.9))
            if module.bias is not None:
                module.bias.copy_(randn(module.bias.shape) * (rand(module.bias.shape) < 0.7))
        if isinstance(getattr(module, "running_mean", None), Tensor):
            module.running_mean.copy_(randn(module.running_mean.shape))
            module.running_var.copy_(rand(module.running_var.shape) + 0.5)
    return model.eval()


def _filters(layer: nn.Module) -> Tensor:
    """The weight as a view (O, I / groups, *kernel); of a transposed layer with groups (I, ...)."""
    transposed = getattr(layer, "transposed", False) and layer.groups == 1
    return layer.weight.transpose(0, 1) if transposed else layer.weight


def _leave_one(channels: Tensor, draw: torch.Generator) -> None:
    dead = torch.ones(len(channels), dtype=torch.bool)
    dead[torch.randint(len(channels), (1,), generator=draw)] = False
    channels[dead] = 0


def _kill_half(layer: nn.Module, draw: torch.Generator) -> None:
    """Half of the dead channels emit 0: what a sigmoid makes of it is another constant."""
    count = len(_filters(layer))
    dead = torch.rand(count, generator=draw) < 0.5
    _filters(layer)[dead] = 0
    if layer.bias is not None:
        layer.bias[dead & (torch.rand(count, generator=draw) < 0.5)] = 0


def _any(layer: nn.Module) -> bool:
    return True


def _is_narrow(layer: nn.Module) -> bool:
    return len(_filters(layer)) <= 4


def _is_gate_or_depthwise(layer: nn.Module) -> bool:
    weight = layer.weight
    return getattr(layer, "groups", 1) > 1 or weight[0, 0].numel() == 1


GATES = "half of a gate or of a depthwise layer dies"
PAIRS = "dead, and the next layer too"

PATTERNS = {
    "dead": (_any, lambda layer, _: layer.weight.zero_()),
    "one channel lives": (_any, lambda layer, draw: _leave_one(_filters(layer), draw)),
    "one channel is read": (
        _any,
        lambda layer, draw: _leave_one(_filters(layer).transpose(0, 1), draw),
    ),
    GATES: (_is_gate_or_depthwise, _kill_half),
    "head of one channel": (_is_narrow, lambda layer, draw: _leave_one(_filters(layer), draw)),
    "dead head": (_is_narrow, lambda layer, _: layer.weight.zero_()),
}
"""Zeros beside those of `randomize`: which layers can have them, what becomes of one.

Biases and norm layers, as of `randomize`, make constants other than 0 of them.
"""


class Zeros(NamedTuple):
    """Which weights of a network are 0.

    Attributes:
        dtype: of the weights and of the images.
        seed, dead, unread: of `randomize`.
        layers: pattern -> name of the layer that has it; patterns without a layer are left out.
    """

    dtype: torch.dtype
    seed: int
    dead: float
    unread: float
    layers: dict[str, str]


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if isinstance(module, MIXING)}


def zeros_of(model: nn.Module) -> st.SearchStrategy[Zeros]:
    """Draws zeros of every pattern, which shrink to few layers of few patterns."""
    layers = _layers(model)
    inner = dict(list(layers.items())[:-1])
    names = {PAIRS: list(inner)}
    for pattern, (suits, _) in PATTERNS.items():
        among = layers if pattern == "head of one channel" else inner
        names[pattern] = [name for name, layer in among.items() if suits(layer)]
    chosen = {
        pattern: st.none() | st.sampled_from(found) for pattern, found in names.items() if found
    }
    return st.builds(
        Zeros,
        dtype=st.sampled_from([torch.float64, torch.float32]),
        seed=st.integers(0, 1000),
        dead=st.sampled_from([0.0, 0.3, 0.6]),
        unread=st.sampled_from([0.0, 0.1, 0.3]),
        layers=st.fixed_dictionaries(chosen).map(lambda d: {k: v for k, v in d.items() if v}),
    )


def two_dead_layers(model: nn.Module, dtype: torch.dtype) -> Zeros:
    """Two neighbors are dead, the second with a bias; half of the last gate; shares of others."""
    layers = _layers(model)
    order = list(layers)
    biased = [i for i in range(len(order) - 2) if layers[order[i + 1]].bias is not None]
    pair = biased[len(biased) // 2] if biased else len(order) // 2
    chosen = {PAIRS: order[pair]}
    for name, layer in layers.items():
        if _is_gate_or_depthwise(layer) and not _is_narrow(layer):
            chosen[GATES] = name
    return Zeros(dtype, 0, 0.3, 0.1, chosen)


@torch.no_grad()
def plant(zeros: Zeros, model: nn.Module) -> None:
    """Gives the network random weights with these zeros."""
    randomize(model, zeros.seed, dead=zeros.dead, unread=zeros.unread)
    layers = _layers(model)
    order = list(layers)
    draw = torch.Generator().manual_seed(zeros.seed)
    for pattern, name in zeros.layers.items():
        if pattern == PAIRS:
            layers[name].weight.zero_()
            layers[order[order.index(name) + 1]].weight.zero_()
        else:
            PATTERNS[pattern][1](layers[name], draw)
    model.to(zeros.dtype)


class Perturbed(torch.fx.Interpreter):
    """Runs a captured network, with noise in every channel that the analysis calls irrelevant.

    Attributes:
        states: name of the operation -> its value in the analysis.
        wrong: names of values with a channel that is called constant and is not.
    """

    def __init__(self, module, states, seed: int) -> None:
        super().__init__(module)
        self.states, self.wrong = states, []
        self.draw = torch.Generator().manual_seed(seed)

    def run_node(self, n):
        result = super().run_node(n)
        state = self.states.get(n.name)
        if state is None or state.axis is None or not isinstance(result, Tensor):
            return result
        channels = result.movedim(state.axis, 0).flatten(1)
        fixed = ~torch.from_numpy(state.varying) & torch.from_numpy(state.used)
        expected = torch.from_numpy(state.constant)[:, None].expand_as(channels)
        if not torch.allclose(channels[fixed], expected[fixed], rtol=1e-9, atol=1e-9):
            self.wrong.append(n.name)
        if n.target is torch.ops.aten.max_pool2d_with_indices.default:
            return result
        noise = torch.from_numpy(state.varying & ~state.used)
        if result.is_floating_point() and noise.any():
            changed = result.clone()
            shape = changed.movedim(state.axis, 0)[noise].shape
            changed.movedim(state.axis, 0)[noise] = torch.randn(
                shape, generator=self.draw, dtype=result.dtype
            )
            in_place = str(n.target).split(".")[1].endswith("_")
            return result.copy_(changed) if in_place else changed
        return result


@torch.no_grad()
def check_analysis(model: nn.Module, example: Tensor, seed: int = 0) -> None:
    """Noise in irrelevant channels changes no bit of the outputs; constants are as computed."""
    graph = select(Program(model, [example]).graph(RULES)).graph
    states = {value.name: value for op in graph.operations for value in op.outputs[:1]}
    program = torch.export.export(model, (example,), strict=False)
    module = program.module()
    runner = Perturbed(module, states, seed)
    image = torch.randn(example.shape, dtype=example.dtype)
    outputs = runner.run(image)
    outputs = outputs if isinstance(outputs, Tensor) else outputs[0]
    assert not runner.wrong
    assert np.array_equal(outputs.numpy(), module(image).numpy())
