from __future__ import annotations

import pytest
import torch
from torch import nn

from seg_l1.models.drop_connect import DropConnect
from seg_l1.models.seed_cnn import SeedCNN
from seg_l1.models.unet import UNet
from seg_l1.scope import scope


def test_dropped_weights_have_the_mean_of_the_network_and_gradients_where_they_stay():
    net = nn.Linear(50, 40, bias=True)
    noisy = DropConnect(0.25, scope(net))
    x = torch.randn(8, 50)
    calls = torch.stack([noisy(net, x) for _ in range(4000)])
    torch.testing.assert_close(calls.mean(0), net(x), atol=0.1, rtol=0)
    assert calls.std(0).min() > 0.05
    noisy(net, torch.ones(1, 50)).sum().backward()
    share = float((net.weight.grad == 0).float().mean())
    assert share == pytest.approx(0.25, abs=0.05)
    torch.testing.assert_close(net.weight.grad.unique(), torch.tensor([0.0, 4 / 3]))
    assert (net.bias.grad == 1).all()


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.5, False)])
def test_nothing_is_dropped_in_evaluation_or_at_rate_0(p, training):
    net = UNet(3, 4, width=4, depth=1).train(training)
    x = torch.randn(2, 3, 8, 8)
    state = torch.get_rng_state()
    out = DropConnect(p, scope(net))(net, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(out, net(x))


def test_only_the_scope_is_dropped_and_batch_statistics_move():
    net = UNet(3, 4, width=4, depth=1)
    mean = net.down[0][1].running_mean.clone()
    DropConnect(0.5, scope(net))(net, torch.randn(2, 3, 8, 8)).sum().backward()
    assert (net.down[0][1].running_mean != mean).any()
    assert (net.down[0][1].weight.grad != 0).any()


@pytest.mark.parametrize("net", [
    UNet(3, 4, width=4, depth=1, dropout=0.5),
    SeedCNN(3, 4, image_size=(8, 8), width=4, hidden=8, dropout=0.5),
], ids=["unet", "seed_cnn"])  # fmt: skip
def test_dropout_is_random_in_training_and_off_in_evaluation(net):
    x = torch.randn(2, 3, 8, 8)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_dropout_takes_whole_channels():
    net = UNet(3, 4, width=8, depth=1, dropout=0.5)
    out = net.down[0](torch.rand(4, 3, 8, 8)).flatten(2)
    dead = (out == 0).all(-1)
    assert 0.2 < float(dead.float().mean()) < 0.8
