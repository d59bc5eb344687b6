"""Dead branches are gone in ONNX files, and the outputs stay the same."""

from __future__ import annotations

from collections import Counter

import onnx
import pytest
import torch
from torch import nn

from seg_l1.compaction import compact
from seg_l1.deployment import onnx_file
from seg_l1.deployment.onnx_file import export, run
from seg_l1.models.unet import UNet

pytestmark = pytest.mark.slow


def kinds(content: bytes) -> Counter:
    return Counter(node.op_type for node in onnx.load_from_string(content).graph.node)


@torch.no_grad()
def assert_equal(model: nn.Module, content: bytes, images: torch.Tensor) -> None:
    expected = model.eval()(images)
    scale = float(expected.abs().max())
    assert scale > 0
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)  # shapes included
    assert float((run(content, images) - expected).abs().max()) < 3e-5 * scale


@torch.no_grad()
def with_dead_levels(depth: int, first: int) -> UNet:
    """A U-Net in which the levels from `first` on emit 0; the last transposed one adds a bias."""
    model = UNet(3, 4, width=4, depth=depth)
    for up in model.up[: depth - first]:
        up.bias.zero_()
    for level in range(first, depth + 1):
        for layer in model.down[level].modules():
            if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
                layer.weight.zero_()
    return model


@pytest.mark.parametrize(("depth", "first"), [(3, 1), (3, 3), (2, 2)])
def test_dead_levels_of_a_compact_network_are_gone(depth, first):
    """All convolutions of dead levels; the merging ones stay where the skip is alive."""
    dense = with_dead_levels(depth, first).eval()
    small = compact(dense, torch.randn(1, 3, 32, 32)).model
    content = export(small, torch.randn(1, 3, 32, 32)).content
    images = torch.randn(2, 3, 37, 53)
    assert_equal(dense, content, images)
    found, live = kinds(content), first
    # two per live level down, two per live level up, and the head
    assert found["Conv"] == 2 * live + 2 * live + 1
    assert found["ConvTranspose"] == live - 1
    assert found["MaxPool"] == live - 1
    graph = onnx.load_from_string(content).graph
    read = {name for node in graph.node for name in node.input}
    assert {i.name for i in graph.initializer} <= read


class Residual(nn.Module):
    """x + f(x)·g(x), in which f or g may be dead, with a bias or not."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.dead = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))
        self.other = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 2, 1)
        nn.init.zeros_(self.dead[2].weight)
        nn.init.constant_(self.dead[2].bias, bias)

    def forward(self, x):
        x = self.first(x)
        return self.head(x + self.dead(x).relu() * self.other(x))


@pytest.mark.parametrize("bias", [0.0, 0.7, -0.7])
def test_a_dead_branch_of_a_residual_connection_is_a_constant(bias):
    model = Residual(bias)
    content = export(model, torch.randn(1, 3, 16, 16)).content
    assert_equal(model, content, torch.randn(2, 3, 19, 33))
    assert kinds(content)["Conv"] == 3


class Shared(nn.Module):
    """A concatenation that two layers read, one of them all of it; and is an output of neither."""

    def __init__(self, *zero: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.readers = nn.ModuleList(nn.Conv2d(8, 2, 3, padding=1) for _ in range(2))
        for index in zero:
            nn.init.zeros_(self.readers[index].weight[:, 4:])

    def forward(self, x):
        both = torch.cat([self.one(x), self.two(x)], 1)
        return self.readers[0](both) * self.readers[1](both)


@pytest.mark.parametrize(("zero", "convolutions"), [((), 4), ((0,), 4), ((0, 1), 3)])
def test_a_branch_goes_if_none_of_its_readers_weighs_it(zero, convolutions):
    model = Shared(*zero)
    content = export(model, torch.randn(1, 3, 16, 16)).content
    assert_equal(model, content, torch.randn(1, 3, 21, 17))
    assert kinds(content)["Conv"] == convolutions


def test_a_network_without_zeros_keeps_its_file(monkeypatch):
    seen = []
    whole = onnx_file.without_dead_branches
    monkeypatch.setattr(
        onnx_file, "without_dead_branches", lambda c: seen.append((c, whole(c))) or seen[-1][1]
    )
    export(UNet(3, 4, width=4, depth=1), torch.randn(1, 3, 16, 16))
    assert all(before == after for before, after in seen)
