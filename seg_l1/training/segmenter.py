"""`load`: the network of a run, or of an ONNX file, as a function from images to classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image
from PIL.Image import Image as Picture

from seg_l1.data.bands import COLORS, Bands
from seg_l1.data.raster import Raster
from seg_l1.deployment.predict_picture import PicturePredictor

if TYPE_CHECKING:
    from torch import Tensor


class ScoringPredictor(PicturePredictor, Protocol):
    """A predictor that also gives the probability of each class."""

    def probabilities(self, picture: Picture | Raster) -> np.ndarray:
        """(K, H, W) float32."""
        ...


class Segmenter:
    """A trained network, with the preprocessing and the tiles of its run.

    Attributes:
        classes: the names of the K classes.
        colors: (K, 3) uint8, in which overlays show them.
    """

    def __init__(self, predictor: ScoringPredictor) -> None:
        self._predictor = predictor
        self.classes = list(predictor.classes)
        self.colors = predictor.colors

    def __call__(self, images: Any, *, scores: bool = False) -> Any:
        """Returns the class of each pixel.

        Args:
            images: one image, or a list of images, or a batch. An image is the path of a file, a
                PIL image, an array (H, W) or (H, W, C), or a tensor (H, W) or (C, H, W). Networks
                for gray or RGB images take 1 or 3 channels; arrays may have a fourth, which is
                dropped. Other networks take as many as they were trained on. Values are uint8, or
                floats from 0 to 1; for networks trained on 16 bits, integers from 0 to 65535. A
                batch is an array (N, H, W, C) or a tensor (N, C, H, W).
            scores: return the probability of each class in place of the class.

        Returns:
            uint8 (H, W), class ids at the size of the image; with `scores` float32 (K, H, W), which
            sum to 1. A list of these for a list; for a batch an array with N in front.

        Raises:
            UserError: if a file cannot be read or has other bands, or an ONNX file takes images of
                another size, or has no scores.
            ValueError: if an array or tensor is of no such shape, type or range.
        """
        if isinstance(images, list | tuple):
            return [self._one(image, scores) for image in images]
        if getattr(images, "ndim", 0) == 4:
            return np.stack([self._one(image, scores) for image in images])
        return self._one(images, scores)

    def _one(self, image: Any, scores: bool) -> np.ndarray:
        picture = as_picture(image, self._predictor.bands)
        return self._predictor.probabilities(picture) if scores else self._predictor(picture)[0]


def load(
    path: str | Path, *, device: str | None = None, tile: Sequence[int] | None = None
) -> Segmenter:
    """Loads the network of a finished run, or an ONNX file that `seg-l1 export` wrote.

    Args:
        path: the run directory, that of its compact network (`<run>/compact`), or the file.
        device: such as "cpu" or "cuda"; None = that of the run. Ignored for an ONNX file, which
            runs on the CPU, without torch.
        tile: (H, W), in which large images are read; None = as in the run.

    Raises:
        UserError: if there is no such run, checkpoint or file, or the device cannot be used.

    Example::

        network = load("outputs/runs/my_run/compact")
        classes = network("street.jpg")
    """
    if Path(path).suffix == ".onnx":
        from seg_l1.deployment.onnx_predictor import load_onnx

        return Segmenter(load_onnx(path, tile=tile))
    from seg_l1.training.prediction import load_predictor

    return Segmenter(load_predictor(path, device=device, tile=tile))


def as_picture(image: Any, bands: Bands) -> Picture | Raster:
    """Returns one image in the form that predictors take.

    Args:
        image: see `Segmenter.__call__`.
        bands: of the images of the network.

    Raises:
        UserError, ValueError: see there.
    """
    if isinstance(image, str | Path):
        return bands.open(Path(image))
    plain = bands.channels in COLORS and bands.bits == 8
    if isinstance(image, Picture) and plain:
        return image
    if type(image).__module__.partition(".")[0] == "torch":
        image = _channels_last(image, COLORS if plain else (bands.channels,))
    pixels = np.asarray(image)
    if not plain:
        return _as_raster(pixels, bands)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise ValueError(
            f"an array of shape {pixels.shape} is no image: expected (H, W) or (H, W, C), of a"
            " tensor (C, H, W), with 1 or 3 channels"
        )
    return Image.fromarray(_as_bytes(pixels))


def _as_raster(pixels: np.ndarray, bands: Bands) -> Raster:
    count = bands.channels
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] != count:
        raise ValueError(
            f"an array of shape {pixels.shape} is no image of this network: expected"
            f" (H, W, {count}), of a tensor ({count}, H, W)"
        )
    return Raster(_as_bytes(pixels) if bands.bits == 8 else _as_words(pixels))


def _as_words(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype.kind not in "ui" or pixels.dtype.itemsize == 1:
        raise ValueError(f"values of type {pixels.dtype}: expected uint16, as in the training")
    if pixels.min(initial=0) < 0 or pixels.max(initial=0) > 65535:
        raise ValueError(f"values from {pixels.min()} to {pixels.max()}: expected 0 to 65535")
    return np.ascontiguousarray(pixels.astype(np.uint16, copy=False))


def _channels_last(image: Tensor, channels: Sequence[int]) -> np.ndarray:
    if image.ndim == 3 and image.shape[0] not in channels:
        raise ValueError(f"a tensor of shape {tuple(image.shape)} is no image: expected (C, H, W)")
    array: np.ndarray = image.detach().cpu().numpy()
    return np.moveaxis(array, 0, -1) if array.ndim == 3 else array


def _as_bytes(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    if pixels.dtype.kind != "f":
        raise ValueError(f"values of type {pixels.dtype}: expected uint8, or floats from 0 to 1")
    if not (pixels.min(initial=0) >= 0 and pixels.max(initial=0) <= 1):
        raise ValueError(
            f"floats from {pixels.min():g} to {pixels.max():g}: expected 0 to 1, not normalized"
        )
    return np.rint(255 * pixels).astype(np.uint8)
