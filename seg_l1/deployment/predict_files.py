"""Prediction of files: images and videos in; class ids, overlays and shares of the classes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from seg_l1.deployment.inputs import Inputs, find_inputs, is_video, output_names
from seg_l1.deployment.predict_picture import PicturePredictor, shares, write_prediction
from seg_l1.deployment.predict_video import VideoPlace, predict_video
from seg_l1.deployment.video import PYAV, VideoError, pyav_is_missing
from seg_l1.errors import UserError
from seg_l1.runs.files import make_folder, write_csv, writing


@dataclass
class Outcome:
    """What became of the files.

    Attributes:
        images, videos: how many there are.
        skipped: which could not be read, and why.
        damaged: videos of which a part could not be read, and why.
    """

    images: int = 0
    videos: int = 0
    skipped: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def predict_files(
    predictor: PicturePredictor,
    sources: Sequence[str | Path],
    target: Path,
    *,
    pictures: bool = False,
    on_file: Callable[[int, int], None] = lambda done, total: None,
    on_frame: Callable[[int, int | None], None] = lambda done, total: None,
) -> Outcome:
    """Predicts images and videos.

    Writes into `target`, under the names and folders of the images: masks/*.png (grayscale, the
    value is the class id) and overlays/*.png; and shares.csv (a row per file: its size, the share
    of its pixels per class, the mean confidence of the network, empty where that is not known) and
    classes.csv (id, name, color). Of a video it writes what `predict_video` does.

    Args:
        sources: files, folders and patterns, see `find_inputs`.
        pictures: whether the frames of videos become pictures.
        on_file: called with the number of files done and of all.
        on_frame: called with the number of frames done of a video and of all, if that is known.

    Raises:
        UserError: if there is no file, or PyAV is missing and there are videos alone, or if
            `target` cannot be written, is inside a folder of `sources`, or holds folders such as
            masks/ that no prediction wrote.
    """
    inputs = find_inputs(sources, target)
    images, videos = _places(inputs)
    outcome = Outcome(len(images), len(videos))
    if videos and not images and pyav_is_missing():
        raise UserError(f"input: {PYAV}")
    _check_target(inputs, target, ("masks", "overlays", *(["frames"] if videos else [])))
    work = _Work(predictor, target, pictures, on_frame, outcome)
    header = ["file", "width", "height", *predictor.classes, "confidence"]
    rows = []
    with writing(target):
        for kind in ("masks", "overlays"):
            for place in images.values():
                make_folder((target / kind / place).parent)
        make_folder(target)
        write_csv(target / "shares.csv", header, [])  # marks the folder as one of predictions
        on_file(0, len(inputs.files))
        for index, (file, name) in enumerate(zip(inputs.files, inputs.names, strict=True)):
            row = (
                work.video(file, videos[name]) if name in videos else work.image(file, images[name])
            )
            if row is not None:
                rows.append([name.as_posix(), *row])
            on_file(index + 1, len(inputs.files))
        write_csv(target / "shares.csv", header, rows)
        numbered = enumerate(zip(predictor.classes, predictor.colors.tolist(), strict=True))
        listing = [[index, name, *color] for index, (name, color) in numbered]
        write_csv(target / "classes.csv", ["id", "class", "red", "green", "blue"], listing)
    return outcome


@dataclass(frozen=True)
class _Work:
    """Predicts one file after the other, and notes those that cannot be read in `outcome`."""

    predictor: PicturePredictor
    target: Path
    pictures: bool
    on_frame: Callable[[int, int | None], None]
    outcome: Outcome

    def image(self, file: Path, name: Path) -> list[object] | None:
        """Writes mask and overlay; returns size, class shares, confidence; None if unreadable."""
        try:
            picture = self.predictor.bands.open(file)
        except UserError as error:
            self.outcome.skipped.append(str(error))
            return None
        ids, confidence = write_prediction(self.predictor, picture, self.target, name)
        pixels = np.bincount(ids.ravel(), minlength=len(self.predictor.classes))
        return [picture.width, picture.height, *shares(pixels, confidence)]

    def video(self, file: Path, place: VideoPlace) -> list[object] | None:
        """Calls `predict_video`; returns what `image` does, for all frames together."""
        try:
            done = predict_video(
                self.predictor,
                file,
                self.target,
                place,
                pictures=self.pictures,
                on_frame=self.on_frame,
            )
        except VideoError as error:
            self.outcome.skipped.append(str(error))
            return None
        if done.damage:
            self.outcome.damaged.append(
                f"{file}: {done.damage}; {done.frames} frames are predicted"
            )
        return [*done.size, *shares(done.pixels, done.confidence)]


def _places(inputs: Inputs) -> tuple[dict[Path, Path], dict[Path, VideoPlace]]:
    """Returns where the predictions of images and of videos belong, by their names."""
    images = [name for name in inputs.names if not is_video(name)]
    videos = [name for name in inputs.names if is_video(name)]
    pictures = output_names(images)
    folders = output_names(videos, "", taken={name.parent for name in pictures})
    places = map(VideoPlace, output_names(videos, ".mp4"), folders)
    return dict(zip(images, pictures, strict=True)), dict(zip(videos, places, strict=True))


def _check_target(inputs: Inputs, target: Path, kinds: Sequence[str]) -> None:
    for kind in kinds:
        if (target / kind).exists() and not (target / "shares.csv").is_file():
            raise UserError(
                f"output: '{target / kind}' already exists and was not written by predict;"
                " choose another folder"
            )
        written = (target / kind).resolve()
        for file in inputs.files:
            if file.resolve().is_relative_to(written):
                raise UserError(f"output: '{file}' would be written over; choose another folder")
