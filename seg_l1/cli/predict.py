"""Segments new images with the best weights of a run; the training data is not needed.

    seg-l1 predict run=<run directory> input=<folder or file> output=<folder>
                   [device=...] [tile=512]
    seg-l1 predict model=<file.onnx> input=<folder or file> output=<folder> [tile=512]

The second form takes a file of seg-l1 export and computes with onnxruntime, without torch.

Writes, under the names of the images: output/masks/*.png (the gray value is the class id),
output/overlays/*.png, output/shares.csv (share of the pixels per class, confidence) and
output/classes.csv (id, name, color). `tile` is the side, in pixels, of the tiles in which large
images are read by a run with dataset.image_size=null; other runs resize them.

Exit codes: 0 done, 1 some images could not be read (the others are done), 2 the input was wrong,
130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from seg_l1.cli.arguments import key_values
from seg_l1.errors import UserError

if TYPE_CHECKING:
    from seg_l1.deployment.onnx_predictor import OnnxPredictor
    from seg_l1.deployment.predict_files import PicturePredictor
    from seg_l1.training.prediction import Predictor

KEYS = ("run", "model", "input", "output", "device", "tile")


def run(words: list[str]) -> int:
    """Writes the predictions; returns the exit code."""
    typed = key_values(words, KEYS, required=("input", "output"))
    _check(typed)
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    from seg_l1.deployment.predict_files import predict_files

    predictor = _load(typed)
    output = Path(typed["output"])
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    total = 0
    with bar as progress:
        pictures = progress.add_task("images", total=None)

        def on_file(done: int, count: int) -> None:
            nonlocal total
            total = count
            progress.update(pictures, completed=done, total=count)

        unreadable = predict_files(predictor, Path(typed["input"]), output, on_file=on_file)
    for line in unreadable:
        sys.stderr.write(f"skipped: {line}\n")
    read = total - len(unreadable)
    written = f"masks, overlays and shares.csv are in {output}"
    sys.stdout.write(f"{read} of {total} images predicted: {written}\n")
    return 1 if unreadable else 0


def _check(typed: Mapping[str, str]) -> None:
    if ("run" in typed) == ("model" in typed):
        raise UserError("give either run=<run directory> or model=<file.onnx>")
    if "model" in typed and typed.get("device", "cpu") != "cpu":
        raise UserError("device: model=<file.onnx> is computed on the CPU; leave it out")
    tile = typed.get("tile")
    if tile is not None and not (tile.isdecimal() and int(tile) >= 64):
        raise UserError(f"tile: got '{tile}', expected a whole number of at least 64")


def _load(typed: Mapping[str, str]) -> PicturePredictor:
    """Returns the network of the run or file; torch is imported for a run alone."""
    tile = typed.get("tile")
    sides = None if tile is None else [int(tile)] * 2
    predictor: Predictor | OnnxPredictor
    if "model" in typed:
        from seg_l1.deployment.onnx_predictor import load_onnx

        predictor = load_onnx(typed["model"], tile=sides)
    else:
        from seg_l1.training.prediction import load_predictor

        predictor = load_predictor(typed["run"], device=typed.get("device"), tile=sides)
    if tile is not None and predictor.image_size is not None:
        height, width = predictor.image_size
        sys.stderr.write(
            f"note: images are resized to {height}x{width}, as in training, so that tile has no"
            " effect; it is for runs with dataset.image_size=null\n"
        )
    return predictor
