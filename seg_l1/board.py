"""What a run shows in TensorBoard: scalars, pictures, histograms of weights, one HParams record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seg_l1.scope import ScopedTensor


class Board:
    """Writes event files into `folder`; the step of everything is the epoch.

    A run that is resumed at `epoch` hides what an earlier attempt wrote from there on.
    """

    def __init__(self, folder: Path, epoch: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=epoch + 1 if epoch else None)

    def scalars(self, row: dict[str, float]) -> None:
        for name, value in row.items():
            if name != "epoch":
                self.writer.add_scalar(name, value, int(row["epoch"]))

    def picture(self, name: str, picture: Tensor, epoch: int) -> None:
        self.writer.add_image(name, picture, epoch)

    def histograms(self, tensors: Sequence[ScopedTensor], epoch: int) -> None:
        """The penalised weights of each tensor, and all of them together, in linear bins.

        Zero lies in the middle of a bin, so that exact zeros stand out as one spike.
        """
        weights = {e.name: e.tensor.detach().flatten() for e in tensors if e.penalized}
        if not weights:
            return
        together = torch.cat(list(weights.values()))
        for name, values in {"all penalised weights": together, **weights}.items():
            reach = max(float(values.abs().max()), 1e-6)
            bins = torch.linspace(-reach, reach, 102).tolist()
            self.writer.add_histogram(f"weights/{name}", values.cpu(), epoch, bins=bins)

    def hparams(self, chosen: dict[str, Any], results: dict[str, float]) -> None:
        self.writer.add_hparams(chosen, results, run_name=".")

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
