"""Small videos whose frames are known, and a predictor whose classes are."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL.Image import Image as Picture

from seg_l1.data.bands import Bands
from seg_l1.display.paint import palette

CODECS = {".mp4": "libx264", ".mov": "mpeg4", ".mkv": "ffv1", ".avi": "mpeg4", ".webm": "libvpx"}


class Brightness:
    """Calls pixels above 127 class 1, with a confidence of 0.75."""

    classes = ("dark", "light")
    colors = palette(["dark", "light"])
    bands = Bands(3)

    def __call__(self, picture: Picture) -> tuple[np.ndarray, float]:
        return (np.asarray(picture.convert("L")) > 127).astype(np.uint8), 0.75


def frames_of(count: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """White columns on black, one more 2 pixels wide in each frame: (N, H, W, 3) uint8."""
    columns = 2 * (1 + np.arange(count) % (size[1] // 2))[:, None, None]
    white = np.broadcast_to(np.arange(size[1]) < columns, (count, *size))
    return np.where(white[..., None], np.uint8(255), np.uint8(0)).repeat(3, -1)


def write_video(path: Path, frames: np.ndarray, rate: Fraction | int = 10) -> None:
    """Writes a video in the format and a codec of its suffix."""
    with av.open(str(path), "w") as container:
        codec = CODECS[path.suffix.lower()]
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        stream.bit_rate = 4_000_000
        stream.gop_size = 5
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def read_video(path: Path) -> tuple[Fraction, np.ndarray]:
    """Returns the average frame rate, and the frames (N, H, W, 3)."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert stream.average_rate is not None
        return stream.average_rate, np.stack(frames)
