"""The size of compact networks as weights change, and the networks that meet a budget."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seg_l1.compaction import compact
from seg_l1.compaction.budget import MEASURES, CostModel
from seg_l1.compaction.nonzeros import NonzeroCount
from seg_l1.models.smp import SMP
from seg_l1.models.unet import UNet
from seg_l1.penalties import L1, MCP, GroupL1, SparseGroupL1
from seg_l1.scope import Rule, scope

NETWORKS = {
    "unet": lambda: UNet(3, 4, width=8, depth=2),
    "residual": lambda: SMP(3, 4, arch="Unet", encoder="resnet18", options={
        "encoder_depth": 3, "decoder_channels": [16, 8, 8]}),
    "depthwise": lambda: SMP(1, 4, arch="Linknet", encoder="mobilenet_v2", options={}),
}  # fmt: skip


def size(model, x, measure):
    """What compaction makes of a network, counted there."""
    return getattr(compact(model, x), measure)[1]


@torch.no_grad()
def trained_like(name, seed=0):
    """A network whose filters have all norms, with constants behind its norm layers."""
    torch.manual_seed(seed)
    model = NETWORKS[name]().eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.weight.mul_(torch.rand(len(module.weight), 1, 1, 1) ** 2)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias)
    channels = 1 if name == "depthwise" else 3
    return model, torch.randn(1, channels, 32, 32)


@pytest.mark.slow
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_size_is_that_of_the_compact_network(name, measure):
    model, x = trained_like(name)
    costs = CostModel(model, x, measure)
    assert costs.cost() == size(model, x, measure) <= costs.dense
    generator = torch.Generator().manual_seed(1)
    before = {}
    with torch.no_grad():
        for scoped in scope(model):
            if scoped.penalized and scoped.tensor.ndim == 4:
                dead = torch.rand(len(scoped.groups_first), generator=generator) < 0.4
                scoped.groups_first[dead] = 0
        for module in model.modules():  # no constants, which could need a channel of their own
            if getattr(module, "bias", None) is not None:
                module.bias.zero_()
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.zero_()
        before = {k: v.clone() for k, v in model.state_dict().items()}
    assert costs.cost() == size(model, x, measure) < costs.dense
    assert costs.least(GroupL1(), scope(model)) < costs.cost()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("penalty", [L1(), GroupL1(), SparseGroupL1(l1_ratio=0.3), MCP(knot=0.5)])
@pytest.mark.parametrize(("name", "share"), [("unet", 0.5), ("unet", 0.25), ("residual", 0.3)])
def test_a_budget_is_met_by_two_percent_and_never_exceeded(name, share, penalty):
    model, x = trained_like(name)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    costs = CostModel(model, x, "multiply_adds")
    budget = int(share * costs.dense)
    masks = costs.fit(budget, penalty, scope(model))
    found = compact(model, x).multiply_adds[1]
    assert 0.98 * budget <= found <= budget
    assert found == costs.cost()
    for key, after in model.state_dict().items():  # what stays is unchanged
        assert torch.equal(after, before[key] * masks.get(key, 1)), key
    for scoped in scope(model):
        if scoped.name in masks:
            assert scoped.tensor.any()  # no layer is gone


def test_the_smallest_filters_go_first():
    """Of one layer between others whose filters are all alike."""
    model = nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(), nn.Conv2d(8, 1, 1)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([5.0, 3, 8, 1, 7, 2, 6, 4]).view(8, 1, 1, 1))
        model[2].weight.fill_(100.0)
        model[0].bias.fill_(0.5)
    costs = CostModel(model, torch.randn(1, 1, 4, 4), "multiply_adds")
    masks = costs.fit(costs.dense // 2, L1(), scope(model))
    assert masks["0.weight"].flatten().tolist() == [
        True,
        False,
        True,
        False,
        True,
        False,
        True,
        False,
    ]
    assert torch.equal(masks["2.weight"].flatten(), masks["0.weight"].flatten())
    weighed = [Rule("0.weight"), Rule("2.weight", factor=1e-3), Rule(penalize=False)]
    with torch.no_grad():
        model[2].weight.copy_(torch.arange(8.0).view(1, 8, 1, 1) + 1)  # which would decide alone
        model[0].weight.copy_(torch.arange(8.0, 0, -1).view(8, 1, 1, 1))
    masks = costs.fit(costs.dense // 2, L1(), scope(model, weighed))
    assert masks["0.weight"].flatten().tolist() == [True] * 4 + [False] * 4


def test_what_is_not_a_convolution_counts_and_what_cannot_be_met_is_refused():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            x = self.first(x)
            q = x.flatten(2)
            return self.last((q @ q.transpose(1, 2) @ q).view(x.shape))

    model, x = Attention().eval(), torch.randn(1, 1, 4, 4)
    costs = CostModel(model, x, "multiply_adds")
    assert costs.dense == size(model, x, "multiply_adds") == 16 * (4 + 8) + 2 * 16 * 16
    assert costs.cost() == costs.dense
    with pytest.raises(ValueError, match="no network has a cost of 3"):
        costs.fit(3, L1(), scope(model))


def test_weights_that_read_a_constant_go_with_it():
    """Otherwise a bias that is trained could bring the constant, and its channel, back."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)
    ).eval()
    with torch.no_grad():
        model[0].weight[2:] = 0.01
        model[0].bias.fill_(1.0)
    x = torch.randn(1, 1, 8, 8)
    costs = CostModel(model, x, "multiply_adds")
    costs.fit(costs.dense // 2, GroupL1(), scope(model))
    assert not model[2].weight[:, 2:].any() and model[2].weight[:, :2].any()
    with torch.no_grad():
        model[0].bias.normal_()
    assert size(model, x, "multiply_adds") == costs.cost() == costs.dense // 2


@pytest.mark.parametrize("share", [0.5, 0.05])
@pytest.mark.parametrize("penalty", [L1(), MCP(knot=0.5)])
def test_the_smallest_weights_are_the_zeros_of_a_budget(penalty, share):
    """Of L1 those with the smallest |w|/ω of all, but for the last one of a kernel."""
    model, _ = trained_like("unet")
    model = model.to(memory_format=torch.channels_last)
    rules = [Rule("down.0*", factor=0.5, kernels=True), Rule(kernels=True), Rule(penalize=False)]
    scoped = [entry for entry in scope(model, rules) if entry.penalized]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    count = NonzeroCount(scope(model, rules))
    assert count.cost() == count.dense == sum(entry.tensor.numel() for entry in scoped)
    budget = int(share * count.dense)
    assert count.fit(budget, penalty, scope(model, rules)) == {}
    assert 0.98 * budget <= count.cost() <= budget
    if isinstance(penalty, L1):
        more = [entry for entry in scoped if entry.tensor.count_nonzero() > 1]
        assert len(more) > len(scoped) / 2
        ranks = torch.cat([(before[e.name].abs() / e.factor).flatten() for e in more])
        kept = torch.cat([e.tensor.flatten() != 0 for e in more])
        assert ranks[kept].min() >= ranks[~kept].max()
    for key, after in model.state_dict().items():  # what stays is unchanged
        assert torch.equal(after, before[key] * (after != 0)), key


def test_a_kernel_keeps_a_weight_and_a_budget_below_that_is_refused():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()
    with torch.no_grad():
        model[0].weight.mul_(1e-3)
    largest = model[0].weight.abs().max().item()
    count = NonzeroCount(scope(model))
    assert count.least(L1(), scope(model)) == 2
    count.fit(5, GroupL1(), scope(model))
    assert model[0].weight.count_nonzero() == 1 and model[0].weight.abs().max() == largest
    assert 2 <= count.cost() <= 5
    with pytest.raises(ValueError, match="no network has 1 nonzero weights or fewer"):
        count.fit(1, L1(), scope(model))
