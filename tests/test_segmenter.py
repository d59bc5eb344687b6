"""`load`: images of every kind in, classes or scores out."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import seg_l1
from seg_l1.errors import UserError
from seg_l1.training.prediction import Predictor
from seg_l1.training.segmenter import Segmenter

PIXELS = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)


def colors_of(image_size=None, tile=None, resize_mode="resize") -> Segmenter:
    """Three classes, one per band: the logits are 8 times the bands of the image."""
    net = nn.Conv2d(3, 3, 1)
    with torch.no_grad():
        net.weight.copy_(8 * torch.eye(3)[..., None, None])
        net.bias.zero_()
    names = ["red", "green", "blue"]
    context, statistics = nullcontext(), ([0.0] * 3, [1.0] * 3)
    return Segmenter(
        Predictor(net, names, *statistics, image_size, tile, 0.25, context, resize_mode)
    )


@pytest.fixture
def file(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "image.png")
    return tmp_path / "image.png"


@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_every_kind_of_image_has_the_same_classes(tile, file):
    network, expected = colors_of(tile=tile), PIXELS.argmax(2)
    tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)
    opaque = np.dstack([PIXELS, np.full((70, 90), 255, np.uint8)])
    kinds = [
        file, str(file), Image.fromarray(PIXELS), PIXELS, opaque, PIXELS / 255,
        (PIXELS / 255).astype(np.float32), tensor, tensor / 255, (tensor / 255).double(),
    ]  # fmt: skip
    for image in kinds:
        ids = network(image)
        assert ids.dtype == np.uint8 and ids.shape == (70, 90)
        assert (ids == expected).all()
    assert (network.classes, network.colors.shape) == (["red", "green", "blue"], (3, 3))


def test_gray_images_are_gray_in_all_bands():
    gray = PIXELS[..., 0]
    expected = colors_of()(np.dstack([gray] * 3), scores=True)
    for image in (gray, gray[..., None], torch.from_numpy(gray), torch.from_numpy(gray)[None]):
        assert (colors_of()(image, scores=True) == expected).all()


def test_a_list_gives_a_list_and_a_batch_an_array():
    network, other = colors_of(), PIXELS[::-1, :50]
    assert [ids.shape for ids in network([PIXELS, other])] == [(70, 90), (70, 50)]
    batch = np.stack([PIXELS, PIXELS[::-1]])
    ids = network(batch)
    assert ids.shape == (2, 70, 90) and (ids == batch.argmax(3)).all()
    tensors = torch.from_numpy(batch).permute(0, 3, 1, 2)
    assert (network(tensors) == ids).all()
    assert network(tensors, scores=True).shape == (2, 3, 70, 90)


@pytest.mark.parametrize(
    ("size", "mode"), [(None, "resize"), ((35, 45), "resize"), ((96, 96), "pad")]
)
def test_scores_are_the_softmax_of_the_logits_at_the_size_of_the_image(size, mode):
    network = colors_of(image_size=size, resize_mode=mode)
    found = network(PIXELS, scores=True)
    assert found.dtype == np.float32 and found.shape == (3, 70, 90)
    assert np.allclose(found.sum(0), 1, atol=1e-6)
    assert (found.argmax(0) == network(PIXELS)).all()
    logits = torch.from_numpy(8.0 * PIXELS / 255).permute(2, 0, 1)[None]
    if mode == "resize" and size:
        small = np.array(Image.fromarray(PIXELS).resize(size[::-1], Image.Resampling.BILINEAR))
        small = torch.from_numpy(8.0 * small / 255).permute(2, 0, 1)[None]
        logits = nn.functional.interpolate(small, (70, 90), mode="bilinear")
    assert np.allclose(found, logits.softmax(1)[0], atol=1e-4)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.zeros((3, 8, 8), np.uint8), "is no image"),
        (torch.zeros(8, 8, 3), "expected .C, H, W."),
        (np.zeros(8, np.uint8), "is no image"),
        (np.zeros((8, 8), np.int64), "values of type int64"),
        (np.full((8, 8), 255.0), "expected 0 to 1"),
        (np.full((8, 8), -0.5), "expected 0 to 1"),
        (np.full((8, 8), np.nan), "expected 0 to 1"),
        (np.full((8, 8), "x"), "values of type <U1"),
    ],
)
def test_what_is_no_image_is_refused_with_what_is_one(image, expected):
    with pytest.raises(ValueError, match=expected):
        colors_of()(image)


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "x.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"x\.png: cannot be read"):
        colors_of()(tmp_path / "x.png")
    with pytest.raises(UserError, match=r"no\.onnx"):
        seg_l1.load(tmp_path / "no.onnx")
    with pytest.raises(UserError, match="nowhere"):
        seg_l1.load(tmp_path / "nowhere")
