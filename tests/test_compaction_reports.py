"""Networks that users brought: each was refused, or gave other outputs, when it was reported."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seg_l1 import compact
from seg_l1.compaction.budget import CostModel
from seg_l1.deployment import latency_model
from seg_l1.deployment.latency_model import LatencyModel
from seg_l1.penalties import L1, GroupL1
from seg_l1.scope import Rule, scope

X = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def killed(network: nn.Module, layer: nn.Module, count: int) -> nn.Module:
    with torch.no_grad():
        layer.weight[:count] = 0
        if layer.bias is not None:
            layer.bias[:count] = 0
    return network.eval()


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 4, 1)


class Where(TwoLayers):
    """A leaky ReLU by hand."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(torch.where(x > 0, x, 0.1 * x))


class OwnKernel(nn.Module):
    """A convolution without a class of torch's."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.register_parameter(name, nn.Parameter(torch.randn(4, 8, 1, 1)))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, getattr(self, self.name))


class WithoutBias(nn.Conv2d):
    """Passes no bias on, whether it has one or not."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, None)


class Expanding(TwoLayers):
    """Has a number of channels in its code."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second(x + x.mean((2, 3), keepdim=True).expand(-1, 16, 16, 16))


def after_sigmoid(last: nn.Module) -> nn.Sequential:
    """Dead channels are constants other than 0, which a bias would have to take up."""
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Sigmoid(), last)


def of_groups(**options) -> nn.Sequential:
    norm = nn.GroupNorm(4, 16, **options)
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(16, 4, 1))


@pytest.mark.parametrize(
    "make",
    [
        Where, Expanding, lambda: of_groups(affine=False), of_groups,
        lambda: after_sigmoid(OwnKernel("kernel")), lambda: after_sigmoid(OwnKernel("weight")),
        lambda: after_sigmoid(WithoutBias(8, 4, 1, bias=False)),
    ],
)  # fmt: skip
def test_its_compact_network_computes_the_same(make):
    network = make()
    killed(network, next(m for m in network.modules() if isinstance(m, nn.Conv2d)), 4)
    found = compact(network, X)
    assert torch.allclose(found.model(X), network(X), atol=1e-5)
    assert CostModel(network, X, "multiply_adds").cost() <= found.multiply_adds[0]


def test_channels_that_are_zero_go_before_groups_too():
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, groups=2)
    )
    with torch.no_grad():
        for dead in (0, 1, 4, 5):  # the same places of both groups
            network[0].weight[dead] = network[0].bias[dead] = 0
    found = compact(network.eval(), X)
    assert found.model[0].out_channels == 4
    assert torch.allclose(found.model(X), network(X), atol=1e-6)


class Two(TwoLayers):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.second(F.relu(self.first(x + y)))


def test_several_inputs_are_counted():
    network = Two()
    found = compact(killed(network, network.first, 4), [X, X])
    assert found.multiply_adds == (256 * (27 * 16 + 16 * 4), 256 * (27 * 12 + 12 * 4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_networks_of_16_bits_are_compacted(dtype):
    from seg_l1.models.unet import UNet

    torch.manual_seed(0)
    network = UNet(3, 4, width=8, depth=2)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.weight[torch.rand(len(module.weight)) < 0.4] = 0
    found = compact(network.to(dtype).eval(), X.to(dtype))
    assert found.parameters[1] < 0.7 * found.parameters[0]
    assert {p.dtype for p in found.model.parameters()} == {dtype}
    expected = network.float()(X)
    assert (found.model.float()(X) - expected).abs().max() < 0.02 * expected.abs().max()


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 32, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(32, 32, 3, padding=1) for _ in range(4))
        self.head = nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = x + F.relu(block(x))
        return self.head(x)


def test_the_least_size_of_a_residual_network_can_be_reached(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(latency_model, "SECONDS", 0.01)
    network, penalty = Residual().eval(), GroupL1()
    tensors = scope(network)
    model = LatencyModel(network, X, runtime="torch", penalty=penalty, tensors=tensors)
    costs = CostModel(network, X, "multiply_adds")
    least = costs.least(penalty, tensors)
    assert len(model.points) >= 2 and 0 < least < costs.dense
    costs.fit(least, penalty, tensors)
    assert costs.cost() == compact(network, X).multiply_adds[1] == least


def test_what_is_not_penalized_cannot_make_the_network_smaller():
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 1)
    ).eval()
    tensors = scope(network, [Rule("4.*"), Rule("*", penalize=False)])
    costs = CostModel(network, X, "multiply_adds")
    least = costs.least(L1(), tensors)
    assert least > 0.25 * costs.dense
    with pytest.raises(ValueError, match="no network has a cost of"):
        costs.fit(least - 1, L1(), tensors)
