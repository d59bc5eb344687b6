"""From a configuration to a network and a device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seg_l1 import distributed
from seg_l1.compaction import set_shapes
from seg_l1.errors import UserError, first_line
from seg_l1.runs import checkpoints
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.files import Config
from seg_l1.training.instantiate import instantiate


def build_model(
    config: Config, channels: int, num_classes: int, *, pretrained: bool = True
) -> nn.Module:
    """Builds the network of `config` for images of `channels` and `num_classes` classes.

    Args:
        pretrained: False where a checkpoint follows: then no trained weights are loaded.
    """
    left_out = () if pretrained else ("weights", "weights_backbone", "encoder_weights")
    spec = {k: None if k in left_out else v for k, v in config["model"].items()}
    return instantiate("model", spec, in_channels=channels, num_classes=num_classes)


@contextmanager
def fitting_the_images() -> Iterator[None]:
    """Context manager: what a network raises on images of the data becomes a UserError."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise UserError(f"model: does not fit the images ({first_line(error)})") from error


def load_weights(model: nn.Module, checkpoint: Mapping[str, Any]) -> None:
    """Loads weights and batch-norm statistics of a `last.pt` or `best.pt`.

    Those of a compact network give the layers of `model` their shapes.
    """
    shapes = checkpoints.compact_state(checkpoint)
    if shapes is not None:
        set_shapes(model, shapes)
    model.load_state_dict(checkpoints.model_state(checkpoint))


def load_start(model: nn.Module, start: str) -> bool:
    """Loads a checkpoint, or the best epoch of a run, see `load_weights`.

    Returns:
        Whether it is of a compact network.

    Raises:
        UserError: if there is no such file, or it is of another network.
    """
    path = Path(start).expanduser()
    file = RunDirectory.existing(path, key="start").best if path.is_dir() else path
    checkpoint = checkpoints.load(file)
    try:
        load_weights(model, checkpoint)
    except KeyError as error:
        raise UserError(f"start: {file} holds no weights ({error} is missing)") from None
    except (RuntimeError, TypeError) as error:
        raise UserError(f"start: {file} is of another network ({first_line(error)})") from None
    return checkpoints.compact_state(checkpoint) is not None


def find_device(name: str) -> torch.device:
    """Returns the device of that name, or of "auto" a GPU where there is one.

    In a distributed run each process gets its own GPU, see `distributed.device`.

    Raises:
        UserError: if it cannot be used.
    """
    if distributed.size() > 1:
        return distributed.device(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
        if device.type == "meta":
            raise RuntimeError("it computes nothing")
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise UserError(f"device: '{name}' cannot be used here ({reason})") from None
    return device
