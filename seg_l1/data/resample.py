"""Resizing of images, masks and scores: the one place that says where a pixel lies.

Pixel i of a side of n covers the interval [i/n, (i + 1)/n] of that side, and is at its center. All
functions here map centers, so that an image, its mask and the scores of a network stay aligned at
every size. torch's `interpolate(mode="nearest")`, which torchvision's transforms use for masks,
maps left edges instead, and would move a mask by up to half a pixel against its image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from PIL.Image import Image as Picture
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2.functional import resize_image


def resize_images(images: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes images (N, C, H, W), bilinearly; averages over pixels where they become smaller."""
    return resize_image(images, list(size), antialias=True)


def resize_masks(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes masks (N, H, W) of class ids: each pixel takes the class at its center."""
    return interpolate(masks[:, None], tuple(size), mode="nearest-exact")[:, 0]


def resize_scores(scores: Tensor, size: Sequence[int]) -> Tensor:
    """Resizes logits (N, K, H, W), bilinearly."""
    return interpolate(scores, tuple(size), mode="bilinear", align_corners=False)


def resize_picture(picture: Picture, size: Sequence[int]) -> Picture:
    """Resizes a picture to (H, W), like `resize_images`."""
    return picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)


def resize_ids(ids: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Resizes class ids (H, W) uint8, like `resize_masks`."""
    picture = Image.fromarray(ids)
    return np.array(picture.resize((size[1], size[0]), Image.Resampling.NEAREST))
