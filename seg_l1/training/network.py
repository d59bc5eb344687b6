"""From a configuration to a network and a device."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from seg_l1 import distributed
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


def load_start(model: nn.Module, start: str) -> None:
    """Loads weights and batch-norm statistics of a checkpoint, or of the best epoch of a run.

    Raises:
        UserError: if there is no such file, or it is of another network.
    """
    path = Path(start).expanduser()
    file = RunDirectory.existing(path, key="start").best if path.is_dir() else path
    state = checkpoints.model_state(file)
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"start: {file} is of another network ({first_line(error)})") from None


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
