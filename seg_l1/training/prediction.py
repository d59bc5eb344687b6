"""Prediction on new images: files in; class ids, overlays and shares of the classes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.Image import Image as Picture
from torch import Tensor, nn
from torch.nn.functional import pad

from seg_l1.data.images import SUFFIXES, as_tensor, foreign_format, open_picture, suffix_of
from seg_l1.data.resample import resize_scores
from seg_l1.display.pictures import overlay, palette
from seg_l1.errors import UserError
from seg_l1.models.tiles import tiled, tiles
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.files import blame_file, make_folder, write_csv, writing
from seg_l1.training.network import build_model, find_device, load_weights
from seg_l1.training.settings import Settings


@dataclass
class Predictor:
    """The best network of a run, with all that is needed between an image and its classes.

    Attributes:
        model: (N, C, H, W) -> logits (N, K, H, W).
        classes: K names.
        mean, std: per channel, of images scaled to [0, 1].
        image_size: (H, W) on which the network was trained; None = every image has its own.
        tile, overlap: for images larger than memory, see `tiles.tiled`.
        autocast: the context in which the network computes.
        resize_mode: how an image gets to `image_size`, see `SegmentationData`.
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

    @torch.no_grad()
    def __call__(self, picture: Picture) -> tuple[np.ndarray, float]:
        """Returns the class ids (H, W) uint8 of a picture, and the mean confidence.

        Where the network was trained on another size, the picture is resized to it and the logits
        back to the picture's. Otherwise it is processed tile by tile, and its logits may be larger
        than memory.
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

    def _at_size(self, picture: Picture, image_size: tuple[int, int]) -> tuple[np.ndarray, float]:
        height, width = picture.height, picture.width
        if self.resize_mode == "pad":
            image = as_tensor(picture, len(self.mean), None)[None]
            rows, columns = (
                max(0, a - b) for a, b in zip(image_size, (height, width), strict=True)
            )
            top, left = rows // 2, columns // 2
            image = pad(image, (left, columns - left, top, rows - top))
            logits = tiled(self._logits, image, self.tile, self.overlap)
            logits = logits[..., top : top + height, left : left + width]
        else:
            image = as_tensor(picture, len(self.mean), image_size)[None]
            logits = tiled(self._logits, image, self.tile, self.overlap)
        confidence = float(logits.softmax(1).amax(1).mean())
        return _upsampled_argmax(logits, (height, width)).cpu().numpy(), confidence

    def _logits(self, images: Tensor) -> Tensor:
        """Maps uint8 images (N, C, H, W) to logits (N, K, H, W) in float32."""
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
        )


def predict_files(
    predictor: Predictor,
    source: Path,
    target: Path,
    *,
    on_file: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Predicts an image, or all below a folder; returns which could not be read, and why.

    Writes into `target`, under the names and folders of the images: masks/*.png (grayscale, the
    value is the class id) and overlays/*.png; and shares.csv (a row per image: its size, the share
    of its pixels per class, the mean confidence of the network) and classes.csv (id, name, color).

    Args:
        on_file: called with the number of images done and of all.

    Raises:
        UserError: if there is no image, or if `target` cannot be written, is inside `source`, or
            holds masks/ or overlays/ that no prediction wrote.
    """
    files = _find(source)
    base = source if source.is_dir() else source.parent
    _check_target(source, target)
    colors = palette(predictor.classes)
    names = _names([file.relative_to(base) for file in files])
    rows, unreadable = [], []
    header = ["file", "width", "height", *predictor.classes, "confidence"]
    with writing(target):
        for kind in ("masks", "overlays"):
            for name in names:
                make_folder((target / kind / name).parent)
        write_csv(target / "shares.csv", header, [])  # marks the folder as one of predictions
        on_file(0, len(files))
        for index, (file, name) in enumerate(zip(files, names, strict=True)):
            try:
                picture = open_picture(file).convert("RGB")
            except UserError as error:
                unreadable.append(str(error))
            else:
                row = _predict_picture(predictor, picture, target, name, colors)
                rows.append([file.relative_to(base).as_posix(), *row])
            on_file(index + 1, len(files))
        write_csv(target / "shares.csv", header, rows)
        numbered = enumerate(zip(predictor.classes, colors.tolist(), strict=True))
        listing = [[index, name, *color] for index, (name, color) in numbered]
        write_csv(target / "classes.csv", ["id", "class", "red", "green", "blue"], listing)
    return unreadable


def _predict_picture(
    predictor: Predictor, picture: Picture, target: Path, name: Path, colors: np.ndarray
) -> list[object]:
    """Writes mask and overlay; returns size, shares of the classes, and confidence."""
    ids, confidence = predictor(picture)
    Image.fromarray(ids).save(target / "masks" / name)
    Image.fromarray(overlay(np.asarray(picture), ids, colors=colors)).save(
        target / "overlays" / name
    )
    pixels = np.bincount(ids.ravel(), minlength=len(predictor.classes))
    shares = [f"{number / ids.size:.6f}" for number in pixels]
    return [picture.width, picture.height, *shares, f"{confidence:.4f}"]


def _check_target(source: Path, target: Path) -> None:
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"output: '{target}' lies in the input folder; choose another folder")
    for kind in ("masks", "overlays"):
        if (target / kind).exists() and not (target / "shares.csv").is_file():
            raise UserError(
                f"output: '{target / kind}' already exists and was not written by predict;"
                " choose another folder"
            )


def _find(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f"input: there is no file or folder '{source}'")
    files, foreign = [], []
    for path in sorted(source.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            if suffix_of(path) in SUFFIXES:
                files.append(path)
            elif foreign_format(path):
                foreign.append(path)
    if not files and not foreign:
        raise UserError(f"input: there is no image in '{source}' ({', '.join(sorted(SUFFIXES))})")
    return sorted(files + foreign)


def _names(files: Sequence[Path]) -> list[Path]:
    """Returns a name that ends with .png for each file, all of them different.

    A .png keeps its name. Where another file has that name up to the suffix, in capitals or not,
    the others get their suffix, and a number if need be: a.png, a_jpg.png, a_jpg_2.png.
    """
    names: dict[Path, Path] = {}
    taken: set[str] = set()
    for file in sorted(files, key=lambda file: suffix_of(file) != ".png"):
        name = file.with_suffix(".png")
        longer = f"{file.stem}_{file.suffix.lower()[1:]}"
        numbers = count(1)
        while name.as_posix().casefold() in taken:
            number = next(numbers)
            name = file.with_name(f"{longer}{f'_{number}' if number > 1 else ''}.png")
        names[file] = name
        taken.add(name.as_posix().casefold())
    return [names[file] for file in files]


def _upsampled_argmax(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """argmax over K of logits (1, K, h, w) resized bilinearly to `size`, one class at a time."""
    best = torch.full(size, -torch.inf, dtype=logits.dtype, device=logits.device)
    ids = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    for index, one in enumerate(logits[0]):
        score = resize_scores(one[None, None], size)[0, 0]
        ids[score > best] = index
        best = torch.maximum(best, score)
    return ids
