"""Wherever pixels are resized, an image, its mask and its prediction stay aligned."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from seg_l1.data import folder
from seg_l1.data.augment import Augmentation
from seg_l1.data.resample import resize_images, resize_masks, resize_scores
from seg_l1.training.prediction import Predictor

SIDE = 80
SIZES = (29, 40, 53, 67, 96, 160, 201)
"""Of the results: about a third, a half, ..., two and a half of `SIDE`."""


def steps(axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 3, SIDE, SIDE), 200 from an edge on along `axis` and 0 before; their masks."""
    places = torch.arange(8, SIDE - 8)
    masks = (torch.arange(SIDE) >= places[:, None]).to(torch.uint8)[:, None].expand(-1, SIDE, -1)
    if axis == 0:
        masks = masks.mT
    return (masks * 200)[:, None].expand(-1, 3, -1, -1).contiguous(), masks.contiguous()


def displaced(images, masks) -> tuple[float, float]:
    """Pixels of class 1 where the image is dark, and of class 0 where it is bright, per edge.

    A pixel of about half the brightness lies on the edge and may be either.
    """
    brightness = images[:, 0].float()
    early = ((brightness < 95) & (masks == 1)).sum() / len(masks)
    late = ((brightness > 105) & (masks == 0)).sum() / len(masks)
    return float(early), float(late)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("axis", [0, 1])
def test_tensors(axis, size):
    images, masks = steps(axis)
    small, ids = resize_images(images, (size, size)), resize_masks(masks, (size, size))
    assert small.shape == (len(masks), 3, size, size)
    assert ids.shape == (len(masks), size, size)
    assert displaced(small, ids) == (0, 0)
    scores = resize_scores(images.float(), (size, size))
    assert displaced(scores, ids) == (0, 0)


@pytest.mark.parametrize("scale", [(0.9, 1.1), (0.5, 2.0), (0.5, 0.5), (2.0, 2.0), (1.3, 1.3)])
@pytest.mark.parametrize("axis", [0, 1])
def test_augmentation(axis, scale):
    torch.manual_seed(0)
    change = Augmentation(flip=0, scale=scale, shift=0, colour=0, chunks=None)
    assert displaced(*change(*steps(axis))) == (0, 0)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("axis", [0, 1])
def test_files(axis, size, tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for index, (image, mask) in enumerate(zip(*steps(axis), strict=True)):
        Image.fromarray(image.movedim(0, -1).numpy()).save(tmp_path / f"images/{index}.png")
        Image.fromarray(mask.numpy()).save(tmp_path / f"masks/{index}.png")
    data = folder.load(root=str(tmp_path), num_classes=2, image_size=(size, size))
    for split in data.splits.values():
        assert displaced(*split[range(len(split))]) == (0, 0)


class Threshold(nn.Module):
    """A network whose class 1 is "brighter than 100 of 255"."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        bright = x[:, :1] * self.weight - 100 / 255
        return torch.cat([-bright, bright], 1)


@pytest.mark.parametrize("tile", [None, (64, 64)], ids=["whole", "tiles"])
@pytest.mark.parametrize("size", [*SIZES, None])
@pytest.mark.parametrize("axis", [0, 1])
def test_predictions(axis, size, tile):
    """The prediction at a smaller size, resized back, is off by as much to both sides."""
    predict = Predictor(
        model=Threshold(),
        classes=["dark", "bright"],
        mean=[0.0] * 3,
        std=[1.0] * 3,
        image_size=size and (size, size),
        tile=tile,
        overlap=0.25,
        autocast=nullcontext(),
    )
    moved = []
    for image, mask in zip(*steps(axis), strict=True):
        ids, _ = predict(Image.fromarray(image.movedim(0, -1).numpy()))
        moved.append((mask.numpy().astype(int) - ids).sum() / SIDE)  # > 0: the edge came later
    assert abs(np.mean(moved)) < 0.1
    assert np.abs(moved).max() <= max(1, np.ceil(SIDE / (size or SIDE) / 2))
