"""Blocks of several networks, and adaptations of networks of other libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import batch_norm, pad

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(_groups(channels), channels),
    "none": lambda channels: nn.Identity(),
}


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Context manager: `model` is in eval mode; then each of its modules is as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def convolutions(widths: Sequence[int], norm: str, dropout: float) -> nn.Sequential:
    """Returns conv3×3, norm and ReLU from each of `widths` to the next, then channel dropout.

    A convolution has a bias only where no norm follows.

    Raises:
        ValueError: on an unknown norm.
    """
    if norm not in NORMS:
        raise ValueError(f"norm: got {norm!r}, expected one of {', '.join(NORMS)}")
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [
            nn.Conv2d(before, after, 3, padding=1, bias=norm == "none"),
            NORMS[norm](after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, *([nn.Dropout2d(dropout)] if dropout else []))


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pads H and W of images to multiples of `multiple`, repeating the last row and column."""
    height, width = images.shape[-2:]
    return pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def adapt_first_convolution(net: nn.Module, channels: int) -> None:
    """Makes the first convolution of `net`, which is for RGB images, one for `channels`.

    Each weight is the sum over the colors divided by `channels`: a grayscale image has the response
    that the RGB image of the same gray had.
    """
    if channels == 3:
        return
    first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    gray = first.weight.detach().sum(1, keepdim=True) / channels
    first.weight = nn.Parameter(gray.repeat(1, channels, 1, 1))
    first.in_channels = channels


def replace_dropout(net: nn.Module, rate: float) -> None:
    """Gives every dropout layer of `net` the same rate, including those that drop whole branches.

    Raises:
        ValueError: if there is none and the rate is not 0.
    """
    has_dropout = False
    for layer in net.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p, has_dropout = rate, True
        elif type(layer).__name__ in ("DropPath", "StochasticDepth"):
            name, has_dropout = "drop_prob" if hasattr(layer, "drop_prob") else "p", True
            setattr(layer, name, rate)
    if rate and not has_dropout:
        raise ValueError(f"dropout: got {rate}, but this network has no dropout layer")


class _BatchNorm(nn.BatchNorm2d):
    """Batch norm that uses its running statistics where a batch has one value per channel."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


def allow_single_value_batch_norm(net: nn.Module) -> None:
    """Lets batch norms train on one value per channel, where torch's raise.

    This happens with a batch of one image after global pooling (DeepLab's image features), and in
    the deepest layers for small images.
    """
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _BatchNorm


def _groups(channels: int) -> int:
    """The largest divisor of `channels` up to 8."""
    return max(groups for groups in range(1, 9) if channels % groups == 0)
