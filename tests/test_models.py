from __future__ import annotations

import pytest
import torch
from torch import nn

from seg_l1.models.seed_cnn import SeedCNN
from seg_l1.models.unet import UNet


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (9, 50)])
@pytest.mark.parametrize("channels", [1, 3])
def test_unet_gives_a_score_per_class_and_pixel_for_any_size(norm, size, channels):
    net = UNet(channels, 5, width=4, depth=3, norm=norm)
    assert net(torch.randn(2, channels, *size)).shape == (2, 5, *size)


def test_unet_sees_the_whole_neighbourhood_and_every_weight_has_a_gradient():
    net = UNet(3, 4, width=4, depth=2)
    net(torch.randn(2, 3, 17, 18)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_a_convolution_has_a_bias_only_where_no_norm_follows():
    for norm, expected in (("batch", 1 + 2), ("none", 1 + 2 + 10)):
        net = UNet(3, 4, width=4, depth=2, norm=norm)
        layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        assert sum(layer.bias is not None for layer in layers) == expected


@pytest.mark.parametrize("wrong", [{"norm": "instance"}, {"width": 0}, {"depth": 0}])
def test_unet_refuses_what_makes_no_network(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        UNet(3, 4, **wrong)


@pytest.mark.parametrize(("channels", "size"), [(1, (28, 28)), (3, (48, 48)), (3, (35, 50))])
def test_seed_cnn_is_the_network_of_the_article(channels, size):
    net = SeedCNN(channels, 11, image_size=size)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [64, 128, 256]
    assert {m.kernel_size for m in convolutions} == {(3, 3)}
    assert net.bottleneck.out_features == 1024
    assert net(torch.randn(2, channels, *size)).shape == (2, 11, *size)
    weights = {name: p.numel() for name, p in net.named_parameters()}
    assert max(weights, key=weights.get) == "bottleneck.weight"


def test_seed_cnn_says_which_size_it_was_built_for():
    with pytest.raises(ValueError, match=r"\(28, 28\).*\(32, 32\)"):
        SeedCNN(1, 2, image_size=(28, 28), width=2, hidden=4)(torch.zeros(1, 1, 32, 32))
