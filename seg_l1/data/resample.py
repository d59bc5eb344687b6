"""Resizing of images, masks and scores: the one place that says where a pixel lies.

Pixel i of a side of n covers the interval [i/n, (i + 1)/n] of that side, and is at its center. All
functions here map centers, so that an image, its mask and the scores of a network stay aligned at
every size. torch's `interpolate(mode="nearest")`, which torchvision's transforms use for masks,
maps left edges instead, and would move a mask by up to half a pixel against its image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from PIL.Image import Image as Picture

if TYPE_CHECKING:  # torch is imported where it is used: ONNX files are predicted without it
    from torch import Tensor


def resize_images(images: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes images (N, C, H, W), bilinearly; averages over pixels where they become smaller."""
    from torchvision.transforms.v2.functional import resize_image

    return resize_image(images, list(size), antialias=True)


def resize_masks(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes masks (N, H, W) of class ids: each pixel takes the class at its center."""
    from torch.nn.functional import interpolate

    return interpolate(masks[:, None], tuple(size), mode="nearest-exact")[:, 0]


def resize_scores(scores: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes logits (N, K, H, W), bilinearly."""
    from torch.nn.functional import interpolate

    return interpolate(scores, tuple(size), mode="bilinear", align_corners=False)


def resize_picture(picture: Picture, size: Sequence[int]) -> Picture:
    """Resizes a picture to (H, W), like `resize_images`."""
    return picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def resize_ids(ids: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resizes class ids (H, W) uint8, like `resize_masks`."""
    picture = Image.fromarray(ids)
    return np.array(picture.resize((size[1], size[0]), Image.Resampling.NEAREST))


def resize_score(score: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resizes the logits (H, W) of one class, like `resize_scores`, without torch."""
    (top, bottom, down), (left, right, along) = (
        _neighbors(before, after) for before, after in zip(score.shape, size, strict=True)
    )
    rows = score[:, left] * (1 - along) + score[:, right] * along
    mixed: np.ndarray = rows[top] * (1 - down[:, None]) + rows[bottom] * down[:, None]
    return mixed


def _neighbors(before: int, after: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns, for each pixel of a new side, its two old ones and the share of the second."""
    places = (np.arange(after, dtype=np.float32) + np.float32(0.5)) * np.float32(before / after)
    places = np.maximum(places - np.float32(0.5), 0)
    first = np.minimum(places.astype(np.int64), before - 1)
    return first, np.minimum(first + 1, before - 1), places - first.astype(np.float32)
