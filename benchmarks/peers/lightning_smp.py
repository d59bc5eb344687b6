"""Lightning with segmentation_models_pytorch, in the manner of the latter's example.

The module computes the statistics of smp for every batch of training and validation and their IoU
at the end of an epoch. Trainer, logger (TensorBoard), checkpoints and progress bar (that of tqdm;
rich allows only one in a process) are Lightning's defaults. L1 is added to the loss.
"""

from __future__ import annotations

import warnings

import lightning
import segmentation_models_pytorch as smp
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.peers.task import Clock, Images, Task, naive_l1


class Module(lightning.LightningModule):
    """The network, its loss and its scores."""

    def __init__(self, task: Task, l1: bool) -> None:
        super().__init__()
        self.task, self.l1 = task, l1
        self.model = task.network()
        self.loss = torch.nn.CrossEntropyLoss()
        self.outputs: dict[str, list[tuple[Tensor, ...]]] = {"train": [], "val": []}

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)

    def shared_step(self, batch: tuple[Tensor, Tensor], stage: str) -> Tensor:
        images, masks = batch
        logits = self(images)
        loss = self.loss(logits, masks)
        stats = smp.metrics.get_stats(
            logits.argmax(1), masks, mode="multiclass", num_classes=self.task.classes
        )
        self.outputs[stage].append(stats)
        self.log(f"{stage}/loss", loss, prog_bar=True)
        return loss

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        loss = self.shared_step(batch, "train")
        return loss + naive_l1(self.model) if self.l1 else loss

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        return self.shared_step(batch, "val")

    def shared_epoch_end(self, stage: str) -> None:
        stats = [torch.cat(parts) for parts in zip(*self.outputs[stage], strict=True)]
        self.log(f"{stage}/iou", smp.metrics.iou_score(*stats, reduction="macro"), prog_bar=True)
        self.outputs[stage].clear()

    def on_train_epoch_end(self) -> None:
        self.shared_epoch_end("train")

    def on_validation_epoch_end(self) -> None:
        self.shared_epoch_end("val")

    def configure_optimizers(self) -> dict:
        optimizer = self.task.optimizer(self.model)
        schedule = {"scheduler": self.task.schedule(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}


class Reporting(lightning.Callback):
    """Reports progress; Lightning validates before it calls `on_train_epoch_end`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_end(self, *_: object) -> None:
        self.clock.stepped()

    def on_validation_epoch_start(self, *_: object) -> None:
        self.clock.trained()

    def on_train_epoch_end(self, *_: object) -> None:
        self.clock.validated()


def train(task: Task, *, l1: bool, clock: Clock) -> None:
    """Trains to the end."""
    warnings.filterwarnings("ignore", module="lightning")
    trainer = lightning.Trainer(
        max_epochs=task.epochs, accelerator="cpu", default_root_dir=task.folder,
        callbacks=[TQDMProgressBar(), Reporting(clock)], num_sanity_val_steps=0,
    )  # fmt: skip
    training = DataLoader(
        Images(task, "train"), task.batch_size, shuffle=True, drop_last=True, num_workers=0
    )
    validation = DataLoader(Images(task, "val"), task.batch_size, num_workers=0)
    trainer.fit(Module(task, l1), training, validation)
