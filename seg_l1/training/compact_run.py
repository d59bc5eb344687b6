"""`compact_run`: the compact network of a finished run, checked on images and timed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from seg_l1.compaction import CaptureError, CompactModel, Compactor
from seg_l1.deployment import onnx_file
from seg_l1.deployment.timing import RUNTIMES, NetworkTimer
from seg_l1.display.channels import save_channels
from seg_l1.display.run_text import run_title
from seg_l1.errors import UserError, first_line
from seg_l1.models.tiles import tiled
from seg_l1.runs.directory import RunDirectory
from seg_l1.training.compacting import write_compact
from seg_l1.training.run import resume_command
from seg_l1.training.saved import SavedRun, load_run

MULTIPLES = (1, 4, 8, 16)
"""What `multiple=auto` chooses from."""

NOISE = 0.03
"""Times that differ by less, relatively, count as equal: then the smaller network is chosen."""

SECONDS = 2.0
"""How long each row of the tables of times is measured."""

BATCHES = (1, 8)
"""Images at once in the tables of times."""


@dataclass(frozen=True)
class Equality:
    """How far the outputs of the compact network are from those of the dense one, over a split.

    Attributes:
        images, pixels: that were compared.
        difference: the largest difference of a logit.
        scale: the largest logit of the dense network.
        changed: pixels whose class is another one.
    """

    images: int
    pixels: int
    difference: float
    scale: float
    changed: int


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a batch.

    Attributes:
        runtime: "torch" or "onnxruntime".
        batch: images at once.
        threads: of the CPU; 0 on another device.
        dense, compact: medians in alternation.
    """

    runtime: str
    batch: int
    threads: int
    dense: float
    compact: float


@dataclass(frozen=True)
class Candidate:
    """The compact network for one `multiple`.

    Attributes:
        multiple: see `compact`.
        parameters, multiply_adds: of the network.
        torch_ms, onnx_ms: milliseconds of an image with one thread in torch and in onnxruntime;
            None where the network cannot be exported.
    """

    multiple: int
    parameters: int
    multiply_adds: int
    torch_ms: float
    onnx_ms: float | None

    @property
    def ms(self) -> float:
        """The geometric mean of the times."""
        return self.torch_ms if self.onnx_ms is None else math.sqrt(self.torch_ms * self.onnx_ms)


@dataclass(frozen=True)
class Compacted:
    """What `compact_run` did.

    Attributes:
        record: the run directory of the compact network.
        found: the compact network.
        multiple: see `compact`.
        candidates: what `multiple` was chosen from; empty if it was given.
        file_bytes: of `model.safetensors`, dense and compact.
        equality: over the validation split.
        timings: dense and compact.
        notes: what could not be measured, and why.
    """

    record: RunDirectory
    found: CompactModel
    multiple: int
    candidates: list[Candidate]
    file_bytes: tuple[int, int]
    equality: Equality
    timings: list[Timing]
    notes: list[str]


