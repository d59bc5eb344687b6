"""U-Net (Ronneberger, Fischer, Brox, 2015), for images of any size."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(_groups(channels), channels),
    "none": lambda channels: nn.Identity(),
}


class UNet(nn.Module):
    """Encoder and decoder with skip connections.

    Maps (N, in_channels, H, W) to logits (N, num_classes, H, W). H and W may be odd: pooling rounds
    up, and the upsampled map is cut to its skip.

    Args:
        width: channels of the first level; each level down doubles them.
        depth: number of poolings.
        norm: "batch", "group" or "none"; a convolution has a bias only where no norm follows.
        dropout: share of channels dropped after each block while training (Tompson et al., 2015).

    Raises:
        ValueError: on an unknown norm, or on width or depth below 1.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        width: int = 16,
        depth: int = 3,
        norm: str = "batch",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm: got {norm!r}, expected one of {', '.join(NORMS)}")
        if width < 1 or depth < 1:
            raise ValueError(f"width and depth must be at least 1, got {width} and {depth}")
        widths = [width * 2**level for level in range(depth + 1)]
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.down = nn.ModuleList(
            _block(before, after, norm, dropout)
            for before, after in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(deep, shallow, 2, stride=2)
            for shallow, deep in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.merge = nn.ModuleList(
            _block(2 * shallow, shallow, norm, dropout) for shallow in widths[-2::-1]
        )
        self.head = nn.Conv2d(width, num_classes, 1)

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


def _block(before: int, after: int, norm: str, dropout: float) -> nn.Sequential:
    def convolution(channels: int) -> list[nn.Module]:
        return [
            nn.Conv2d(channels, after, 3, padding=1, bias=norm == "none"),
            NORMS[norm](after),
            nn.ReLU(inplace=True),
        ]

    drop = [nn.Dropout2d(dropout)] if dropout else []
    return nn.Sequential(*convolution(before), *convolution(after), *drop)


def _groups(channels: int) -> int:
    """The largest divisor of `channels` up to 8."""
    return max(groups for groups in range(1, 9) if channels % groups == 0)
