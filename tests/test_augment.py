"""Augmentation: image and mask move together, and what comes from outside has no label."""

from __future__ import annotations

import pytest
import torch

from seg_l1.data.augment import Augmentation
from seg_l1.data.batches import Batches
from seg_l1.data.labels import IGNORE
from seg_l1.data.split import SegmentationData, TensorSplit

PLAIN = {"flip": 0.0, "scale": (1.0, 1.0), "shift": 0.0, "colour": 0.0}


def squares(count=8, size=(40, 48), channels=3):
    """Bright squares of class 1 on dark ground."""
    masks = torch.zeros(count, *size, dtype=torch.uint8)
    masks[:, 5:20, 10:30] = 1
    images = (50 + masks * 150)[:, None].expand(-1, channels, -1, -1).contiguous()
    return images, masks


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {"flip": 0.5},
        {"scale": (0.5, 2.0)},
        {"shift": 0.3},
        {"crop": (24, 32)},
        {"crop": (64, 56), "scale": (0.5, 2.0), "flip": 0.5, "shift": 0.1},
    ],
    ids=str,
)
def test_image_and_mask_move_together(changes, channels):
    images, masks = squares(channels=channels)
    change = Augmentation(**{**PLAIN, **changes, "chunks": None})
    changed, moved = change(images, masks)
    assert changed.dtype == moved.dtype == torch.uint8
    assert type(changed) is type(moved) is torch.Tensor
    assert changed.shape == (8, channels, *changes.get("crop", (40, 48)))
    assert moved.shape[1:] == changed.shape[2:]
    assert len({tuple(m.flatten().tolist()) for m in moved}) > 1
    known = moved != IGNORE
    agree = (changed[:, 0] > 125) == (moved == 1)
    assert agree[known].float().mean() > 0.98
    assert (changed[:, 0][~known] == 0).all()
    assert (moved == 1).any()


def test_without_changes_nothing_changes():
    images, masks = squares()
    changed, moved = Augmentation(**PLAIN)(images, masks)
    assert torch.equal(changed, images)
    assert torch.equal(moved, masks)


def test_colour_leaves_masks_and_grey_images_have_no_hue():
    for channels in (1, 3):
        images, masks = squares(channels=channels)
        changed, moved = Augmentation(**{**PLAIN, "colour": 0.4}, hue=0.1)(images, masks)
        assert torch.equal(moved, masks)
        assert not torch.equal(changed, images)


def test_scales_are_drawn_between_their_limits():
    """The area of the square shows the scale, where no crop cuts it."""
    images, masks = squares(64)
    _, moved = Augmentation(**{**PLAIN, "scale": (0.5, 1.0)}, chunks=None)(images, masks)
    scales = ((moved == 1).flatten(1).sum(1) / 300) ** 0.5
    assert 0.45 < scales.min() < 0.6
    assert 0.9 < scales.max() < 1.05


def test_chunks_share_a_draw():
    images, masks = squares(8)
    _, moved = Augmentation(**{**PLAIN, "shift": 0.3}, chunks=2)(images, masks)
    assert torch.equal(moved[0], moved[3])
    assert torch.equal(moved[4], moved[7])
    assert not torch.equal(moved[0], moved[4])


def test_scales_in_the_wrong_order_are_refused():
    with pytest.raises(ValueError, match="smallest, largest"):
        Augmentation(scale=(1.5, 0.5))


class OwnSizes(TensorSplit):
    """A split whose images differ in size; a batch of them is padded."""

    image_size = None


def test_images_of_their_own_sizes_are_scored_one_by_one_and_trained_in_windows():
    split = OwnSizes(*squares(6), names=[str(i) for i in range(6)])
    data = SegmentationData(
        {"train": split, "val": split}, ["a", "b"], [0.0] * 3, [1.0] * 3, [0.5, 0.5], 0.0, ""
    )
    assert [len(x) for x, _ in Batches(data, "val", batch_size=4).epoch()] == [1] * 6
    crop = Augmentation(**PLAIN, crop=(16, 24))
    train = Batches(data, "train", batch_size=3, shuffle=True, augment=crop)
    assert [tuple(x.shape) for x, _ in train.epoch()] == [(3, 3, 16, 24)] * 2
