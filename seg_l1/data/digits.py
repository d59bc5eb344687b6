"""Scenes of real handwritten digits on real photographs, both from scikit-learn's wheel.

Each scene is a crop of a photograph on which non-overlapping digits, enlarged from 8×8 to 12-16
pixels, are painted in colors that stand out. The class of a pixel is 0 for background and 1 + d for
the digit d. Splits share neither a digit (contiguous blocks of the 1,797: they were collected
writer by writer) nor a piece of photograph (vertical strips).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits, load_sample_images
from torch.nn.functional import interpolate

from seg_l1.data.split import SegmentationData, TensorSplit, describe

CLASSES = ["background", *(str(digit) for digit in range(10))]
SHARES = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
"""The part of the digits (in their order) and of each photograph (left to right) per split."""


def split_range(split: str, length: int, part: int = 0, parts: int = 1) -> range:
    """Returns the positions in `length` that belong to `part` of `parts` of `split`."""
    low, high = SHARES[split]
    low, high = (low + (high - low) * share / parts for share in (part, part + 1))
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
    parts: int = 1,
    seed: int = 0,
) -> SegmentationData:
    """Composes the data set; the same arguments give the same scenes.

    Args:
        num_classes: always 11, ten digits and the background.
        image_size: (H, W) in pixels.
        num_train, num_val, num_test: scenes per split.
        digits_per_scene: smallest and largest number of digits; one that finds no free place is
            left out.
        digit_size: smallest and largest side of a digit in pixels.
        parts: number of parts of the training split: scenes of one part share no digit and no
            piece of photograph with those of another, and are a group that folds keep together.
        seed: draws the scenes; not the seed of the training.

    Raises:
        ValueError: if a digit does not fit into an image, or on another number of classes.
    """
    if num_classes != len(CLASSES):
        raise ValueError(f"num_classes is {len(CLASSES)} here, got {num_classes}")
    if image_size is None:
        raise ValueError("image_size: scenes have no size of their own, give [H, W]")
    if digit_size[0] > digit_size[1] or digits_per_scene[0] > digits_per_scene[1]:
        raise ValueError("digit_size and digits_per_scene are [smallest, largest]")
    if digit_size[1] > min(image_size):
        raise ValueError(f"digit_size {digit_size[1]} is larger than image_size {image_size}")
    counts = {"train": num_train, "val": num_val, "test": num_test}
    whole, splits = _load_material(digit_size), {}
    for number, (split, count) in enumerate(counts.items()):
        rng = np.random.default_rng([seed, number])
        images = np.empty((count, *image_size, 3), dtype=np.uint8)
        masks = np.zeros((count, *image_size), dtype=np.uint8)
        split_parts = parts if split == "train" else 1
        for part in range(split_parts):
            material = whole.part(split, part, split_parts)
            scenes = slice(part, None, split_parts)
            for image, mask in zip(images[scenes], masks[scenes], strict=True):
                image[:] = _compose(rng, mask, material, digits_per_scene)
        splits[split] = TensorSplit(
            torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
            torch.from_numpy(masks),
            [f"{split}_{index:04d}" for index in range(count)],
        )
    data = describe(splits, CLASSES)
    if parts > 1:
        data.groups = [f"part {index % parts}" for index in range(num_train)]
    return data


@dataclass(frozen=True)
class _Material:
    """What scenes are made of.

    Attributes:
        ink: side in pixels -> (N, side, side), the ink of N digits in [0, 1].
        labels: (N,), the digits.
        photos: (H, W, 3) in [0, 1] each.
    """

    ink: dict[int, np.ndarray]
    labels: np.ndarray
    photos: list[np.ndarray]

    def part(self, split: str, part: int, parts: int) -> _Material:
        """Returns what belongs to `part` of `parts` of `split`, see `split_range`."""

        def cut(length: int) -> slice:
            positions = split_range(split, length, part, parts)
            return slice(positions.start, positions.stop)

        digits = cut(len(self.labels))
        strips = [photo[:, cut(photo.shape[1])] for photo in self.photos]
        ink = {side: enlarged[digits] for side, enlarged in self.ink.items()}
        return _Material(ink, self.labels[digits], strips)


def _load_material(digit_size: tuple[int, int]) -> _Material:
    digits = load_digits()
    sides = range(digit_size[0], digit_size[1] + 1)
    photos = [photo / np.float32(255) for photo in load_sample_images().images]
    ink = {side: _enlarged(digits.images / 16, side) for side in sides}
    return _Material(ink, digits.target, photos)


def _compose(
    rng: np.random.Generator,
    mask: np.ndarray,
    material: _Material,
    digits_per_scene: tuple[int, int],
) -> np.ndarray:
    """Draws a scene; returns its image (H, W, 3) in [0, 255] and paints its classes into `mask`."""
    photo = material.photos[rng.integers(len(material.photos))]
    scene = _crop(rng, photo, mask.shape)
    count = int(rng.integers(digits_per_scene[0], digits_per_scene[1] + 1))
    _paint(rng, scene, mask, material, count)
    return np.rint(scene * 255)


def _enlarged(glyphs: np.ndarray, side: int) -> np.ndarray:
    """Maps the ink of N digits (N, 8, 8) in [0, 1] to (N, side, side)."""
    larger = interpolate(torch.from_numpy(glyphs).float()[:, None], (side, side), mode="bicubic")
    return larger[:, 0].clamp(0, 1).numpy()


def _crop(rng: np.random.Generator, photo: np.ndarray, image_size: tuple[int, ...]) -> np.ndarray:
    """Returns a random piece of the photograph (H, W, 3), enlarged to `image_size` if needed."""
    scale = max(1.0, image_size[0] / photo.shape[0], image_size[1] / photo.shape[1])
    height, width = (max(1, int(side / scale)) for side in image_size)
    top = rng.integers(photo.shape[0] - height + 1)
    left = rng.integers(photo.shape[1] - width + 1)
    piece = photo[top : top + height, left : left + width]
    if (height, width) == tuple(image_size):
        return piece.copy()
    channels_first = torch.from_numpy(piece.copy()).permute(2, 0, 1)[None]
    larger = interpolate(channels_first, tuple(image_size), mode="bilinear")
    return larger[0].permute(1, 2, 0).numpy().copy()


def _paint(
    rng: np.random.Generator,
    scene: np.ndarray,
    mask: np.ndarray,
    material: _Material,
    count: int,
) -> None:
    """Paints up to `count` digits into `scene` (H, W, 3) and `mask` (H, W), none over another."""
    taken: list[tuple[int, int, int]] = []
    for side in rng.integers(min(material.ink), max(material.ink) + 1, count).tolist():
        place = _free_place(rng, mask.shape, side, taken)
        if place is None:
            continue
        top, left = place
        taken.append((top, left, side))
        index = rng.integers(len(material.labels))
        ink = material.ink[side][index]
        patch = scene[top : top + side, left : left + side]
        color = _contrasting(rng, patch.mean((0, 1)))
        patch += (color - patch) * ink[..., None]
        mask[top : top + side, left : left + side][ink > 0.5] = 1 + material.labels[index]


def _free_place(
    rng: np.random.Generator, size: tuple[int, ...], side: int, taken: list[tuple[int, int, int]]
) -> tuple[int, int] | None:
    """Returns (top, left) of the first of 64 random squares that overlaps none of `taken`."""
    tops, lefts = rng.integers(0, [[size[0] - side + 1], [size[1] - side + 1]], (2, 64))
    free = np.ones(64, dtype=bool)
    for top, left, other in taken:
        above, below = tops + side <= top, tops >= top + other
        before, behind = lefts + side <= left, lefts >= left + other
        free &= above | below | before | behind
    first = int(free.argmax())
    return (int(tops[first]), int(lefts[first])) if free[first] else None


def _contrasting(rng: np.random.Generator, background: np.ndarray) -> np.ndarray:
    """Returns the one of eight random RGB colors that is farthest from `background`."""
    colors = rng.random((8, 3), dtype=np.float32)
    return colors[np.square(colors - background).sum(1).argmax()]
