"""`export_run`: the network of a run as an ONNX file, compared with torch on validation images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seg_l1.compaction.latency import median_ms, threads
from seg_l1.data.bands import Bands
from seg_l1.data.split import Split, stored
from seg_l1.deployment import onnx_file
from seg_l1.deployment.onnx_file import ExportError, OnnxNetwork
from seg_l1.deployment.onnx_predictor import About
from seg_l1.deployment.pixel_network import (
    PixelNetwork,
    operators,
    to_fp16,
    to_int8,
    with_metadata,
)
from seg_l1.display.paint import palette
from seg_l1.errors import RunError, UserError
from seg_l1.metrics.segmentation import ConfusionMatrix, scores
from seg_l1.models.tiles import tiled
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.files import write_bytes
from seg_l1.training.saved import SavedRun, load_run

IMAGES = 256
"""How many validation images are compared at most, evenly over the split."""

CALIBRATION = 64
"""Training images on which int8 is calibrated at most."""

SECONDS = 2.0
"""How long times are measured."""

FILES = {"fp32": "model.onnx", "fp16": "model_fp16.onnx", "int8": "model_int8.onnx"}
"""Names of the files in the run directory, by precision."""


@dataclass(frozen=True)
class Agreement:
    """Outputs of an ONNX file beside those of torch in float32, and both beside the masks.

    Attributes:
        images, pixels: that were compared.
        difference: the largest difference of a score; NaN if the file gives classes.
        scale: the largest score in torch; NaN likewise.
        changed: pixels whose class is another one.
        torch_miou, onnx_miou: mIoU of these images.
    """

    images: int
    pixels: int
    difference: float
    scale: float
    changed: int
    torch_miou: float
    onnx_miou: float


@dataclass(frozen=True)
class OnnxVersion:
    """An ONNX file in one precision: its size, its outputs, and milliseconds of an image."""

    precision: str
    size: int
    agreement: Agreement
    ms: float


@dataclass(frozen=True)
class Exported:
    """What `export_run` did.

    Attributes:
        path: the ONNX file.
        output: "scores" or "classes".
        about: what its metadata say.
        dynamic: names of its dynamic axes.
        reason: why other axes are fixed; "" if none is.
        size: (H, W) of the image that was timed.
        torch_ms: milliseconds of that image in torch, with one thread.
        versions: in float32, and in the precision of the file if that is another one.
        operators: how often each is in the file.
    """

    path: Path
    output: str
    about: About
    dynamic: tuple[str, ...]
    reason: str
    size: tuple[int, int]
    torch_ms: float
    versions: list[OnnxVersion]
    operators: dict[str, int]


def export_run(
    directory: str | Path,
    *,
    file: str | Path | None = None,
    output: str = "scores",
    precision: str = "fp32",
    root: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Writes the best network of a run, dense or compact, as an ONNX file.

    Args:
        file: None = `FILES` in the run directory.
        output: "scores" = logits; "classes" = their argmax.
        precision: "fp32", "fp16" or "int8".
        root: in place of `dataset.root` of the run.
        say: called with what is being done.

    Raises:
        UserError: if a package is missing, there is no such run, its data cannot be read, its
            network cannot be exported, or the file cannot be written.
        RunError: if onnxruntime computes something else than torch; then nothing is written.
    """
    onnx_file.require_packages()
    record = RunDirectory.existing(directory, key="run")
    path = record.path / FILES[precision] if file is None else Path(file)
    _check_target(path)
    saved = load_run(directory, "val", root=root, device="cpu")
    network = _network(saved, output)
    split = saved.experiment.data.splits["val"]
    example = stored(split[[0]][0])
    say("exporting the network ...")
    found = _exported(network, example, fixed_size=split.image_size is not None)
    say("comparing the outputs on the validation images ...")
    versions = {"fp32": found.content}
    agreements = {"fp32": _compare(saved, network, found.content)}
    _check_agreement(agreements["fp32"])
    if precision != "fp32":
        say(f"converting the network to {precision} ...")
        versions[precision] = _converted(saved, found.content, precision)
        agreements[precision] = _compare(saved, network, versions[precision])
    say("measuring the time ...")
    times = _times(network, versions, example)
    about = replace(_about(saved, output), precision=precision)
    facts = {"run": record.path.name, "check": asdict(agreements[precision])}
    content = with_metadata(versions[precision], about, facts)
    write_bytes(path, content)
    return Exported(
        path=path,
        output=output,
        about=about,
        dynamic=found.dynamic,
        reason=found.reason,
        size=(example.shape[-2], example.shape[-1]),
        torch_ms=times["torch"],
        versions=[
            OnnxVersion(name, len(each), agreements[name], times[name])
            for name, each in versions.items()
        ],
        operators=operators(content),
    )


