"""`load`: the network of a run, or of an ONNX file, as a function from images to classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image
from PIL.Image import Image as Picture

from seg_l1.data.images import open_picture
from seg_l1.deployment.predict_picture import PicturePredictor

if TYPE_CHECKING:
    from torch import Tensor


class ScoringPredictor(PicturePredictor, Protocol):
    """A predictor that also gives the probability of each class."""

    def probabilities(self, picture: Picture) -> np.ndarray:
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
                PIL image, an array (H, W) or (H, W, C), or a tensor (H, W) or (C, H, W), with 1 or
                3 channels, or, of arrays, 4, of which the last is dropped. Values are 0 to 255 of
                type uint8, or floats from 0 to 1. A batch is an array (N, H, W, C) or a tensor
                (N, C, H, W).
            scores: return the probability of each class in place of the class.

        Returns:
            uint8 (H, W), class ids at the size of the image; with `scores` float32 (K, H, W), which
            sum to 1. A list of these for a list; for a batch an array with N in front.

        Raises:
            UserError: if a file cannot be read, or an ONNX file takes images of another size, or
                has no scores.
            ValueError: if an array or tensor is of no such shape, type or range.
        """
        if isinstance(images, list | tuple):
            return [self._one(as_picture(image), scores) for image in images]
        if getattr(images, "ndim", 0) == 4:
            return np.stack([self._one(as_picture(image), scores) for image in images])
        return self._one(as_picture(images), scores)

    def _one(self, picture: Picture, scores: bool) -> np.ndarray:
        return self._predictor.probabilities(picture) if scores else self._predictor(picture)[0]


def load(
    path: str | Path, *, device: str | None = None, tile: Sequence[int] | None = None
) -> Segmenter:
    """Loads the network of a finished run, or an ONNX file that `seg-l1 export` wrote.

    Args:
        path: the run directory, that of its compact network (`<run>/compact`), or the file.
        device: such as "cpu" or "cuda"; None = that of the run. An ONNX file is computed on the
            CPU, and without torch.
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


def as_picture(image: Any) -> Picture:
    """Returns one image as a PIL image; see `Segmenter.__call__` for what an image may be.

    Raises:
        UserError, ValueError: see there.
    """
    if isinstance(image, Picture):
        return image
    if isinstance(image, str | Path):
        return open_picture(Path(image)).convert("RGB")
    if type(image).__module__.partition(".")[0] == "torch":
        image = _channels_last(image)
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise ValueError(
            f"an array of shape {pixels.shape} is no image: expected (H, W) or (H, W, C), of a"
            " tensor (C, H, W), with 1 or 3 channels"
        )
    return Image.fromarray(_as_bytes(pixels))


def _channels_last(image: Tensor) -> np.ndarray:
    if image.ndim == 3 and image.shape[0] not in (1, 3):
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
