"""Scenes of real handwritten digits on real photographs, both from scikit-learn's wheel.

Each scene is a crop of a photograph on which non-overlapping digits, enlarged from 8×8 to 12-16
pixels, are painted in colours that stand out. The class of a pixel is 0 for background and 1 + d
for the digit d. Splits share neither a digit (contiguous blocks of the 1,797: they were collected
writer by writer) nor a piece of photograph (vertical strips).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from seg_l1.data.split import SegmentationData, TensorSplit, describe

CLASSES = ["background", *(str(digit) for digit in range(10))]
SHARES = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
"""The part of the digits (in their order) and of each photograph (left to right) per split."""


def split_range(split: str, length: int) -> range:
    """Returns the positions out of `length` that belong to `split`."""
    low, high = SHARES[split]
    return range(round(low * length), round(high * length))


def load(
    *,
    num_classes: int = len(CLASSES),
    image_size: tuple[int, int] = (48, 48),
    num_train: int = 512,
    num_val: int = 256,
    num_test: int = 256,
    digits_per_scene: tuple[int, int] = (6, 9),
    digit_size: tuple[int, int] = (12, 16),
    seed: int = 0,
) -> SegmentationData:
    """Composes the data set; the same arguments give the same scenes.

    Args:
        num_classes: always 11, ten digits and the background.
        image_size: (H, W) in pixels.
        num_train, num_val, num_test: scenes per split.
        digits_per_scene: smallest and largest number of digits asked for; a digit for which there
            is no free place is left out.
        digit_size: smallest and largest side of a digit in pixels.
        seed: draws the scenes; not the seed of the training.

    Raises:
        ValueError: if a digit does not fit into an image, or on another number of classes.
    """
    from sklearn.datasets import load_digits, load_sample_images

    if num_classes != len(CLASSES):
        raise ValueError(f"num_classes is {len(CLASSES)} here, got {num_classes}")
    if digit_size[0] > digit_size[1] or digits_per_scene[0] > digits_per_scene[1]:
        raise ValueError("digit_size and digits_per_scene are [smallest, largest]")
    if digit_size[1] > min(image_size):
        raise ValueError(f"digit_size {digit_size[1]} is larger than image_size {image_size}")
    source = load_digits()
    photos = [photo.copy() for photo in load_sample_images().images]
    splits = {}
    for number, (split, count) in enumerate(
        {"train": num_train, "val": num_val, "test": num_test}.items()
    ):
        rng = np.random.default_rng([seed, number])
        chosen = split_range(split, len(source.target))
        glyphs = torch.from_numpy(source.images[chosen.start : chosen.stop] / 16).float()
        labels = source.target[chosen.start : chosen.stop]
        strips = []
        for photo in photos:
            columns = split_range(split, photo.shape[1])
            strips.append(photo[:, columns.start : columns.stop])
        scenes = [
            _scene(rng, strips, glyphs, labels, image_size, digits_per_scene, digit_size)
            for _ in range(count)
        ]
        splits[split] = TensorSplit(
            torch.stack([image for image, _ in scenes]),
            torch.stack([mask for _, mask in scenes]),
            [f"{split}_{index:04d}" for index in range(count)],
        )
    return describe(splits, CLASSES, notes=[])


def _scene(
    rng: np.random.Generator,
    strips: list[np.ndarray],
    glyphs: Tensor,
    labels: np.ndarray,
    image_size: tuple[int, int],
    digits_per_scene: tuple[int, int],
    digit_size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    image = _crop(rng, strips[rng.integers(len(strips))], image_size)
    mask = torch.zeros(image_size, dtype=torch.uint8)
    taken = np.zeros(image_size, dtype=bool)
    for _ in range(rng.integers(digits_per_scene[0], digits_per_scene[1] + 1)):
        side = int(rng.integers(digit_size[0], digit_size[1] + 1))
        place = _free_place(rng, taken, side)
        if place is None:
            continue
        taken[place] = True
        index = rng.integers(len(labels))
        ink = interpolate(glyphs[index][None, None], (side, side), mode="bicubic")[0, 0].clamp(0, 1)
        patch = image[:, place[0], place[1]]
        colour = _contrasting(rng, patch.mean((1, 2)))
        patch.lerp_(colour[:, None, None], ink)
        mask[place][ink > 0.5] = 1 + int(labels[index])
    return (image * 255).round().to(torch.uint8), mask


def _crop(rng: np.random.Generator, strip: np.ndarray, image_size: tuple[int, int]) -> Tensor:
    """A random piece of the strip, of `image_size`, in [0, 1]; larger if need be."""
    scale = max(1.0, image_size[0] / strip.shape[0], image_size[1] / strip.shape[1])
    height, width = (max(1, int(side / scale)) for side in image_size)
    top = rng.integers(strip.shape[0] - height + 1)
    left = rng.integers(strip.shape[1] - width + 1)
    piece = torch.from_numpy(strip[top : top + height, left : left + width]).permute(2, 0, 1) / 255
    if (height, width) == tuple(image_size):
        return piece.contiguous()
    return interpolate(piece[None], tuple(image_size), mode="bilinear")[0]


def _free_place(
    rng: np.random.Generator, taken: np.ndarray, side: int
) -> tuple[slice, slice] | None:
    for _ in range(20):
        top = rng.integers(taken.shape[0] - side + 1)
        left = rng.integers(taken.shape[1] - side + 1)
        place = slice(top, top + side), slice(left, left + side)
        if not taken[place].any():
            return place
    return None


def _contrasting(rng: np.random.Generator, background: Tensor) -> Tensor:
    """The one of eight random RGB colours that lies farthest from `background`."""
    colours = torch.from_numpy(rng.random((8, 3), dtype=np.float32))
    return colours[(colours - background).norm(dim=1).argmax()]