def _check_target(path: Path) -> None:
    if not path.parent.is_dir():
        raise UserError(f"file: there is no folder '{path.parent}'; make it, or choose another")
    if path.is_dir():
        raise UserError(f"file: '{path}' is a folder; give the name of a file, such as model.onnx")


def _network(saved: SavedRun, output: str) -> PixelNetwork:
    """Returns the network of the run in float32, which takes pixels."""
    model, best = saved.experiment.loop.model, saved.best
    model = model.to(memory_format=torch.contiguous_format)
    return PixelNetwork(model, best["mean"], best["std"], output=output).eval()


def _about(saved: SavedRun, output: str) -> About:
    best = saved.best
    config, classes = best["config"], [*best["classes"]]
    bands = Bands.of(config["dataset"], best["mean"], best["std"], best.get("bits", 8))
    size, tile = config["dataset"]["image_size"], config["trainer"].get("tile")
    return About(
        classes=classes,
        colors=palette(classes).tolist(),
        channels=len(best["mean"]),
        image_size=size and [*size],
        fit=best.get("fit", "resize"),
        tile=tile and [*tile],
        tile_overlap=config["trainer"].get("tile_overlap", 0.25),
        output=output,
        bits=bands.bits,
        show=bands.show,
        limits=bands.limits,
    )


def _exported(network: PixelNetwork, example: Tensor, *, fixed_size: bool) -> OnnxNetwork:
    try:
        found = onnx_file.export(network, example, output=network.output)
    except ExportError as error:
        raise UserError(
            f"run: {error}. Networks without control flow that depends on the data can be exported"
        ) from error
    if not fixed_size and "height" not in found.dynamic:
        raise UserError(
            f"run: this network can be exported for one image size alone ({found.reason}); train"
            " with dataset.image_size=[H,W]"
        )
    return found


def _converted(saved: SavedRun, content: bytes, precision: str) -> bytes:
    if precision == "fp16":
        return to_fp16(content)
    split = saved.experiment.data.splits["train"]
    return to_int8(content, (images.numpy() for images, _ in _pairs(split, CALIBRATION)))


def _pairs(split: Split, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields up to `most` images and masks, evenly over the split, in batches of one size."""
    chosen = torch.linspace(0, len(split) - 1, min(most, len(split))).long()
    for indices in chosen.split(8 if split.image_size else 1):
        images, masks = split[indices.tolist()]
        yield stored(images), masks


@torch.no_grad()
def _compare(saved: SavedRun, network: PixelNetwork, content: bytes) -> Agreement:
    settings, classes = saved.experiment.loop.settings, saved.experiment.data.num_classes
    call = onnx_file.caller(content)
    expected_counts, counts = ConfusionMatrix(classes), ConfusionMatrix(classes)
    scored = network.output == "scores"
    images = pixels = changed = 0
    difference = scale = 0.0 if scored else float("nan")
    for batch, masks in _pairs(saved.experiment.data.splits["val"], IMAGES):
        if scored:
            expected, got = (
                tiled(one, batch, settings.tile, settings.tile_overlap) for one in (network, call)
            )
            difference = max(difference, float((got - expected).abs().max()))
            scale = max(scale, float(expected.abs().max()))
            expected, got = expected.argmax(1), got.argmax(1)
        else:
            expected, got = network(batch), call(batch)
        images += len(batch)
        pixels += expected.numel()
        changed += int((got != expected).sum())
        expected_counts.update(expected.long(), masks)
        counts.update(got.long(), masks)
    mious = (scores(matrix.counts)["miou"] for matrix in (expected_counts, counts))
    return Agreement(images, pixels, difference, scale, changed, *mious)


def _check_agreement(found: Agreement) -> None:
    """Refuses a file in float32 with other outputs than torch."""
    wrong = found.changed > onnx_file.CHANGED * found.pixels
    if wrong or found.difference > onnx_file.TOLERANCE * found.scale:
        raise RunError(
            f"onnxruntime and torch differ: by up to {found.difference:.1e} in scores of up to"
            f" {found.scale:.1e}, and in {found.changed} of {found.pixels:,} pixels. Nothing was"
            " written; try other versions of onnx, onnxscript and onnxruntime (constraints.txt)"
        )


def _times(network: PixelNetwork, versions: dict[str, bytes], example: Tensor) -> dict[str, float]:
    """Returns milliseconds of one image, with one thread: medians in alternation."""

    def in_torch() -> Any:
        with torch.no_grad():
            return network(example)

    calls: dict[str, Callable[[], Any]] = {"torch": in_torch}
    for name, content in versions.items():
        call = onnx_file.caller(content, threads=1)
        calls[name] = lambda call=call: call(example)  # type: ignore[misc]
    with threads(1):
        return median_ms(calls, seconds=SECONDS)
