"""The article's network, adapted to segmentation: convolutions and a dense bottleneck."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import interpolate


class SeedCNN(nn.Module):
    """conv3×3 64-128-256, each with ReLU and max-pooling; fully connected 1024; scores per pixel.

    Maps (N, in_channels, H, W) to logits (N, num_classes, H, W), for one fixed image size: the
    last linear layer scores every class on a grid of a quarter of the image's height and width,
    which is upsampled bilinearly.

    Args:
        image_size: (H, W) in pixels.
        width: channels of the first convolution; the others have two and four times as many.
        hidden: units of the bottleneck.
        dropout: share of channels dropped after each pooling, and of hidden units, in training.

    Raises:
        ValueError: in `forward`, if an image has another size.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        image_size: tuple[int, int],
        width: int = 64,
        hidden: int = 1024,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.image_size = tuple(image_size)
        self.grid = [-(-side // 4) for side in image_size]
        deepest = [-(-side // 8) for side in image_size]
        widths = [in_channels, width, 2 * width, 4 * width]
        self.features = nn.Sequential(
            *(
                layer
                for before, after in pairwise(widths)
                for layer in (
                    nn.Conv2d(before, after, 3, padding=1),
                    nn.ReLU(inplace=True),
                    nn.MaxPool2d(2, ceil_mode=True),
                    *([nn.Dropout2d(dropout)] if dropout else []),
                )
            ),
            nn.Flatten(),
        )
        self.drop = nn.Dropout(dropout)
        self.bottleneck = nn.Linear(4 * width * deepest[0] * deepest[1], hidden)
        self.scores = nn.Linear(hidden, num_classes * self.grid[0] * self.grid[1])

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[-2:]) != self.image_size:
            got, built = tuple(x.shape[-2:]), self.image_size
            raise ValueError(f"seed_cnn was built for images of {built} (H, W), got {got}")
        hidden = self.drop(self.bottleneck(self.features(x)).relu())
        scores = self.scores(hidden).unflatten(1, (-1, *self.grid))
        return interpolate(scores, self.image_size, mode="bilinear")
