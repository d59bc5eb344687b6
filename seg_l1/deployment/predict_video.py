"""Prediction of a video, frame by frame."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL.Image import Image as Picture

from seg_l1.deployment.predict_picture import PicturePredictor, shares, write_prediction
from seg_l1.deployment.video import VideoReader, open_video, video_writer
from seg_l1.display.paint import overlay
from seg_l1.runs.files import make_folder, replacing

Step = Callable[[int, Picture], tuple[np.ndarray, float]]
"""(number of the frame, frame) -> class ids and mean confidence."""


@dataclass(frozen=True)
class VideoPlace:
    """The name of the overlay video, and of the folder of pictures in its place."""

    video: Path
    folder: Path


@dataclass
class PredictedVideo:
    """What was predicted of a video.

    Attributes:
        size: width and height.
        frames: how many were predicted.
        pixels: int64 (K,), of each class in all frames.
        confidence: the mean over the frames, NaN if it is not known.
        damage: see `VideoReader`.
    """

    size: tuple[int, int]
    frames: int
    pixels: np.ndarray
    confidence: float
    damage: str


def predict_video(
    predictor: PicturePredictor,
    source: Path,
    target: Path,
    place: VideoPlace,
    *,
    pictures: bool = False,
    on_frame: Callable[[int, int | None], None] = lambda done, total: None,
) -> PredictedVideo:
    """Predicts a video; one frame after the other is in memory.

    Writes overlays/*.mp4, with the frame rate of the source, or with `pictures` masks/*/000001.png
    and overlays/*/000001.png and so on; and frames/*.csv, a row per frame: its number, the seconds
    from the start, the share of its pixels per class, and the confidence.

    Args:
        on_frame: called with the number of frames done and of all, if that is known.

    Raises:
        VideoError: if it cannot be read, or has no frame; nothing is written then.
        UserError, RunError: if something cannot be written, or the network does not take the size.
    """
    with open_video(source) as reader:
        table = target / "frames" / place.video.with_suffix(".csv")
        make_folder(table.parent)
        stepping = _pictures if pictures else _overlay_video
        with (
            stepping(predictor, reader, target, place) as step,
            replacing(table) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["frame", "seconds", *predictor.classes, "confidence"])
            size, total, sure = (0, 0), np.zeros(len(predictor.classes), np.int64), 0.0
            number = 0
            for number, (seconds, picture) in enumerate(reader, start=1):
                ids, confidence = step(number, picture)
                pixels = np.bincount(ids.ravel(), minlength=len(total))
                size, total, sure = picture.size, total + pixels, sure + confidence
                time = "" if seconds is None else f"{seconds:.3f}"
                writer.writerow([number, time, *shares(pixels, confidence)])
                on_frame(number, reader.count)
        return PredictedVideo(size, number, total, sure / number, reader.damage)


@contextmanager
def _overlay_video(
    predictor: PicturePredictor, reader: VideoReader, target: Path, place: VideoPlace
) -> Iterator[Step]:
    """Context manager: adds the overlay of each frame to a video."""
    path = target / "overlays" / place.video
    make_folder(path.parent)
    colors = predictor.colors
    with video_writer(path, reader.rate) as writer:

        def step(number: int, picture: Picture) -> tuple[np.ndarray, float]:
            ids, confidence = predictor(picture)
            writer.write(overlay(np.asarray(picture), ids, colors=colors))
            return ids, confidence

        yield step


@contextmanager
def _pictures(
    predictor: PicturePredictor, reader: VideoReader, target: Path, place: VideoPlace
) -> Iterator[Step]:
    """Context manager: writes mask and overlay of each frame."""

    def step(number: int, picture: Picture) -> tuple[np.ndarray, float]:
        if number == 1:
            for kind in ("masks", "overlays"):
                make_folder(target / kind / place.folder)
        return write_prediction(predictor, picture, target, place.folder / f"{number:06d}.png")

    yield step
