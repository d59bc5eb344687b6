"""The scores of each image of a split, as a table and as a picture of the worst."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import torch

from seg_l1.data.bands import Bands
from seg_l1.display.pictures import Example
from seg_l1.display.worst import save_worst
from seg_l1.errors import UserError, printable
from seg_l1.metrics.per_image import ImageScores, PerImage
from seg_l1.models.tiles import tiled
from seg_l1.runs.files import make_folder, read_json, write_csv, write_json
from seg_l1.training.saved import SavedRun, load_run

WORST = 16
"""Images in the picture."""

TABLE, PICTURE, ABOUT = "images.csv", "worst.png", "scores.json"
"""The files that are written."""


@dataclass(frozen=True)
class Evaluated:
    """A split that was scored.

    Attributes:
        saved: the run, and the images.
        scores: of the whole split, see `evaluate_run`.
        images: the scores of each image.
        folder: where the files belong.
    """

    saved: SavedRun
    scores: dict[str, float]
    images: ImageScores
    folder: Path

    def write(self) -> None:
        """Writes the files; those of the same evaluation are replaced.

        images.csv has a row per image, lowest mIoU first: its name, labeled pixels, mIoU and pixel
        accuracy as `ImageScores` defines them, and the IoU of each class, empty if it does not
        occur. worst.png shows the first images. scores.json holds what was scored, and the scores
        of the whole split.

        Raises:
            UserError, RunError: if they cannot be written.
        """
        make_folder(self.folder)
        names, order = self.saved.batches.split.names, self.images.worst_first()
        classes = self.saved.experiment.data.classes
        columns = ("file", "labeled_pixels", "miou", "pixel_accuracy")
        header = [*columns, *(f"iou/{name}" for name in classes)]
        numbers = torch.cat([self.images.miou[:, None], self.images.accuracy[:, None],
                             self.images.iou], 1)  # fmt: skip
        rows = (
            [names[i], int(self.images.labeled[i]), *map(_cell, numbers[i].tolist())] for i in order
        )
        write_csv(self.folder / TABLE, header, rows)
        shown = order[:WORST]
        title = f"{self.saved.split}: the {len(shown)} of {len(names)} images with the lowest mIoU"
        examples = self._examples(shown)
        save_worst(self.folder / PICTURE, examples, classes=classes, title=title)
        write_json(self.folder / ABOUT, {**_about(self.saved), "scores": self.scores})

    @torch.no_grad()
    def _examples(self, indices: list[int]) -> Iterator[tuple[Example, str]]:
        """Yields images, one at a time, with the titles of their panels."""
        batches, loop = self.saved.batches, self.saved.experiment.loop
        data, spec = self.saved.experiment.data, self.saved.experiment.config["dataset"]
        bands = Bands.of(spec, data.mean, data.std, data.bits)
        miou = self.images.miou.tolist()
        loop.model.eval()
        for index in indices:
            image, mask = batches.split[[index]]
            with loop.autocast or torch.autocast(batches.device.type, enabled=False):
                logits = tiled(
                    loop.model,
                    batches.normalize(image),
                    loop.settings.tile,
                    loop.settings.tile_overlap,
                )
            prediction = logits.argmax(1)[0].to("cpu", torch.uint8).numpy()
            pixels = bands.paint(image[0].permute(1, 2, 0).numpy())
            score = "no labeled pixel" if isnan(miou[index]) else f"mIoU {miou[index]:.3f}"
            name = _shortened(printable(batches.split.names[index]))
            yield Example(pixels, mask[0].numpy(), prediction), f"{name}: {score}"


def evaluate_images(
    directory: str | Path,
    split: str | None = None,
    *,
    root: str | None = None,
    device: str | None = None,
    output: str | Path | None = None,
) -> Evaluated:
    """Scores the best weights of a finished run on a split, and on each of its images.

    Args:
        output: the folder of the files; None = evaluation/<split> in the run, and for other images
            than those of the run evaluation/<split>_<name of the folder>_<fingerprint>.
        directory, split, root, device: see `evaluate_run`.

    Raises:
        UserError: as `evaluate_run`, and before anything is scored if `output` cannot be written,
            lies among the images, or holds the files of another evaluation.
    """
    saved = load_run(directory, split, root=root, device=device)
    if output is not None:
        _check_output(Path(output), saved)
    per_image = PerImage(len(saved.batches.split), saved.experiment.data.num_classes)
    scores = saved.scores(per_image)
    folder = _default_folder(saved) if output is None else Path(output)
    return Evaluated(saved, scores, per_image.compute(), folder)


def _default_folder(saved: SavedRun) -> Path:
    data, name = saved.experiment.data, saved.split
    limits = [config["limit"] for config in (saved.experiment.config, saved.best["config"])]
    if data.fingerprint != saved.best["fingerprint"] or limits[0] != limits[1]:
        root = Path(saved.experiment.config["dataset"]["root"]).expanduser().resolve()
        name += f"_{root.name[:80]}_{data.fingerprint[:8]}"
    return saved.record.evaluation / name


def _about(saved: SavedRun) -> dict[str, Any]:
    """Returns what identifies an evaluation."""
    config, data = saved.experiment.config, saved.experiment.data
    root = config["dataset"].get("root")
    return {
        "run": str(saved.record.path.resolve()),
        "epoch": saved.best["epoch"],
        "dataset.root": None if root is None else str(Path(root).expanduser().resolve()),
        "split": saved.split,
        "fingerprint": data.fingerprint,
        "images": len(saved.batches.split),
    }


def _check_output(folder: Path, saved: SavedRun) -> None:
    there = [name for name in (TABLE, PICTURE, ABOUT) if (folder / name).exists()]
    if there:
        about, kept = _about(saved), {}
        if (folder / ABOUT).is_file():
            kept = read_json(folder / ABOUT)
        keys = ("run", "split", "fingerprint", "images")
        if any(kept.get(key) != about[key] for key in keys):
            raise UserError(
                f"output: '{folder}' holds {there[0]} of something else than this evaluation;"
                " choose another folder"
            )
    root = saved.experiment.config["dataset"].get("root")
    if root is not None:
        place, data = folder.resolve(), Path(root).expanduser().resolve()
        parts = place.relative_to(data).parts if place.is_relative_to(data) else ()
        if {"images", "masks"} & {part.lower() for part in parts}:
            raise UserError(f"output: '{folder}' lies among the images; choose another folder")
    make_folder(folder)
    if not os.access(folder, os.W_OK):
        raise UserError(f"output: '{folder}' cannot be written; choose another folder")


def _cell(value: float) -> str:
    return "" if isnan(value) else f"{value:.6f}"


def _shortened(name: str) -> str:
    return name if len(name) <= 80 else f"...{name[-77:]}"
