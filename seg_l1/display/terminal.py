"""Text output: the log on screen and in `train.log`, the progress bar, the tables."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path
from textwrap import fill
from typing import IO, TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from seg_l1.display.console import Screen
from seg_l1.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from seg_l1.data.split import SegmentationData
    from seg_l1.metrics.sparsity import LayerZeros
    from seg_l1.training.evaluation import Row
    from seg_l1.training.loop import Loop

log = logging.getLogger("seg_l1")


def new_console(file: IO[str] | None = None) -> Console:
    """Returns a console that prints texts as they are, to standard output if no file is given."""
    return Screen(file=file, highlight=False, soft_wrap=True, markup=False, emoji=False)


def say(text: str) -> None:
    """Prints a text to standard output."""
    new_console().print(text)


class _ConsoleHandler(logging.Handler):
    """Prints through rich, so that lines stand above the live bar."""

    def __init__(self) -> None:
        super().__init__()
        self.console = new_console(sys.stdout)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.console.print(record.getMessage())
        except Interrupted as error:
            log.removeHandler(self)
            log.info(record.getMessage())
            log.info(f"interrupted: {error}")
            raise


@contextmanager
def logging_to_screen() -> Iterator[Console]:
    """Context manager that sends the log to the screen, and after `open_log` to a file too."""
    screen = _ConsoleHandler()
    log.addHandler(screen)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield screen.console
    finally:
        for handler in list(log.handlers):
            log.removeHandler(handler)
            handler.close()


@contextmanager
def logging_to_file() -> Iterator[Console]:
    """Context manager that sends the log only to the file of `open_log`; its console is silent."""
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield Console(file=StringIO())
    finally:
        for handler in list(log.handlers):
            log.removeHandler(handler)
            handler.close()


class _FileHandler(logging.FileHandler):
    """Ignores a log that cannot be written: other files fail too, and are reported."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass

    def close(self) -> None:
        with suppress(OSError):  # what could not be written is still in its buffer
            super().close()


def open_log(file: Path) -> None:
    """Sends the log to `file` too, until `logging_to_screen` or `logging_to_file` ends."""
    handler = _FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s"))
    log.addHandler(handler)


class Bar:
    """A progress bar with loss, mIoU, zeros and time left on a terminal; nothing elsewhere."""

    def __init__(self, console: Console, loop: Loop) -> None:
        total, done = loop.total_steps, loop.step
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.task = self.progress.add_task("start", total=total, completed=done, state="")
        self.row: Row = {}
        # where no bar is shown: step and seconds at the start, until the estimate is logged
        self.start = None if console.is_terminal else (loop.step, loop.seconds)

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def step(self, loop: Loop, loss: float) -> None:
        """Shows the state after a training step.

        Args:
            loss: of the step, without the penalty.
        """
        if self.start is not None:
            step, seconds = self.start
            left = (loop.seconds - seconds) / (loop.step - step) * (loop.total_steps - loop.step)
            log.info(f"step {loop.step}: data loss {loss:.4f}; about {left:.0f} s left")
            self.start = None
        scores = ""
        if self.row:
            scores = (
                f"  mIoU {self.row['val/miou']:.3f}  zeros {100 * self.row['sparsity/exact']:.1f} %"
            )
        self.progress.update(
            self.task,
            completed=loop.step,
            description=f"epoch {min(loop.epoch + 1, loop.settings.epochs)}/{loop.settings.epochs}",
            state=f"loss {loss:.4f}{scores}",
        )


def epoch_line(row: Row, *, epochs: int, best: bool, target: float | None = None) -> str:
    """Returns the line of the log for an epoch.

    Args:
        target: what share of the dense network the compact one has to have, if any.
    """
    size = "" if target is None else f"  size {row['target/share']:.3f} -> {target:g}"
    return (
        f"epoch {row['epoch']:>3}/{epochs}  loss {row['train/loss']:.4f} ="
        f" data {row['train/data_loss']:.4f} + penalty {row['train/penalty']:.4f}"
        f"  mIoU train {row['train/miou']:.3f} val {row['val/miou']:.3f}"
        f"  zeros {100 * row['sparsity/exact']:5.1f} %{size}  {row['time/epoch_s']:.1f} s"
        + ("  best so far" if best else "")
    )


