"""What a run shows in TensorBoard: scalars, images, histograms of weights, one HParams record."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from seg_l1.scope import ScopedTensor

BINS = 30
"""As many bins as TensorBoard draws; edges are shifted so that one bin is centered at 0."""


class Board:
    """Writes event files into `folder`; the step of everything is the epoch.

    A run that is resumed at `epoch` hides what an earlier attempt wrote from there on.
    """

    def __init__(self, folder: Path, epoch: int = 0) -> None:
        self.writer = SummaryWriter(str(folder), purge_step=epoch + 1 if epoch else None)

    def scalars(self, row: Mapping[str, float]) -> None:
        """Writes each column of a row of metrics under its own name."""
        for name, value in row.items():
            if name not in ("epoch", "step") and not math.isnan(value):
                self.writer.add_scalar(name, value, int(row["epoch"]))

    def image(self, name: str, image: Tensor, *, epoch: int) -> None:
        """Writes an image (3, H, W) uint8."""
        self.writer.add_image(name, image, epoch)

    def histograms(self, tensors: Sequence[ScopedTensor], *, epoch: int) -> None:
        """Writes the penalized weights of each tensor, and those of all of them together.

        One of the bins is centered at 0, so that exact zeros stand out as one spike. The bins cover
        four times the root mean square of the nonzero weights, rounded up to a power of two so that
        epochs share their bins; weights further out are counted in the outermost bins.
        """
        weights = {e.name: e.tensor.detach().flatten().cpu() for e in tensors if e.penalized}
        if not weights:
            return
        together = torch.cat(list(weights.values()))
        for name, values in {"all penalised weights": together, **weights}.items():
            nonzero = values[values != 0]
            scale = float(nonzero.double().square().mean().sqrt()) if len(nonzero) else 1e-3
            width = 2 ** math.ceil(math.log2(4 * scale)) * 2 / BINS
            edges = [(index - (BINS - 1) / 2) * width for index in range(BINS + 1)]
            values = values.clamp(edges[0], edges[-1])
            self.writer.add_histogram(f"weights/{name}", values, epoch, bins=edges)

    def hparams(
        self, columns: Mapping[str, float | str | None], results: Mapping[str, float]
    ) -> None:
        """Writes one row of the HParams table.

        TensorBoard takes the columns of the table from one of the runs, so every run also names
        those of the others.

        Args:
            columns: the hyperparameters, None where this run has none.
            results: become scalars.
        """
        own = {name: value for name, value in columns.items() if value is not None}
        every = {name: 0.0 if value is None else value for name, value in columns.items()}
        table, _, _ = hparams(every, dict(results))
        _, start, end = hparams(own, dict(results))
        for summary in (table, start, end):
            self.writer._get_file_writer().add_summary(summary)
        for name, value in results.items():
            self.writer.add_scalar(name, value)

    def flush(self) -> None:
        """Writes what is still in memory."""
        self.writer.flush()

    def close(self) -> None:
        """Closes the files."""
        with suppress(OSError):  # on a full disk, which is reported elsewhere
            self.writer.close()
