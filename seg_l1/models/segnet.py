"""SegNet (Badrinarayanan, Kendall, Cipolla, 2017), for images of any size."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import max_pool2d, max_unpool2d

from seg_l1.models.layers import allow_single_value_batch_norm, convolutions


class SegNet(nn.Module):
    """VGG-like encoder, and a decoder that unpools with the indices of max-pooling.

    Maps (N, in_channels, H, W) to logits (N, num_classes, H, W); besides the last features, only
    the indices of the maxima go from encoder to decoder. H and W may be odd: pooling rounds up.
    Width 64 and depth 5 are the network of the paper; its encoder has the 13 convolutions of
    VGG-16.

    Args:
        width: channels of the first level; each level down doubles them, up to 8 times.
        depth: number of poolings.
        norm: "batch", "group" or "none"; a convolution has a bias only where no norm follows.
        dropout: share of channels dropped after each block while training.

    Raises:
        ValueError: on an unknown norm, or on width or depth below 1.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        width: int = 16,
        depth: int = 4,
        norm: str = "batch",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width < 1 or depth < 1:
            raise ValueError(f"width and depth must be at least 1, got {width} and {depth}")
        widths = [width * min(2**level, 8) for level in range(depth)]
        counts = [2 if level < 2 else 3 for level in range(depth)]
        self.encoder = nn.ModuleList(
            convolutions([before, *[after] * count], norm, dropout)
            for before, after, count in zip(
                [in_channels, *widths[:-1]], widths, counts, strict=True
            )
        )
        self.decoder = nn.ModuleList(
            convolutions([*[deep] * count, shallow], norm, dropout)
            for deep, shallow, count in zip(widths[1:], widths[:-1], counts[1:], strict=True)
        )
        self.last = convolutions([width, width], norm, dropout)
        self.head = nn.Conv2d(width, num_classes, 3, padding=1)
        allow_single_value_batch_norm(self)

    def forward(self, x: Tensor) -> Tensor:
        pooled = []
        for block in self.encoder:
            x = block(x)
            size = x.shape[-2:]
            x, indices = max_pool2d(x, 2, ceil_mode=True, return_indices=True)
            pooled.append((indices, size))
        for block in [*self.decoder[::-1], self.last]:
            indices, size = pooled.pop()
            x = block(max_unpool2d(x, indices, [2, 2], output_size=size))
        return self.head(x)