def compact_run(
    directory: str | Path,
    *,
    multiple: int | None = None,
    root: str | None = None,
    device: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Compacted:
    """Compacts the best network of a finished run, and writes `<run>/compact`.

    Args:
        multiple: see `compact`; None = the fastest of `MULTIPLES`; of several that are equally
            fast, the one with the fewest parameters.
        root, device: in place of `dataset.root` and `device` of the run.
        say: called with what is being done.

    Raises:
        UserError: if there is no such run, it is not finished, its network cannot be captured or
            has no channel that can go, or its data cannot be read.
    """
    _check_finished(RunDirectory.existing(directory, key="run"))
    saved = load_run(directory, "val", root=root, device=device)
    model = saved.experiment.loop.model.eval()
    example = next(iter(saved.batches.epoch()))[0][:1]
    say("capturing the network ...")
    found, multiple, candidates = _compacted(model, example, multiple, say)
    say("comparing the outputs on the validation images ...")
    equality = _compare(saved, model, found.model)
    say("measuring the time of both networks ...")
    timings, notes = _timings(model, found.model, example)
    facts = {
        "multiple": multiple,
        "candidates": [asdict(candidate) for candidate in candidates],
        "validation": asdict(equality),
        "latency_ms": [asdict(timing) for timing in timings],
        "notes": notes,
    }
    record = write_compact(saved.record, found, facts)
    rows = [(x.name, x.total, x.live, x.constant, x.unread, x.kept) for x in found.layers]
    title = run_title(saved.best["config"], record.read_summary().best)
    save_channels(record.channels, rows, title=title)
    sizes = (saved.record.weights, record.weights)
    before, after = (path.stat().st_size if path.is_file() else 0 for path in sizes)
    return Compacted(record, found, multiple, candidates, (before, after), equality, timings, notes)


def _check_finished(record: RunDirectory) -> None:
    status = record.read_summary().status
    if status != "completed":
        config = record.read_config()
        raise UserError(
            f"run: {record.path} is not finished (it is {status}); finish it with"
            f" {resume_command(record, config)}"
        )


def _compacted(
    model: nn.Module, example: Tensor, multiple: int | None, say: Callable[[str], None]
) -> tuple[CompactModel, int, list[Candidate]]:
    """Returns the compact network, its multiple, and what that was chosen from."""
    try:
        compactor = Compactor(model, example)
    except CaptureError as error:
        raise UserError(
            f"run: this network cannot be compacted: {first_line(error)}. Compaction needs a"
            " network without control flow that depends on the data."
        ) from error
    if (found := compactor.compact(multiple or 1)).is_unchanged:
        remedy = "Train with a larger regularizer.alpha, or with regularizer=group_l1"
        if multiple and multiple > 1:
            remedy = f"{remedy}; or give a smaller multiple than {multiple}"
        raise UserError(
            "run: its network keeps its size, as each channel varies and is read, or too few could"
            f" go. {remedy}"
        )
    if multiple is not None:
        return found, multiple, []
    say("measuring which multiple of channels is the fastest ...")
    all_found = {m: found if m == 1 else compactor.compact(m) for m in MULTIPLES}
    networks = {m: one.model for m, one in all_found.items()}
    times = NetworkTimer(networks, example).ms(seconds=2 * SECONDS)
    try:
        onnx_times = NetworkTimer(networks, example, "onnxruntime").ms(seconds=2 * SECONDS)
    except (UserError, onnx_file.ExportError):
        onnx_times = {}
    candidates = [
        Candidate(m, one.parameters[1], one.multiply_adds[1], times[m], onnx_times.get(m))
        for m, one in all_found.items()
    ]
    fastest = min(candidate.ms for candidate in candidates)
    near = [candidate for candidate in candidates if candidate.ms <= (1 + NOISE) * fastest]
    best = min(near, key=lambda candidate: candidate.parameters)
    return all_found[best.multiple], best.multiple, candidates


@torch.no_grad()
def _compare(saved: SavedRun, dense: nn.Module, compact: nn.Module) -> Equality:
    settings = saved.experiment.loop.settings
    images = pixels = changed = 0
    difference = scale = 0.0
    for batch, _ in saved.batches.epoch():
        expected, got = (
            tiled(model.eval(), batch, settings.tile, settings.tile_overlap).float()
            for model in (dense, compact)
        )
        images += len(batch)
        pixels += expected[:, 0].numel()
        difference = max(difference, float((got - expected).abs().max()))
        scale = max(scale, float(expected.abs().max()))
        changed += int((got.argmax(1) != expected.argmax(1)).sum())
    return Equality(images, pixels, difference, scale, changed)


def _timings(
    dense: nn.Module, compact: nn.Module, example: Tensor
) -> tuple[list[Timing], list[str]]:
    """Times of both networks, and why some are missing."""
    networks, every = {"dense": dense, "compact": compact}, torch.get_num_threads()
    timings: list[Timing] = []
    for runtime in RUNTIMES:
        try:
            timer = NetworkTimer(networks, example, runtime)
        except (UserError, onnx_file.ExportError) as error:
            return timings, [f"no times in {runtime}: {first_line(error)}"]
        on_cpu = runtime == "onnxruntime" or example.device.type == "cpu"
        for count in sorted({1, every}) if on_cpu else [0]:
            for batch in BATCHES:
                times = timer.ms(batch=batch, threads=count or every, seconds=SECONDS)
                timings.append(Timing(runtime, batch, count, **times))
    return timings, []
