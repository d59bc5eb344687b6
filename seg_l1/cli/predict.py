"""Segments new images and videos with the best weights of a run; its data are not needed.

    seg-l1 predict run=<run directory> input=<images> output=<folder> [device=...] [tile=512]
                   [frames=video|pictures]
    seg-l1 predict model=<file.onnx> input=<images> output=<folder> [tile=512]
                   [frames=video|pictures]

The second form takes a file of seg-l1 export and computes with onnxruntime, without torch.

<images> is a folder (all of its images and videos), a file, or a pattern in quotes, such as
'photos/*.jpg' or 'data/**/left/*.png' (** stands for folders at any depth). Several may be given,
as input=a input=b, or as words without input=.

Writes, under the names of the images: output/masks/*.png (the gray value is the class id),
output/overlays/*.png, output/shares.csv (share of the pixels per class, confidence) and
output/classes.csv (id, name, color). With several inputs the names are the paths below the folder
that holds them all. `tile` is the side, in pixels, of the tiles in which large images are read by a
run with dataset.image_size=null; other runs resize them.

Videos (.mp4, .avi, .mov, .mkv, .webm) need PyAV: pip install 'seg-l1[video]'. Of each it writes
output/overlays/<name>.mp4, with the frame rate of the video and without sound, and
output/frames/<name>.csv, with the shares of each frame. With frames=pictures the masks and overlays
of the frames are pictures: output/masks/<name>/000001.png and so on.

Exit codes: 0 done, 1 some files could not be read, or not to their end (the others are done), 2 the
input was wrong, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from seg_l1.cli.arguments import at_home, key_values, say
from seg_l1.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from seg_l1.deployment.onnx_predictor import OnnxPredictor
    from seg_l1.deployment.predict_files import Outcome
    from seg_l1.deployment.predict_picture import PicturePredictor
    from seg_l1.training.prediction import Predictor

KEYS = ("run", "model", "input", "output", "device", "tile", "frames")
FRAMES = ("video", "pictures")


def run(words: list[str]) -> int:
    """Writes the predictions; returns the exit code."""
    sources, others = _inputs(words)
    typed = key_values([*sources[:1], *others], KEYS, required=("input", "output"))
    _check(typed)
    output = Path(typed["output"])
    predictor = _load(typed)
    files = [at_home(word.removeprefix("input=")) for word in sources]
    outcome = _predict(predictor, files, output, pictures=typed.get("frames") == "pictures")
    for kind, lines in (("skipped", outcome.skipped), ("damaged", outcome.damaged)):
        for line in lines:
            say(f"{kind}: {line}")
    total = outcome.images + outcome.videos
    what = "images and videos" if outcome.images and outcome.videos else "videos"
    what = what if outcome.videos else "images"
    written = "frames" if outcome.videos else "masks"
    written = f"{written}, overlays and shares.csv are in {output}"
    sys.stdout.write(f"{total - len(outcome.skipped)} of {total} {what} predicted: {written}\n")
    return 1 if outcome.skipped or outcome.damaged else 0


def _inputs(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the words that name images, each as input=..., and the others."""
    sources, others = [], []
    for word in words:
        plain = not word.startswith("-") and ("=" not in word or Path(word).exists())
        if word.startswith("input=") and word != "input=":
            sources.append(word)
        elif plain and word:
            sources.append(f"input={word}")
        else:
            others.append(word)
    return sources, others


def _predict(
    predictor: PicturePredictor, files: list[str], output: Path, *, pictures: bool
) -> Outcome:
    """Predicts the files, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    from seg_l1.deployment.predict_files import predict_files

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with bar as progress:
        done = progress.add_task("files", total=None)
        frames = progress.add_task("frames", total=None, visible=False)

        def on_file(number: int, count: int) -> None:
            progress.update(done, completed=number, total=count)
            progress.update(frames, visible=False)

        def on_frame(number: int, count: int | None) -> None:
            progress.update(frames, completed=number, total=count, visible=True)

        return predict_files(
            predictor, files, output, pictures=pictures, on_file=on_file, on_frame=on_frame
        )


def _check(typed: Mapping[str, str]) -> None:
    if ("run" in typed) == ("model" in typed):
        raise UserError("give either run=<run directory> or model=<file.onnx>")
    if "model" in typed and typed.get("device", "cpu") != "cpu":
        raise UserError("device: model=<file.onnx> is computed on the CPU; leave it out")
    frames = typed.get("frames", "video")
    if frames not in FRAMES:
        hint = did_you_mean(frames, FRAMES)
        raise UserError(f"frames: got '{frames}', expected {' or '.join(FRAMES)}.{hint}")
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
