"""Videos, read and written frame by frame with PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image
from PIL.Image import Image as Picture

from seg_l1.errors import UserError, first_line
from seg_l1.runs.files import replacing

FORMATS = "mov,matroska,webm,avi,mpegts,mpeg,asf,flv,ogg"
"""The formats that FFmpeg may read; it knows playlists, which open other files and addresses."""

ADVICE = "Replace it, or take it away."


PYAV = "videos need PyAV: pip install 'seg-l1[video]'"


class VideoError(UserError):
    """A video cannot be read."""


def pyav_is_missing() -> bool:
    """Returns whether PyAV has to be installed first."""
    return find_spec("av") is None


class VideoReader:
    """The frames of a video, one at a time, upright.

    Attributes:
        path: the file.
        rate: frames per second, the average.
        count: frames, as the file says; None if it does not.
        damage: what was wrong with the file, known at its end; empty if nothing was.
    """

    def __init__(self, path: Path, container: Any) -> None:
        import av

        self.path, self._container = path, container
        self._stream = container.streams.video[0]
        self._stream.thread_type = "AUTO"
        stream = self._stream
        self.rate = Fraction(stream.average_rate or stream.guessed_rate or stream.base_rate or 25)
        self.count = stream.frames or None
        self.damage = ""
        self._error: type[Exception] = av.FFmpegError

    def __iter__(self) -> Iterator[tuple[float | None, Picture]]:
        """Yields the seconds from the start, if the file says them, and the frame in RGB.

        What cannot be decoded is left out. All frames have the size of the first.

        Raises:
            VideoError: at the end, if there was no frame.
        """
        size, broken, end = None, 0, 0.0
        for frame in self._decoded():
            broken += frame is None or frame.is_corrupt
            if frame is None:
                continue
            size = size or (frame.width, frame.height)
            picture: Picture = frame.to_image(width=size[0], height=size[1])
            end = max(end, frame.time or 0.0)
            yield frame.time, _upright(picture, frame.rotation)
        length = self._seconds()
        if size is None:
            reason = "none of its frames can be decoded" if broken else "it holds no frame"
            raise VideoError(f"{self.path}: cannot be read as a video ({reason}). {ADVICE}")
        if broken:
            self.damage = f"{broken} of its frames or packets are damaged"
        elif length and length - end > max(1.0, 0.1 * length):
            self.damage = f"it ends after {end:.1f} of {length:.1f} seconds"

    def _decoded(self) -> Iterator[Any]:
        """Yields the frames of PyAV, and None for what cannot be decoded."""
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
            except (self._error, OSError):
                yield None
                return
            try:
                frames = packet.decode()
            except self._error:
                frames = [None]
            yield from frames

    def _seconds(self) -> float:
        """Returns when the video ends, as the file says; 0 if it does not."""
        stream, container = self._stream, self._container
        if stream.duration and stream.time_base:
            return float((stream.duration + (stream.start_time or 0)) * stream.time_base)
        return ((container.duration or 0) + (container.start_time or 0)) / 1e6


@contextmanager
def open_video(path: Path) -> Iterator[VideoReader]:
    """Context manager: the frames of a video.

    Raises:
        VideoError: if PyAV is missing, or the file is no video.
    """
    if pyav_is_missing():
        raise VideoError(f"{path}: {PYAV}")
    import av

    with _opened(path) as file:
        try:
            container = av.open(file, options={"format_whitelist": FORMATS})
        except (av.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            if isinstance(error, EOFError):
                reason = "it holds no frame"
            if path.stat().st_size == 0:
                reason = "the file is empty"
            raise VideoError(f"{path}: cannot be read as a video ({reason}). {ADVICE}") from None
        with container:
            if not container.streams.video:
                raise VideoError(f"{path}: holds no video, only sound or text. {ADVICE}")
            yield VideoReader(path, container)


def _opened(path: Path) -> IO[bytes]:
    """Returns the open file, since FFmpeg would take some names for addresses."""
    try:
        return open(path, "rb")
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror}). {ADVICE}") from None


class VideoWriter:
    """Writes pictures as an MP4 file (H.264), of even width and height.

    Args:
        file: where to write.
        rate: frames per second.
    """

    def __init__(self, file: IO[bytes], rate: Fraction) -> None:
        import av

        self._av: Any = av
        self._container: Any = av.open(file, "w", format="mp4")
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream: Any = self._container.add_stream(codec, rate=rate)
        stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            stream.options = {"crf": "20", "preset": "fast"}
        self._stream, self._started = stream, False

    def write(self, picture: np.ndarray) -> None:
        """Adds a picture (H, W, 3) uint8; a last row or column is repeated to an even number."""
        height, width = picture.shape[:2]
        even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if not self._started:
            self._stream.height, self._stream.width = even.shape[:2]
            self._started = True
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Writes the frames that the encoder still has, and the index."""
        self._container.mux(self._stream.encode())
        self._container.close()

    def drop(self) -> None:
        """Closes the file, whatever its state; does nothing after `finish`."""
        with suppress(Exception):
            self._container.close()


@contextmanager
def video_writer(path: Path, rate: Fraction) -> Iterator[VideoWriter]:
    """Context manager: a video that appears at `path` when it is complete, or not at all.

    Raises:
        UserError, RunError: if it cannot be written.
    """
    import av

    with replacing(path) as temporary, open(temporary, "wb") as file:
        writer = VideoWriter(file, rate)
        try:
            yield writer
            writer.finish()
        except av.FFmpegError as error:
            raise UserError(
                f"{path}: cannot be written as a video ({error.strerror or first_line(error)});"
                " frames=pictures writes pictures"
            ) from error
        finally:
            writer.drop()


def _upright(picture: Picture, degrees: int) -> Picture:
    """Returns a picture turned counterclockwise, in steps of 90 degrees."""
    turns = {90: "ROTATE_90", 180: "ROTATE_180", 270: "ROTATE_270"}
    turn = turns.get(90 * round(degrees / 90) % 360)
    return picture if turn is None else picture.transpose(Image.Transpose[turn])
