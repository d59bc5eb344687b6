"""U-Net (Ronneberger, Fischer, Brox, 2015), for images of any size."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seg_l1.models.layers import allow_single_value_batch_norm, convolutions


class UNet(nn.Module):
    """Encoder and decoder with skip connections.

    Maps (N, in_channels, H, W) to logits (N, num_classes, H, W). H and W may be odd: pooling rounds
    up, and the upsampled map is cropped to its skip connection.

    Args:
        width: channels of the first level.
        depth: number of poolings.
        growth: channels of a level as a multiple of those of the level above; 1 is a flat U-Net.
        norm: "batch", "group" or "none"; a convolution has a bias only where no norm follows.
        dropout: share of channels dropped after each block while training (Tompson et al., 2015).

    Raises:
        ValueError: on an unknown norm, or on width, depth or growth below 1.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        width: int = 16,
        depth: int = 3,
        growth: float = 2.0,
        norm: str = "batch",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if min(width, depth, growth) < 1:
            raise ValueError(
                f"width, depth and growth must be at least 1, got {width}, {depth} and {growth}"
            )
        widths = [round(width * growth**level) for level in range(depth + 1)]
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.down = nn.ModuleList(
            convolutions([before, after, after], norm, dropout)
            for before, after in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(deep, shallow, 2, stride=2)
            for shallow, deep in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.merge = nn.ModuleList(
            convolutions([2 * shallow, shallow, shallow], norm, dropout)
            for shallow in widths[-2::-1]
        )
        self.head = nn.Conv2d(width, num_classes, 1)
        allow_single_value_batch_norm(self)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.down[0](x)]
        for block in self.down[1:]:
            skips.append(block(self.pool(skips[-1])))
        x = skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            skip = skips.pop()
            x = up(x)[..., : skip.shape[-2], : skip.shape[-1]]
            x = merge(torch.cat([skip, x], dim=1))
        return self.head(x)
