"""The page of `seg-l1 look`: one HTML file that holds its pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jinja2 import Environment, StrictUndefined
from PIL import Image
from torch import Tensor

from seg_l1.data.bands import Bands
from seg_l1.data.split import SegmentationData
from seg_l1.display.html import base64, page_style
from seg_l1.display.paint import overlay, palette
from seg_l1.experiments.look.examination import class_rows, examine, oddities, size_text
from seg_l1.runs.files import Config, make_folder, write_text
from seg_l1.training.build import training_batches

PAIRS = 16
"""Training images that are shown."""

WIDTH = 360
"""Pixels of the pictures of a pair; smaller ones keep their size."""


class Pair(NamedTuple):
    """A training image: PNG files of what is in the data, and of what the network is shown."""

    name: str
    image: bytes
    masked: bytes
    seen: bytes
    seen_masked: bytes


def write(path: Path, config: Config, data: SegmentationData, *, command: str) -> list[str]:
    """Writes the page; returns what is odd about the data, a sentence each.

    Args:
        command: that trains on the data.

    Raises:
        UserError: if the augmentation does not fit the images, or the page cannot be written.
    """
    found = examine(data)
    odd = oddities(found, data)
    colors = palette(data.classes)
    engine = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    engine.filters["base64"] = base64
    template = Path(__file__).with_suffix(".html.jinja").read_text("utf-8")
    page = engine.from_string(template).render(
        style=page_style(),
        title=str(config["dataset"].get("root") or config["dataset"]["_target_"]),
        facts={
            "images": ", ".join(f"{len(s)} {name}" for name, s in data.splits.items()),
            "size": size_text(found.sizes),
            "channels": str(data.channels),
            "without a label": f"{100 * data.unlabeled:.1f} % of the training pixels",
            "notes": "\n".join(data.notes),
        },
        odd=odd,
        splits=list(data.splits),
        rows=class_rows(found, data.classes),
        legend=[
            (name, "#" + bytes(color).hex() if color.any() else None)
            for name, color in zip(data.classes, colors, strict=True)
        ],
        pairs=_pairs(config, data, colors),
        augmentation=_changes(config),
        command=command,
    )
    make_folder(path.parent)
    write_text(path, page)
    return odd


def _pairs(config: Config, data: SegmentationData, colors: np.ndarray) -> list[Pair]:
    """Training images, evenly over the split, as they are and as the network sees them."""
    batches = training_batches(config, data)
    bands = Bands.of(config["dataset"], data.mean, data.std, data.bits)
    total = len(batches.split)
    found = []
    for place in torch.linspace(0, total - 1, min(PAIRS, total)).long().tolist():
        pair = batches.split[[place]]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(place)
            seen = pair if batches.augment is None else batches.augment(*pair)
        pictures = [picture for each in (pair, seen) for picture in _pictures(*each, bands, colors)]
        found.append(Pair(batches.split.names[place], *pictures))
    return found


def _pictures(
    images: Tensor, masks: Tensor, bands: Bands, colors: np.ndarray
) -> tuple[bytes, bytes]:
    """PNG files of the first image, and of its mask over it."""
    pixels = bands.paint(images[0].permute(1, 2, 0).numpy())
    return _png(pixels), _png(overlay(pixels, masks[0].numpy(), colors=colors))


def _png(pixels: np.ndarray) -> bytes:
    picture, file = Image.fromarray(pixels), io.BytesIO()
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, max(1, round(picture.height * WIDTH / picture.width))))
    picture.save(file, "PNG")
    return file.getvalue()


def _changes(config: Config) -> str:
    """The augmentation and the size, as keys with their values."""
    augmentation: dict[str, Any] = config["augmentation"]
    if not augmentation["_target_"]:
        return "no augmentation"
    return ", ".join(f"{k}={_value(v)}" for k, v in augmentation.items() if k != "_target_")


def _value(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(str, value))}]"
    return "null" if value is None else str(value)
