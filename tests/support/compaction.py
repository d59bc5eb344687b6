"""Networks with channels that do nothing, and a check of what the analysis says of them."""

from __future__ import annotations

import numpy as np
import torch
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


@torch.no_grad()
def _kill_layers(model: nn.Module, seed: int) -> None:
    """Whole layers are dead: a tenth of them, in two neighbors at least."""
    layers = [module for module in model.modules() if isinstance(module, MIXING)]
    draw = torch.Generator().manual_seed(seed)
    chosen = torch.rand(len(layers), generator=draw) < 0.1
    middle = len(layers) // 2
    chosen[middle : middle + 2] = True
    chosen[-1] = False
    for layer, dead in zip(layers, chosen, strict=True):
        if dead:
            layer.weight.zero_()


@torch.no_grad()
def _leave_one_channel(model: nn.Module, seed: int) -> None:
    """A third of the layers have one live output channel."""
    draw = torch.Generator().manual_seed(seed)
    for module in list(model.modules())[:-1]:
        if isinstance(module, MIXING) and torch.rand(1, generator=draw) < 0.3:
            channel = int(torch.randint(len(module.weight), (1,), generator=draw))
            alive = module.weight[channel].clone()
            module.weight.zero_()
            module.weight[channel] = alive


@torch.no_grad()
def _kill_narrow(model: nn.Module, seed: int) -> None:
    """Filters of depthwise layers, and outputs of gates of 1x1 convolutions, are dead."""
    draw = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if not isinstance(module, nn.Conv2d) or len(module.weight) <= 4:
            continue
        if module.groups > 1 or module.kernel_size == (1, 1):
            module.weight[torch.rand(len(module.weight), generator=draw) < 0.5] = 0


PATTERNS = {
    "whole layers": _kill_layers,
    "one channel": _leave_one_channel,
    "depthwise layers and gates": _kill_narrow,
}
"""Zeros beside those of `randomize`, whose biases and norm layers give constants other than 0."""


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
