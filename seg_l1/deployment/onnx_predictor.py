"""Prediction with an ONNX file of `seg-l1 export`: numpy, Pillow and onnxruntime, no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image as Picture

from seg_l1.data.bands import Bands
from seg_l1.data.images import as_pixels
from seg_l1.data.raster import Raster
from seg_l1.data.resample import resize_ids, resize_score
from seg_l1.errors import UserError, first_line
from seg_l1.models.tiles import tiles

OUTPUTS = ("scores", "classes")
"""What an ONNX file may give: logits (N, K, H, W) float32, or class ids (N, H, W) uint8."""


_NEW = ("bits", "show", "limits")
"""Metadata that files of older versions lack."""


@dataclass(frozen=True)
class About:
    """What the metadata of an ONNX file say, each entry as JSON.

    Attributes:
        classes: K names.
        colors: K times red, green, blue.
        channels: the number of bands of an image.
        image_size: (H, W) on which the network was trained; None = every image has its own.
        fit: how an image gets to that size, "resize" or "pad".
        tile, tile_overlap: in which large images are read, see `models.tiles`.
        output: one of `OUTPUTS`.
        precision: "fp32", "fp16" or "int8".
        bits: of each band, 8 or 16: images are uint8 or uint16.
        show, limits: how images are shown, see `data.bands.Bands`.
    """

    classes: list[str]
    colors: list[list[int]]
    channels: int
    image_size: list[int] | None
    fit: str
    tile: list[int] | None
    tile_overlap: float
    output: str
    precision: str = "fp32"
    bits: int = 8
    show: list[int] | None = None
    limits: list[list[float]] | None = None

    @property
    def bands(self) -> Bands:
        return Bands(self.channels, self.bits, self.show, self.limits)

    @classmethod
    def read(cls, metadata: Mapping[str, str]) -> About:
        """Reads the metadata of a file.

        Raises:
            ValueError: if they are not those of `seg-l1 export`.
        """
        try:
            names = [name for name in cls.__annotations__ if name in metadata or name not in _NEW]
            about = cls(**{name: json.loads(metadata[name]) for name in names})
            colors = np.array(about.colors, dtype=np.uint8)
            texts = all(isinstance(name, str) for name in about.classes)
            shown = about.bands.paint(np.zeros((1, 1, about.channels))).shape == (1, 1, 3)
            size = about.image_size is None or [int(side) > 0 for side in about.image_size]
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"its metadata are incomplete: {error}") from error
        if not (
            texts
            and shown
            and colors.shape == (len(about.classes), 3)
            and about.bits in (8, 16)
            and size in (True, [True, True])
            and about.output in OUTPUTS
        ):
            raise ValueError("its metadata do not fit together")
        return about


class OnnxPredictor:
    """A network in an ONNX file as a predictor of pictures, computed on the CPU.

    It is called as `training.prediction.Predictor` is, and resizes as that does. The confidence is
    NaN where the file gives classes.

    Args:
        session: onnxruntime's.
        about: the metadata of the file.
        tile: in place of that of the file.
    """

    def __init__(self, session: Any, about: About, *, tile: Sequence[int] | None = None) -> None:
        self.about, self._session = about, session
        self.bands = about.bands
        self.classes = about.classes
        self.colors = np.array(about.colors, dtype=np.uint8)
        self.image_size = (
            None if about.image_size is None else (about.image_size[0], about.image_size[1])
        )
        self.tile = tile or about.tile
        self._input = session.get_inputs()[0]

    def __call__(self, picture: Picture | Raster) -> tuple[np.ndarray, float]:
        """Returns the class ids (H, W) uint8 of a picture, and the mean confidence.

        Raises:
            UserError: if the file has a fixed size, and the picture does not get to it.
        """
        size = (picture.height, picture.width)
        ids, scores, confidence = self._of(picture, keep=self.image_size is not None)
        if ids.shape == size:
            return ids, confidence
        if scores is None:
            return resize_ids(ids, size), confidence
        return _upsampled_argmax(scores, size), confidence

    def probabilities(self, picture: Picture | Raster) -> np.ndarray:
        """Returns the softmax (K, H, W) float32 of the logits at the size of a picture.

        Raises:
            UserError: if the file gives classes, or see `__call__`.
        """
        if self.about.output != "scores":
            raise UserError(
                "scores: this file gives classes alone; export the run without output=classes"
            )
        size = (picture.height, picture.width)
        _, scores, _ = self._of(picture, keep=True)
        assert scores is not None
        if scores.shape[1:] != size:
            scores = np.stack([resize_score(score, size) for score in scores])
        powers = np.exp(scores - scores.max(0))
        probabilities: np.ndarray = powers / powers.sum(0)
        return probabilities

    def _of(
        self, picture: Picture | Raster, *, keep: bool
    ) -> tuple[np.ndarray, np.ndarray | None, float]:
        """Returns what `_whole` does, of a picture that is resized or padded if it has to be."""
        size = (picture.height, picture.width)
        padded = self.about.fit == "pad"
        pixels = as_pixels(picture, self.about.channels, None if padded else self.image_size)
        part: tuple[slice, ...] = (...,)  # type: ignore[assignment]
        if padded and self.image_size is not None:
            rows, columns = (
                max(0, a - b) for a, b in zip(self.image_size, pixels.shape[1:], strict=True)
            )
            top, left = rows // 2, columns // 2
            pixels = np.pad(pixels, ((0, 0), (top, rows - top), (left, columns - left)))
            part = (slice(top, top + size[0]), slice(left, left + size[1]))
        return self._whole(pixels, part, keep=keep)

    def _whole(
        self, pixels: np.ndarray, part: tuple[slice, ...], *, keep: bool
    ) -> tuple[np.ndarray, np.ndarray | None, float]:
        """Returns the ids (H, W), the scores (K, H, W) if there are any, and the confidence.

        Args:
            pixels: (C, H, W).
            part: rows and columns of what is returned.
            keep: whether scores are needed; those of an image in tiles may be larger than memory.
        """
        scored = self.about.output == "scores"
        shape = pixels.shape[1:]
        ids, sure = np.empty(shape, np.uint8), np.full(shape, np.nan, np.float32)
        scores = np.empty((len(self.classes), *shape), np.float32) if scored and keep else None
        images: Any = pixels[None]
        for rows, columns, found in tiles(self._run, images, self.tile, self.about.tile_overlap):
            values: Any = found
            if scored:
                sure[rows, columns] = _confidence(values[0])
            if scores is not None:
                scores[:, rows, columns] = values[0]
            ids[rows, columns] = values[0].argmax(0) if scored else values[0]
        if scores is not None:
            scores = scores[(slice(None), *part)]
        return ids[part], scores, float(sure[part].mean(dtype=np.float64))

    def _run(self, images: Any) -> Any:
        wanted = self._input.shape[2:]
        if any(
            isinstance(a, int) and a != b for a, b in zip(wanted, images.shape[2:], strict=True)
        ):
            raise UserError(
                f"model: this network takes images of {wanted[0]}x{wanted[1]} (height x width)"
                f" alone, got {images.shape[2]}x{images.shape[3]}; resize or cut them"
            )
        content = np.ascontiguousarray(images)
        return self._session.run(None, {self._input.name: content})[0]


def load_onnx(path: str | Path, *, tile: Sequence[int] | None = None) -> OnnxPredictor:
    """Loads an ONNX file that `seg-l1 export` wrote.

    Args:
        tile: in place of that of the file.

    Raises:
        UserError: if onnxruntime or the file is missing, or if `seg-l1 export` did not write it.
    """
    if not find_spec("onnxruntime"):
        raise UserError("model needs onnxruntime: pip install 'seg-l1[export]'")
    path = Path(path)
    if not path.is_file():
        raise UserError(f"model: there is no file '{path}'; seg-l1 export run=<run> writes one")
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.log_severity_level = 3  # errors
    try:
        session = InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        about = About.read(session.get_modelmeta().custom_metadata_map)
    except Exception as error:
        raise UserError(
            f"model: '{path}' is no ONNX file of seg-l1 export ({first_line(error)}). It is"
            " damaged, or of another program; export the run again"
        ) from None
    return OnnxPredictor(session, about, tile=tile)


def _confidence(logits: np.ndarray) -> np.ndarray:
    """Returns the largest softmax (H, W) of logits (K, H, W)."""
    confidence: np.ndarray = 1 / np.exp(logits - logits.max(0)).sum(0)
    return confidence


def _upsampled_argmax(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """argmax over K of logits (K, h, w) resized bilinearly to `size`, one class at a time."""
    best, ids = np.full(size, -np.inf, np.float32), np.zeros(size, np.uint8)
    for index, score in enumerate(scores):
        resized = resize_score(score, size)
        ids[resized > best] = index
        best = np.maximum(best, resized)
    return ids
