"""A plain PyTorch loop, in the manner of torchvision's reference for segmentation.

It prints smoothed loss and rate while it trains, keeps a confusion matrix in validation, and saves
a checkpoint with everything after each epoch. L1 is added to the loss.
"""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.peers.task import Clock, Images, Task, naive_l1

PRINT_EVERY = 10


def train(task: Task, *, l1: bool, clock: Clock) -> None:
    """Trains to the end."""
    model, criterion = task.network(), nn.CrossEntropyLoss()
    optimizer = task.optimizer(model)
    schedule = task.schedule(optimizer)
    training = DataLoader(Images(task, "train"), task.batch_size, shuffle=True, drop_last=True)
    validation = DataLoader(Images(task, "val"), task.batch_size)
    task.folder.mkdir(parents=True, exist_ok=True)
    for epoch in range(task.epochs):
        model.train()
        recent: deque[float] = deque(maxlen=20)
        for number, (images, masks) in enumerate(training):
            loss = criterion(model(images), masks)
            if l1:
                loss = loss + naive_l1(model)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            clock.stepped()
            recent.append(loss.item())
            if number % PRINT_EVERY == 0:
                rate = optimizer.param_groups[0]["lr"]
                print(f"{epoch} [{number}] lr {rate:.6f} loss {sum(recent) / len(recent):.4f}")
        clock.trained()
        counts = evaluate(model, validation, task.classes)
        hit = counts.diag()
        iou = hit / (counts.sum(0) + counts.sum(1) - hit)
        print(
            f"{epoch} mean IoU {float(iou.nanmean()):.4f}, accuracy {hit.sum() / counts.sum():.4f}"
        )
        state = {
            "model": model.state_dict(), "optimizer": optimizer.state_dict(),
            "lr_scheduler": schedule.state_dict(), "epoch": epoch,
        }  # fmt: skip
        torch.save(state, task.folder / "checkpoint.pth")
        clock.validated()


def evaluate(model: nn.Module, batches: DataLoader, classes: int) -> Tensor:
    """Returns the confusion matrix (K, K) of the validation images."""
    model.eval()
    counts = torch.zeros(classes, classes, dtype=torch.int64)
    with torch.inference_mode():
        for images, masks in batches:
            predicted = model(images).argmax(1)
            pairs = classes * masks.flatten() + predicted.flatten()
            counts += torch.bincount(pairs, minlength=classes**2).view(classes, classes)
    return counts
