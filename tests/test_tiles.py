"""Tiles: they cover an image once, and where they overlap enough they change nothing."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from seg_l1.models.tiles import ALIGN, spans, tiled, tiles
from seg_l1.models.unet import UNet


@pytest.mark.parametrize("length", [1, 31, 32, 64, 65, 97, 128, 500, 1024])
@pytest.mark.parametrize("tile", [32, 50, 64, 128])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_spans_cover_an_axis_once_with_the_overlap_asked_for(length, tile, overlap):
    found = spans(length, tile, overlap)
    used = [i for _, _, part in found for i in range(part.start, part.stop)]
    assert used == list(range(length))
    for start, stop, part in found:
        assert start % ALIGN == 0
        assert start <= part.start < part.stop <= stop <= length
        assert stop - start <= tile + ALIGN - 1
        assert stop - start >= min(tile, length)
    for (_, stop, _), (start, _, _) in pairwise(found):
        assert stop - start >= min(int(tile * overlap), tile - ALIGN)


def test_tiles_are_the_whole_where_half_the_overlap_is_the_reach_of_a_pixel():
    reach = 3
    net = nn.Sequential(*(nn.Conv2d(2, 2, 3, padding=1) for _ in range(reach))).double()
    images = torch.randn(2, 2, 150, 97, dtype=torch.float64)
    whole = net(images)
    torch.testing.assert_close(tiled(net, images, (96, 64), 0.25), whole, rtol=1e-12, atol=1e-12)
    deeper = nn.Conv2d(2, 2, 3, padding=40, dilation=40).double()
    assert not torch.allclose(tiled(deeper, images, (96, 64), 0.25), deeper(images))


def test_a_u_net_in_tiles_sees_the_same_pooling_grid():
    net = UNet(3, 4, width=4, depth=1, norm="none").eval()
    images = torch.randn(1, 3, 131, 70)
    with torch.no_grad():
        torch.testing.assert_close(tiled(net, images, (64, 64), 0.5), net(images))


def test_a_small_image_is_one_tile_and_none_is_the_whole():
    calls = []

    def net(images):
        calls.append(tuple(images.shape))
        return images

    images = torch.randn(2, 3, 40, 20)
    assert torch.equal(tiled(net, images, (64, 64)), images)
    assert torch.equal(tiled(net, images, None), images)
    assert calls == [(2, 3, 40, 20)] * 2
    assert len(list(tiles(net, images, (32, 32), 0.0))) == 1
