"""Paired augmentation: torchvision's transforms.v2, which change images and masks alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seg_l1.data.split import IGNORE


class Light:
    """Flip, shift and scale, and a little colour, drawn anew for each of `chunks` parts of a batch.

    Args:
        flip: probability of a horizontal flip (0 where left and right matter, as for digits).
        shift: largest shift as a share of height and width.
        scale: smallest and largest scale.
        colour: brightness, contrast and saturation change by up to this share.
        chunks: parts of a batch that are changed independently.
    """

    def __init__(
        self,
        *,
        flip: float = 0.5,
        shift: float = 0.1,
        scale: Sequence[float] = (0.9, 1.1),
        colour: float = 0.2,
        chunks: int = 4,
    ) -> None:
        from torchvision.transforms import v2
        from torchvision.tv_tensors import Image, Mask

        self.transform = v2.Compose(
            [
                v2.RandomHorizontalFlip(flip),
                v2.RandomAffine(
                    degrees=0,
                    translate=(shift, shift),
                    scale=tuple(scale),
                    interpolation=v2.InterpolationMode.BILINEAR,
                    fill={Image: 0, Mask: IGNORE},
                ),
                v2.ColorJitter(colour, colour, colour),
            ]
        )
        self.image_type, self.mask_type, self.chunks = Image, Mask, chunks

    def __call__(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        parts = [
            self.transform(self.image_type(some), self.mask_type(theirs))
            for some, theirs in zip(
                images.chunk(self.chunks), masks.chunk(self.chunks), strict=True
            )
        ]
        changed_images, changed_masks = zip(*parts, strict=True)
        return (
            torch.cat(changed_images).as_subclass(Tensor),
            torch.cat(changed_masks).as_subclass(Tensor),
        )
