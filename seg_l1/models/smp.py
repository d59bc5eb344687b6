"""Networks of segmentation_models_pytorch (Iakubovskii, 2019): any architecture, any encoder."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from inspect import signature
from typing import Any

from torch import Tensor, nn

from seg_l1.errors import UserError, did_you_mean, first_line
from seg_l1.models.layers import allow_single_value_batch_norm, pad_to_multiple, replace_dropout


class SMP(nn.Module):
    """A network of segmentation_models_pytorch, for images of any size.

    Maps (N, in_channels, H, W) to logits (N, num_classes, H, W). Images whose sides the encoder
    does not divide are padded with their last row and column, and the logits are cropped.

    Args:
        arch: such as "Unet", "FPN" or "DeepLabV3Plus".
        encoder: such as "resnet18", or "tu-<name>" for one of timm.
        encoder_weights: None, or the name of trained weights, such as "imagenet"; for an encoder
            of timm any name, since its own name contains that of the weights.
        options: further arguments of the architecture, such as {"decoder_attention_type": "scse"}.
        dropout: the rate of all dropout layers of the network.

    Raises:
        ValueError: on an unknown name, or for dropout where the network has none.
        UserError: if the package is missing, or the weights cannot be downloaded.
    """

    wrapped = "net"
    """The module that is of the other library; exported weights have its names."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        arch: str = "Unet",
        encoder: str = "resnet18",
        encoder_weights: str | None = None,
        options: Mapping[str, Any] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        try:
            import segmentation_models_pytorch as smp
        except ImportError as error:
            raise UserError(
                f"model=smp: needs a package that is missing ({first_line(error)}):"
                " pip install segmentation-models-pytorch"
            ) from error
        timm = encoder.startswith("tu-")  # its names contain those of the weights
        architectures = {a.__name__: a for a in smp.MODEL_ARCHITECTURES_MAPPING.values()}
        _check("arch", arch, architectures)
        _check_encoder(encoder, encoder_weights)
        options = dict(options or {})
        for name in options:
            _check_option(name, architectures[arch], encoder)
        try:
            self.net = architectures[arch](
                encoder_name=encoder,
                encoder_weights=True if timm and encoder_weights else encoder_weights,
                in_channels=in_channels,
                classes=num_classes,
                **options,
            )
        except (OSError, RuntimeError) as error:
            if encoder_weights is None:
                raise ValueError(first_line(error)) from error
            raise UserError(
                f"model.encoder_weights: '{encoder_weights}' of {encoder} could not be loaded"
                f" ({first_line(error)}). Fill the cache of huggingface_hub (HF_HOME) on a machine"
                " that can, or set model.encoder_weights=null"
            ) from error
        divides = self.net.requires_divisible_input_shape
        self.multiple = self.net.encoder.output_stride if divides else 1
        replace_dropout(self, dropout)
        allow_single_value_batch_norm(self)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        return self.net(pad_to_multiple(x, self.multiple))[..., :height, :width]


_RESERVED = {"self", "kwargs", "encoder_name", "encoder_weights", "in_channels", "classes"}
_NO_LOGITS = {"activation", "aux_params"}


def _check(key: str, name: str, names: Collection[str]) -> None:
    if name not in names:
        hint = did_you_mean(name, names) or f" There are {', '.join(names)}"
        raise ValueError(f"{key}: there is no '{name}'.{hint}")


def _check_encoder(encoder: str, weights: str | None) -> None:
    from segmentation_models_pytorch.encoders import encoders

    if encoder.startswith("tu-"):
        import timm

        if not timm.is_model(encoder[3:]):
            hint = did_you_mean(encoder[3:], timm.list_models()).replace("'", "'tu-", 1)
            raise ValueError(f"encoder: timm has no '{encoder[3:]}'.{hint}")
        return
    _check("encoder", encoder, encoders)
    if weights is not None:
        _check("encoder_weights", weights, encoders[encoder]["pretrained_settings"])


def _check_option(name: str, kind: type, encoder: str) -> None:
    """Refuses what the architecture would ignore; encoders of timm have options of their own."""
    names = set(signature(kind).parameters) - _RESERVED - _NO_LOGITS
    if name in _RESERVED | _NO_LOGITS or (name not in names and not encoder.startswith("tu-")):
        raise ValueError(
            f"options: {kind.__name__} takes no '{name}' here.{did_you_mean(name, names)}"
            f" There are {', '.join(sorted(names))}"
        )
