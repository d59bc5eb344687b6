"""What a run shows in TensorBoard: scalars, pictures, histograms of weights, one HParams record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
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
            if name not in ("epoch", "step") and not math.isnan(value):
                self.writer.add_scalar(name, value, int(row["epoch"]))

    def picture(self, name: str, picture: Tensor, epoch: int) -> None:
        self.writer.add_image(name, picture, epoch)

    def histograms(self, tensors: Sequence[ScopedTensor], epoch: int) -> None:
        """The penalised weights of each tensor, and all of them together.

        TensorBoard draws 30 bins. So there are 30, of which one has zero in its middle: exact
        zeros stand out as one spike. They reach over four times the root mean square of the
        weights that are not zero, rounded to a power of two so that epochs share their bins; what
        lies further out is shown at the edge.
        """
        weights = {e.name: e.tensor.detach().flatten().cpu() for e in tensors if e.penalized}
        if not weights:
            return
        together = torch.cat(list(weights.values()))
        for name, values in {"all penalised weights": together, **weights}.items():
            alive = values[values != 0]
            size = float(alive.square().mean().sqrt()) if len(alive) else 1e-3
            width = 2 ** math.ceil(math.log2(4 * size)) / 15
            edges = [(index - 14.5) * width for index in range(31)]
            values = values.clamp(edges[0], edges[-1])
            self.writer.add_histogram(f"weights/{name}", values, epoch, bins=edges)

    def hparams(self, chosen: dict[str, Any], results: dict[str, float]) -> None:
        self.writer.add_hparams(chosen, results, run_name=".")

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        with suppress(OSError):  # on a full disk, which whoever closes has told
            self.writer.close()
