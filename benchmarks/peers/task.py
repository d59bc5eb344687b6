"""What every contender trains: the same network, data, loss, optimizer and schedule."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from seg_l1.models.unet import UNet

ALPHA = 3e-5


class Clock(Protocol):
    """Receives the progress of a contender."""

    def stepped(self) -> None:
        """The first optimizer step is taken; later calls do nothing."""

    def trained(self) -> None:
        """The training part of an epoch is over."""

    def validated(self) -> None:
        """The epoch is over: scored, logged and saved."""


@dataclass(frozen=True)
class Task:
    """A training.

    Attributes:
        images: split -> uint8 (N, C, H, W).
        masks: split -> class ids, uint8 (N, H, W).
        classes: their number.
        epochs: how long to train.
        batch_size: images per step.
        rate: the largest learning rate, of Adam with the one-cycle schedule.
        threads: of torch.
        folder: where a contender may write.
    """

    images: dict[str, Tensor]
    masks: dict[str, Tensor]
    classes: int
    epochs: int
    batch_size: int
    rate: float
    threads: int
    folder: Path

    @property
    def steps_per_epoch(self) -> int:
        """Number of optimizer steps per epoch; the last batch is dropped if it is not full."""
        return len(self.images["train"]) // self.batch_size

    def network(self) -> nn.Module:
        """Returns the U-Net with new weights."""
        return UNet(self.images["train"].shape[1], self.classes)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Returns Adam."""
        return torch.optim.Adam(model.parameters(), lr=self.rate, eps=1e-5)

    def schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Returns the one-cycle schedule, which takes a step per batch."""
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.rate, total_steps=self.steps_per_epoch * self.epochs
        )


class Images(Dataset[tuple[Tensor, Tensor]]):
    """A data set as tutorials write it: one image at a time, converted and normalized."""

    def __init__(self, task: Task, split: str) -> None:
        self.images, self.masks = task.images[split], task.masks[split]
        training = task.images["train"].float() / 255
        self.mean = training.mean((0, 2, 3)).view(-1, 1, 1)
        self.std = training.std((0, 2, 3)).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index].float() / 255
        return (image - self.mean) / self.std, self.masks[index].long()


def naive_l1(model: nn.Module) -> Tensor:
    """The penalty as tutorials write it, through autograd and on all parameters."""
    return ALPHA * sum(parameter.abs().sum() for parameter in model.parameters())
