"""Small data sets as COCO, LabelMe, YOLO and CVAT write them, of images of 40x30 pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 40, 30
SQUARE = [[10, 5], [20, 5], [20, 15], [10, 15]]
"""A square with the corners (10, 5) and (20, 15)."""


def image(path: Path, *, size: tuple[int, int] = (WIDTH, HEIGHT), seed: int = 0, turn: int = 1):
    """Writes an image with noise; `turn` is its EXIF orientation."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def coco(path: Path, names: list[str], annotations: list[dict], **more) -> Path:
    """Writes a JSON file of images with the ids 1, 2, ... and of the categories 3 and 7."""
    content = {
        "images": [
            {"id": i, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for i, name in enumerate(names, 1)
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 3, "iscrowd": 0, **one}
            for i, one in enumerate(annotations, 1)
        ],
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def labelme(path: Path, shapes: list[dict], **more) -> Path:
    """Writes the JSON file of one image, `<name>.png` beside it."""
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": [
            {"label": "cat", "group_id": None, "shape_type": "polygon", "flags": {}, **one}
            for one in shapes
        ],
        "imagePath": f"{path.stem}.png",
        "imageData": None,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")
    return path


def yolo(root: Path, labels: dict[str, str], text: str = "") -> Path:
    """Writes images/<name>.png and labels/<name>.txt below `root`, and data.yaml."""
    for index, (name, lines) in enumerate(labels.items()):
        image(root / "images" / f"{name}.png", seed=index)
        file = root / "labels" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(lines)
    text = text or "train: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n"
    (root / "data.yaml").write_text(text)
    return root / "data.yaml"


def cvat(path: Path, images: dict[str, str], labels=("cat", "dog"), **attributes: str) -> Path:
    """Writes annotations.xml of images with the shapes given as XML."""
    named = "".join(f"<label><name>{name}</name></label>" for name in labels)
    extra = "".join(f' {key}="{value}"' for key, value in attributes.items())
    body = "".join(
        f'<image id="{i}" name="{name}" width="{WIDTH}" height="{HEIGHT}"{extra}>{shapes}</image>'
        for i, (name, shapes) in enumerate(images.items())
    )
    meta = f"<meta><task><labels>{named}</labels></task></meta>"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = (
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{meta}{body}'
    )
    path.write_text(f"{text}</annotations>", "utf-8")
    return path


def flat(points: list[list[float]]) -> list[float]:
    """The coordinates in one list."""
    return [float(value) for point in points for value in point]


def shares(points: list[list[float]]) -> str:
    """The coordinates as YOLO writes them."""
    return " ".join(f"{x / WIDTH} {y / HEIGHT}" for x, y in points)


def joined(points: list[list[float]]) -> str:
    """The coordinates as CVAT writes them."""
    return ";".join(f"{x:.2f},{y:.2f}" for x, y in points)


def box(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """A mask (H, W) of the pixels of a rectangle."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask
