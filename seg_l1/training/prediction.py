"""The network of a run as a predictor of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL.Image import Image as Picture
from torch import Tensor, nn
from torch.nn.functional import pad

from seg_l1.data.bands import Bands
from seg_l1.data.images import as_tensor
from seg_l1.data.raster import Raster
from seg_l1.data.resample import resize_scores
from seg_l1.display.paint import palette
from seg_l1.models.tiles import tiled, tiles
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.files import blame_file
from seg_l1.training.network import build_model, find_device, load_weights
from seg_l1.training.settings import Settings


@dataclass
class Predictor:
    """The best network of a run, with all that is needed between an image and its classes.

    Attributes:
        model: (N, C, H, W) -> logits (N, K, H, W).
        classes: K names.
        mean, std: per channel, of images divided by 255.
        image_size: (H, W) on which the network was trained; None = every image has its own.
        tile, overlap: for images larger than memory, see `tiles.tiled`.
        autocast: the context in which the network computes.
        resize_mode: how an image gets to `image_size`, see `SegmentationData`.
        bands: of the images; None = 8 bits, as many as `mean` has entries.
    """

    model: nn.Module
    classes: list[str]
    mean: list[float]
    std: list[float]
    image_size: tuple[int, int] | None
    tile: Sequence[int] | None
    overlap: float
    autocast: torch.autocast | nullcontext[None]
    resize_mode: str = "resize"
    bands: Bands = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.bands = self.bands or Bands(len(self.mean))

    @property
    def colors(self) -> np.ndarray:
        """(K, 3) uint8."""
        return palette(self.classes)

    @torch.no_grad()
    def __call__(self, picture: Picture | Raster) -> tuple[np.ndarray, float]:
        """Returns the class ids (H, W) uint8 of a picture, and the mean probability of these.

        If the network has an `image_size`, the picture is resized (or padded) to it, and the logits
        back to the size of the picture. Otherwise it is processed tile by tile, so that its logits
        need not fit into memory.
        """
        self.model.eval()
        if self.image_size is not None:
            return self._at_size(picture, self.image_size)
        image = as_tensor(picture, len(self.mean), None)[None]
        ids, total = torch.empty(image.shape[-2:], dtype=torch.uint8), 0.0
        for rows, columns, logits in tiles(self._logits, image, self.tile, self.overlap):
            best, answer = logits.softmax(1).max(1)
            ids[rows, columns] = answer[0].to("cpu", torch.uint8)
            total += float(best.sum(dtype=torch.float64))
        return ids.numpy(), total / ids.numel()

    @torch.no_grad()
    def probabilities(self, picture: Picture | Raster) -> np.ndarray:
        """Returns the softmax (K, H, W) float32 of the logits at the size of a picture."""
        self.model.eval()
        size = (picture.height, picture.width)
        logits = self._logits_at(picture, self.image_size)
        if logits.shape[-2:] != size:
            logits = torch.stack([resize_scores(one[None, None], size)[0] for one in logits[0]], 1)
        return logits.softmax(1)[0].cpu().numpy()

    def _at_size(
        self, picture: Picture | Raster, image_size: tuple[int, int]
    ) -> tuple[np.ndarray, float]:
        logits = self._logits_at(picture, image_size)
        confidence = float(logits.softmax(1).amax(1).mean())
        size = (picture.height, picture.width)
        return _upsampled_argmax(logits, size).cpu().numpy(), confidence

    def _logits_at(self, picture: Picture | Raster, image_size: tuple[int, int] | None) -> Tensor:
        """The logits (1, K, h, w) of a picture that is resized or padded to `image_size`, if any.

        Where it is padded they are of the picture's own size.
        """
        height, width = picture.height, picture.width
        if image_size is not None and self.resize_mode == "pad":
            image = as_tensor(picture, len(self.mean), None)[None]
            rows, columns = (
                max(0, a - b) for a, b in zip(image_size, (height, width), strict=True)
            )
            top, left = rows // 2, columns // 2
            image = pad(image, (left, columns - left, top, rows - top))
            logits = tiled(self._logits, image, self.tile, self.overlap)
            return logits[..., top : top + height, left : left + width]
        image = as_tensor(picture, len(self.mean), image_size)[None]
        return tiled(self._logits, image, self.tile, self.overlap)

    def _logits(self, images: Tensor) -> Tensor:
        """Maps images (N, C, H, W) to logits (N, K, H, W) in float32."""
        device = next(self.model.parameters()).device
        mean, std = (
            torch.tensor(values, device=device).view(-1, 1, 1) * 255
            for values in (self.mean, self.std)
        )
        with self.autocast:
            return self.model((images.to(device).float() - mean) / std).float()


def load_predictor(
    directory: str | Path, *, device: str | None = None, tile: Sequence[int] | None = None
) -> Predictor:
    """Returns the best network of the run at `directory`; the data of the run are not needed.

    Args:
        device, tile: in place of `device` and `trainer.tile` of the run.

    Raises:
        UserError: if there is no such run or checkpoint, or the device cannot be used.
    """
    record = RunDirectory.existing(directory, key="run")
    best = record.read_best()
    with blame_file(record.best):
        config = best["config"]
        trainer, size = config["trainer"], config["dataset"]["image_size"]
        where = find_device(device or config["device"])
        model = build_model(config, len(best["mean"]), len(best["classes"]), pretrained=False)
        load_weights(model, best)
        channels_last = trainer["channels_last"]
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        return Predictor(
            model=model.to(where).to(memory_format=memory_format).eval(),
            classes=best["classes"],
            mean=best["mean"],
            std=best["std"],
            image_size=None if size is None else (size[0], size[1]),
            tile=tile or trainer.get("tile"),
            overlap=trainer.get("tile_overlap", 0.25),
            autocast=Settings(precision=trainer["precision"]).autocast(where),
            resize_mode=best.get("fit", "resize"),
            bands=Bands.of(config["dataset"], best["mean"], best["std"], best.get("bits", 8)),
        )


def _upsampled_argmax(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """argmax over K of logits (1, K, h, w) resized bilinearly to `size`, one class at a time."""
    best = torch.full(size, -torch.inf, dtype=logits.dtype, device=logits.device)
    ids = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    for index, one in enumerate(logits[0]):
        score = resize_scores(one[None, None], size)[0, 0]
        ids[score > best] = index
        best = torch.maximum(best, score)
    return ids