def data_text(data: SegmentationData) -> str:
    """Returns sizes, classes and pixel shares of a data set that passed its check."""
    images, _ = data.splits["train"][[0]]
    channels, height, width = images.shape[1:]
    sizes = ", ".join(f"{len(split)} {name}" for name, split in data.splits.items())
    shares = [f"{100 * share:.2f} %" for share in data.pixel_shares]
    size = f"{height}x{width} (height x width)"
    if data.splits["train"].image_size is None:
        size = f"their own sizes, the first {size}"
    lines = [
        f"data: {sizes} images of {size}, {channels} channels"
        + (f" of {data.bits} bits" if data.bits != 8 else ""),
        _per_class("share of labeled training pixels", data.classes, values=shares),
        *(f"note: {note}" for note in data.notes),
    ]
    if data.unlabeled:
        lines.append(f"note: {100 * data.unlabeled:.1f} % of the training pixels are not labeled")
    return "\n".join(lines)


def _per_class(title: str, classes: Sequence[str], *, values: Sequence[str]) -> str:
    """Returns a title and "class: value" pairs, wrapped between pairs."""
    pairs = [f"{name}: {value}" for name, value in zip(classes, values, strict=True)]
    text = f"{title}: " + ", ".join(pair.replace(" ", "\0") for pair in pairs)
    wrapped = fill(text, 100, subsequent_indent="  ", break_on_hyphens=False)
    return wrapped.replace("\0", " ")


def classes_table(
    classes: Sequence[str], columns: Mapping[str, Sequence[float]], *, split: str, epoch: int
) -> str:
    """Returns a table with a row per class: validation IoU, and all scores of `split`."""
    table = Table(title=f"classes, best epoch {epoch}", title_justify="left")
    table.add_column("class")
    shown = {"val IoU": columns["val_iou"]} if split != "val" else {}
    for name in ("iou", "dice", "precision", "recall"):
        label = {"iou": "IoU", "precision": "prec."}.get(name, name)
        shown[f"{split} {label}"] = columns[f"{split}_{name}"]
    for name in (*shown, "pixels"):
        table.add_column(name, justify="right")
    pixels = columns[f"{split}_pixels"]
    for index, name in enumerate(classes):
        scores = ["-" if math.isnan(v[index]) else f"{v[index]:.3f}" for v in shown.values()]
        share = f"{100 * pixels[index] / max(1, sum(pixels)):.2f} %"
        table.add_row(name, *scores, share)
    return render(table)


def certificate_text(row: dict[str, float]) -> str:
    """Returns how far the last weights meet the optimality condition; "" if it was not checked."""
    zeros, support = row["kkt/zeros"], row["kkt/support"]
    parts = []
    if not math.isnan(zeros):
        parts.append(f"{100 * zeros:.1f} % of the zeros satisfy it")
    if not math.isnan(support):
        largest = f"{float(f'{support:.2g}'):g}"
        parts.append(f"for the other weights the residual is at most {largest} alpha")
    if not parts:
        return ""
    return f"optimality condition, epoch {row['epoch']:.0f}: {'; '.join(parts)}"


def zeros_table(layers: Sequence[LayerZeros], *, epoch: int, largest: int = 5) -> str:
    """Returns a table of exact zeros: the `largest` penalized tensors, and all together."""
    title = f"exact zeros of penalized weights, best epoch {epoch}"
    table = Table(title=title, title_justify="left")
    table.add_column("tensor")
    for name in ("weights", "zeros", "share", "dead channels"):
        table.add_column(name, justify="right")

    def add(name: str, some: Sequence[LayerZeros]) -> None:
        weights, zeros = sum(x.weights for x in some), sum(x.zeros for x in some)
        dead, groups = sum(x.zero_groups for x in some), sum(x.groups for x in some)
        share = f"{100 * zeros / max(1, weights):.1f} %"
        table.add_row(name, f"{weights:,}", f"{zeros:,}", share, f"{dead} of {groups}")

    for layer in sorted(layers, key=lambda layer: -layer.weights)[:largest]:
        add(layer.name, [layer])
    table.add_section()
    add(f"all {len(layers)}", layers)
    return render(table)


def render(table: Table) -> str:
    """Returns a table as plain text."""
    file = StringIO()
    console = Console(file=file, width=100, color_system=None, markup=False, emoji=False)
    console.print(table)
    return file.getvalue().rstrip()
