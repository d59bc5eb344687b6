"""What several networks are made of, and what is done to networks of other libraries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import batch_norm, pad

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(_groups(channels), channels),
    "none": lambda channels: nn.Identity(),
}


def convolutions(widths: Sequence[int], norm: str, dropout: float) -> nn.Sequential:
    """A block: conv3×3, norm and ReLU from each of `widths` to the next, and channel dropout.

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
    """(N, C, H, W) with H and W rounded up to `multiple`s; the last row and column are repeated."""
    height, width = images.shape[-2:]
    return pad(images, (0, -width % multiple, 0, -height % multiple), mode="replicate")


def adapt_first_convolution(net: nn.Module, channels: int) -> None:
    """Replaces the first convolution of `net`, one for colour images, by one for `channels`.

    Each weight is the sum over the colours divided by `channels`: a grey image has the response
    that the colour image of the same grey had.
    """
    if channels == 3:
        return
    name, old = next((n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d))
    new = nn.Conv2d(
        channels, old.out_channels, old.kernel_size, old.stride, old.padding, old.dilation,
        bias=old.bias is not None,
    )  # fmt: skip
    grey = old.weight.detach().sum(1, keepdim=True) / channels
    new.load_state_dict({**old.state_dict(), "weight": grey.expand_as(new.weight)})
    net.set_submodule(name, new)


def replace_dropout(net: nn.Module, rate: float) -> None:
    """Gives every dropout layer of `net` the same rate, those that drop whole branches too.

    Raises:
        ValueError: if there is none and the rate is not 0.
    """
    found = False
    for layer in net.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p, found = rate, True
        elif type(layer).__name__ in ("DropPath", "StochasticDepth"):
            name, found = "drop_prob" if hasattr(layer, "drop_prob") else "p", True
            setattr(layer, name, rate)
    if rate and not found:
        raise ValueError(f"dropout: got {rate}, but this network has no dropout layer")


class _BatchNorm(nn.BatchNorm2d):
    """Batch norm that takes its running statistics where a batch has one value per channel."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(x)


def allow_single_value_batch_norm(net: nn.Module) -> None:
    """Lets batch norms train on one value per channel, where torch's raises.

    That happens to a batch of one image behind global pooling (DeepLab's image features), and in
    the deepest layers for small images.
    """
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = _BatchNorm


def _groups(channels: int) -> int:
    """The largest divisor of `channels` up to 8."""
    return max(groups for groups in range(1, 9) if channels % groups == 0)
