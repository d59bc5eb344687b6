"""Paired augmentation: torchvision's transforms.v2, applied to images and masks alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import Image, Mask

from seg_l1.data.labels import IGNORE
from seg_l1.data.resample import resize_images, resize_masks


class Augmentation:
    """Random scale, shift, crop, flip and color, drawn anew for each of `chunks` parts of a batch.

    Pixels outside an image become 0, and unlabeled. Images that have neither one nor three
    channels change in brightness and contrast alone, all channels by the same factors. With 16 bits
    the smallest and largest values of each channel, in a part, take the place of 0 and 255.

    Args:
        flip: probability of a horizontal flip (0 where left and right matter, as for digits).
        scale: smallest and largest scale, drawn log-uniformly.
        shift: largest shift as a share of height and width.
        crop: (H, W) of the window that is cut out at random; None = the size of the image.
        colour: brightness, contrast and saturation change by up to this share.
        hue: largest rotation of the hue, 0.5 = all hues.
        chunks: parts of a batch that are changed independently; None = each image.
    """

    def __init__(
        self,
        *,
        flip: float = 0.5,
        scale: Sequence[float] = (0.9, 1.1),
        shift: float = 0.1,
        crop: Sequence[int] | None = None,
        colour: float = 0.2,
        hue: float = 0.0,
        chunks: int | None = 4,
    ) -> None:
        if scale[0] > scale[1]:
            raise ValueError(f"scale is [smallest, largest], got {list(scale)}")
        self.scale, self.shift, self.chunks = tuple(scale), shift, chunks
        self.crop = None if crop is None else tuple(crop)
        self.flip = v2.RandomHorizontalFlip(flip)
        self.jitter = v2.ColorJitter(colour, colour, colour, hue)

    def __call__(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Maps images (N, C, H, W) and masks (N, H, W) uint8 to augmented ones of `crop` size.

        uint8 images stay uint8; int32 images, of 16 bits, become float32 with the same range.
        """
        chunks = len(images) if self.chunks is None else self.chunks
        parts = [
            (self._change if images.dtype == torch.uint8 else self._change_deep)(*pair)
            for pair in zip(images.chunk(chunks), masks.chunk(chunks), strict=True)
        ]
        changed_images, changed_masks = zip(*parts, strict=True)
        return (
            torch.cat(changed_images).as_subclass(Tensor),
            torch.cat(changed_masks).as_subclass(Tensor),
        )

    def _change_deep(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Changes images of 16 bits as floats from 0 to 1, which torchvision takes."""
        images = images.float()
        low, high = images.amin((0, 2, 3), keepdim=True), images.amax((0, 2, 3), keepdim=True)
        spread = (high - low).clamp_min(1)
        images, masks = self._change((images - low) / spread, masks)
        return images * spread + low, masks

    def _change(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        height, width = masks.shape[-2:]
        low, high = self.scale
        factor = low * (high / low) ** float(torch.rand(()))
        if factor != 1:
            size = [max(1, round(side * factor)) for side in (height, width)]
            images, masks = resize_images(images, size), resize_masks(masks, size)
        margin = [round(self.shift * width), round(self.shift * height)]
        cut = v2.RandomCrop(
            self.crop or (height, width),
            padding=margin,
            pad_if_needed=True,
            fill={Image: 0, Mask: IGNORE},
        )
        images, masks = self.flip(*cut(Image(images), Mask(masks)))
        if images.shape[1] in (1, 3):
            return self.jitter(images), masks
        single = Image(images.reshape(-1, 1, *images.shape[2:]))  # as gray images, a band each
        return self.jitter(single).reshape(images.shape), masks
