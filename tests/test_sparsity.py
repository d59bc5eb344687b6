from __future__ import annotations

import pytest
import torch
from torch import nn

from seg_l1.metrics.sparsity import layer_zeros, multiply_adds, parameters, sparsity
from seg_l1.models.unet import UNet
from seg_l1.scope import scope


def test_zeros_and_dead_channels_are_counted_in_penalised_tensors_only():
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ConvTranspose2d(4, 3, 2))
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(0.5)
        net[0].weight[1] = 0
        net[0].weight[2, 0, 0, 0] = -0.0
        net[1].weight[:, 2] = 0
        net[0].bias.zero_()
    first, second = layer_zeros(scope(net))
    assert (first.weights, first.zeros, first.groups, first.zero_groups) == (72, 19, 4, 1)
    assert (second.weights, second.zeros, second.groups, second.zero_groups) == (48, 16, 3, 1)
    totals = sparsity(scope(net))
    assert totals["sparsity/exact"] == pytest.approx(35 / 120)
    assert totals["sparsity/groups"] == pytest.approx(2 / 7)
    assert totals["norm/l1"] == pytest.approx(85 * 0.5)
    assert totals["norm/l2"] == pytest.approx((85 * 0.25) ** 0.5)


def test_multiply_adds_of_a_convolution():
    net = nn.Conv2d(3, 8, 3, padding=1)
    assert multiply_adds(net, torch.zeros(1, 3, 10, 12)) == 10 * 12 * 3 * 8 * 9
    assert parameters(net) == 3 * 8 * 9 + 8


def test_counting_leaves_the_network_as_it_was():
    net = UNet(3, 2, width=4, depth=1)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    multiply_adds(net, torch.randn(1, 3, 8, 8))
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
