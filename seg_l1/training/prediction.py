"""Prediction on new pictures: files in; class ids, overlays and shares of the classes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from seg_l1.data.files import SUFFIXES, as_tensor, open_picture
from seg_l1.display.pictures import overlay, palette
from seg_l1.errors import UserError
from seg_l1.models.tiles import tiled, tiles
from seg_l1.runs.files import make_folder, write_csv, writing


@dataclass
class Predictor:
    """The best network of a run, with all that lies between a picture and its classes.

    `image_size` is the (H, W) that the network was trained on, None = every picture's own;
    `resize_mode` says how a picture gets there, see `SegmentationData`.
    """

    model: nn.Module
    classes: list[str]
    mean: list[float]
    std: list[float]
    image_size: tuple[int, int] | None
    tile: Sequence[int] | None
    overlap: float
    autocast: torch.autocast | nullcontext
    resize_mode: str = "resize"

    @torch.no_grad()
    def __call__(self, picture: np.ndarray | object) -> tuple[np.ndarray, float]:
        """Returns the class ids (H, W) uint8 of a PIL picture, and the mean confidence.

        Where the network was trained on another size, the picture is resized to it and the logits
        back to the picture's; else it is read tile by tile, and may be larger than memory for its
        logits.
        """
        device = next(self.model.parameters()).device
        height, width = picture.height, picture.width
        padded = self.resize_mode == "pad" and self.image_size is not None
        image = as_tensor(picture, len(self.mean), None if padded else self.image_size)[None]
        if padded:
            extra = [max(0, a - b) for a, b in zip(self.image_size, (height, width), strict=True)]
            top, left = extra[0] // 2, extra[1] // 2
            image = pad(image, (left, extra[1] - left, top, extra[0] - top))
        scale = [torch.tensor(x, device=device).view(-1, 1, 1) * 255 for x in (self.mean, self.std)]

        def network(part: Tensor) -> Tensor:
            with self.autocast:
                return self.model((part.to(device).float() - scale[0]) / scale[1]).float()

        self.model.eval()
        if self.image_size is not None:
            logits = tiled(network, image, self.tile, self.overlap)
            if padded:
                logits = logits[..., top : top + height, left : left + width]
            confidence = float(logits.softmax(1).amax(1).mean())
            return _enlarged_argmax(logits, (height, width)).cpu().numpy(), confidence
        ids, total = torch.empty(height, width, dtype=torch.uint8), 0.0
        for rows, columns, logits in tiles(network, image, self.tile, self.overlap):
            best, answer = logits.softmax(1).max(1)
            ids[rows, columns] = answer[0].to("cpu", torch.uint8)
            total += float(best.sum(dtype=torch.float64))
        return ids.numpy(), total / (height * width)


def load_predictor(
    directory: str | Path, *, device: str | None = None, tile: Sequence[int] | None = None
) -> Predictor:
    """Returns the best network of the run at `directory`; its data are not needed.

    Args:
        device, tile: in place of `device` and `trainer.tile` of the run.

    Raises:
        UserError: if there is no such run or checkpoint, or the device cannot be used.
    """
    from seg_l1.runs.directory import RunDirectory
    from seg_l1.runs.files import blame_file
    from seg_l1.training.build import build_model, find_device
    from seg_l1.training.loop import DTYPES

    record = RunDirectory.existing(directory, key="run")
    best = record.read_best()
    with blame_file(record.best):
        config = best["config"]
        trainer, size = config["trainer"], config["dataset"]["image_size"]
        where = find_device(device or config["device"])
        model = build_model(config, len(best["mean"]), len(best["classes"]), pretrained=False)
        model.load_state_dict(best["model"])
        layout = torch.channels_last if trainer["channels_last"] else torch.contiguous_format
        return Predictor(
            model=model.to(where, memory_format=layout).eval(),
            classes=best["classes"],
            mean=best["mean"],
            std=best["std"],
            image_size=None if size is None else tuple(size),
            tile=tile or trainer.get("tile"),
            overlap=trainer.get("tile_overlap", 0.25),
            autocast=torch.autocast(
                where.type, DTYPES[trainer["precision"]], trainer["precision"] != "fp32"
            ),
            resize_mode=best.get("fit", "resize"),
        )


def predict_files(
    predictor: Predictor,
    source: Path,
    target: Path,
    *,
    on_file: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """Predicts a picture, or all below a folder; returns what could not be read, and why.

    Writes into `target`, under the names and folders of the pictures: masks/*.png (grey, the value
    is the class id) and overlays/*.png; and shares.csv (a row per picture: its size, the share of
    its pixels per class, the mean confidence of the network) and classes.csv (id, name, colour).

    Args:
        on_file: called with the number of pictures done and of all.

    Raises:
        UserError: if there is no picture, or if `target` cannot be written, lies in `source`, or
            holds masks/ or overlays/ that no prediction wrote.
    """
    from PIL import Image

    files = _find(source)
    base = source if source.is_dir() else source.parent
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        raise UserError(f"output: '{target}' lies in the input folder, choose another place")
    for kind in ("masks", "overlays"):
        if (target / kind).exists() and not (target / "shares.csv").is_file():
            raise UserError(
                f"output: '{target / kind}' exists, and is no prediction's; choose another place"
            )
    colours = palette(predictor.classes)
    names = _names([file.relative_to(base) for file in files])
    rows, unreadable = [], []
    header = ["file", "width", "height", *predictor.classes, "confidence"]
    with writing(target):
        for kind in ("masks", "overlays"):
            for name in names:
                make_folder((target / kind / name).parent)
        write_csv(target / "shares.csv", header, [])  # says whose folder this is, come what may
        on_file(0, len(files))
        for index, (file, name) in enumerate(zip(files, names, strict=True)):
            try:
                picture = open_picture(file).convert("RGB")
            except UserError as error:
                unreadable.append(str(error))
            else:
                ids, confidence = predictor(picture)
                Image.fromarray(ids).save(target / "masks" / name)
                painted = overlay(np.asarray(picture), ids, colours)
                Image.fromarray(painted).save(target / "overlays" / name)
                counts = np.bincount(ids.ravel(), minlength=len(predictor.classes))
                shares = [f"{count / ids.size:.6f}" for count in counts]
                size = (picture.width, picture.height)
                rows.append(
                    [file.relative_to(base).as_posix(), *size, *shares, f"{confidence:.4f}"]
                )
            on_file(index + 1, len(files))
        write_csv(target / "shares.csv", header, rows)
        listing = [
            [i, n, *c]
            for i, (n, c) in enumerate(zip(predictor.classes, colours.tolist(), strict=True))
        ]
        write_csv(target / "classes.csv", ["id", "class", "red", "green", "blue"], listing)
    return unreadable


def _find(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise UserError(f"input: there is no file or folder '{source}'")
    files = sorted(
        path
        for path in source.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    if not files:
        raise UserError(f"input: no picture lies in '{source}' ({', '.join(sorted(SUFFIXES))})")
    return files


def _names(files: Sequence[Path]) -> list[Path]:
    """The names with .png in place of their suffix, or behind it where two would become one."""
    short = [file.with_suffix(".png") for file in files]
    if len(set(short)) == len(short):
        return short
    return [file.with_name(f"{file.name}.png") for file in files]


def _enlarged_argmax(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """argmax over K of logits (1, K, h, w) resized bilinearly to `size`, one class at a time."""
    best, ids = None, torch.zeros(size, dtype=torch.uint8, device=logits.device)
    for index, one in enumerate(logits[0]):
        score = interpolate(one[None, None], size, mode="bilinear")[0, 0]
        if best is None:
            best = score
        else:
            ids[score > best] = index
            best = torch.maximum(best, score)
    return ids
