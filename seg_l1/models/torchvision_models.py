"""Networks of torchvision.models.segmentation, for any number of channels and classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from pickle import UnpicklingError
from typing import Any

from torch import Tensor, hub, nn
from torch.nn.functional import interpolate
from torchvision import models

from seg_l1.errors import UserError, did_you_mean, first_line
from seg_l1.models import TrainingOutput
from seg_l1.models.layers import (
    adapt_first_convolution,
    allow_single_value_batch_norm,
    replace_dropout,
)


class TorchvisionModel(nn.Module):
    """A network of torchvision: FCN (Long, 2015), DeepLabv3 (Chen, 2017), LR-ASPP (Howard, 2019).

    Maps (N, in_channels, H, W) to logits (N, num_classes, H, W); with an auxiliary head, in
    training mode, to a `TrainingOutput`. Parameters have torchvision's names. A batch norm that
    sees one value per channel (a batch of one image after DeepLab's global pooling) uses its
    running statistics.

    Args:
        arch: the function in torchvision.models.segmentation, such as "fcn_resnet50".
        weights: None, or the name of trained weights, such as "DEFAULT". Where their number of
            classes differs, the last layers are initialized anew; for images without three
            channels, see `adapt_first_convolution`.
        weights_backbone: the same, for the backbone alone.
        aux: whether an auxiliary head trains along.
        aux_weight: weight of its loss; 0.4 as in PSPNet (Zhao et al., 2017), while torchvision's
            own recipe has 0.5.
        dropout: the rate of the dropout layers in the heads (torchvision: 0.1 in fcn, 0.5 in
            deeplabv3).

    Raises:
        ValueError: on an unknown arch or name of weights, or for a head or a dropout that the
            network does not have.
        UserError: if the weights cannot be downloaded.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        arch: str,
        weights: str | None = None,
        weights_backbone: str | None = None,
        aux: bool = False,
        aux_weight: float = 0.4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.aux_weight = aux_weight
        net: Any = _build(arch, num_classes, weights, weights_backbone, aux)
        self.backbone: nn.Module = net.backbone
        self.classifier: nn.Module = net.classifier
        self.aux_classifier: nn.Module | None = net.aux_classifier if aux else None
        adapt_first_convolution(self.backbone, in_channels)
        replace_dropout(self, dropout)
        allow_single_value_batch_norm(self)

    def forward(self, x: Tensor) -> Tensor | TrainingOutput:
        features = self.backbone(x)
        main = self.classifier(features.get("out", features))
        main = interpolate(main, x.shape[-2:], mode="bilinear")
        if self.aux_classifier is None or not self.training:
            return main
        aux = interpolate(self.aux_classifier(features["aux"]), x.shape[-2:], mode="bilinear")
        return TrainingOutput(main, aux, self.aux_weight)


def _build(
    arch: str, num_classes: int, weights: str | None, weights_backbone: str | None, aux: bool
) -> nn.Module:
    names = models.list_models(module=models.segmentation)
    if arch not in names:
        raise ValueError(
            f"arch: there is no '{arch}'.{did_you_mean(arch, names)} There are {', '.join(names)}"
        )
    builder = models.get_model_builder(arch)
    default = signature(builder).parameters["weights_backbone"].default
    whole = _member("weights", weights, models.get_model_weights(builder))
    backbone = _member("weights_backbone", weights_backbone, type(default))
    if whole and backbone:
        raise ValueError("weights and weights_backbone: the first contain the second, choose one")
    if aux and "aux_loss" not in signature(builder).parameters:
        raise ValueError(f"aux: {arch} has no auxiliary head")
    if whole is None:
        heads = {"aux_loss": True} if aux else {}
        make = partial(builder, num_classes=num_classes, weights_backbone=backbone, **heads)
        return _download("weights_backbone", backbone, make)
    net = _download("weights", whole, partial(builder, weights=whole))
    trained = len(whole.meta["categories"])
    if trained != num_classes:
        _renew_last_layers(net, trained, num_classes)
    return net


def _member(key: str, name: str | None, enumeration: Any) -> Any:
    """Returns the member `name` of an enumeration of weights."""
    names = enumeration.__members__
    if name is not None and name not in names:
        hint = did_you_mean(name, names)
        raise ValueError(f"{key}: there is no '{name}'.{hint} There are {', '.join(names)}")
    return None if name is None else enumeration[name]


def _download(key: str, weights: Any, make: Callable[[], nn.Module]) -> nn.Module:
    """Calls `make`, which downloads `weights` unless torch's hub folder has them."""
    try:
        return make()
    except (OSError, EOFError, RuntimeError, UnpicklingError) as error:
        if weights is None:
            raise
        raise UserError(
            f"model.{key}: {weights.url} could not be downloaded and read ({first_line(error)})."
            f" Put that file into {hub.get_dir()}/checkpoints, or set model.{key}=null"
        ) from error


def _renew_last_layers(net: nn.Module, trained: int, num_classes: int) -> None:
    """Replaces the layers, at the end of each head, that score `trained` classes."""
    for name, layer in list(net.named_modules()):
        if isinstance(layer, nn.Conv2d) and layer.out_channels == trained:
            height, width = layer.kernel_size
            net.set_submodule(name, nn.Conv2d(layer.in_channels, num_classes, (height, width)))
