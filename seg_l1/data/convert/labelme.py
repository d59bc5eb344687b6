"""LabelMe: a JSON file per image."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seg_l1.data.convert.finder import Finder, parts_of
from seg_l1.data.convert.kinds import refuse
from seg_l1.data.convert.regions import (
    Bitmap,
    Ellipse,
    Polygons,
    Region,
    Unusable,
    points_of,
    rectangle,
)
from seg_l1.data.convert.source import (
    UNLABELED,
    Classes,
    Instance,
    Item,
    Source,
    blame,
    read_json,
    size_of,
    tidy,
)
from seg_l1.data.images import SUFFIXES, suffix_of
from seg_l1.data.listing import walk
from seg_l1.errors import UserError

THIN = ("line", "linestrip", "point", "points")
"""Types of shapes that cover no area."""


def read(path: Path, images: Path | None = None) -> Source:
    """Reads a JSON file, or all of LabelMe below a folder.

    Classes are in the order of `labels.txt`, where the folder has one, then of the alphabet.

    Args:
        images: where the images are; None = where `imagePath` says, or beside the JSON.

    Raises:
        UserError: if there is none, or if one is not as LabelMe writes it.
    """
    root = path if path.is_dir() else path.parent
    files = [f for f in walk(path) if f.suffix.lower() == ".json"] if path.is_dir() else [path]
    if path.is_file() and path.suffix.lower() != ".json":
        raise refuse(path, "labelme")
    contents = {file: read_json(file) for file in files}
    found = {file: content for file, content in contents.items() if _is_labelme(content)}
    if not found:
        raise refuse(path, "labelme", next(iter(contents.values()), None))
    seen: Counter[str] = Counter()
    for file, content in found.items():
        with blame(file, "LabelMe"):
            seen.update(tidy(shape["label"]) for shape in content["shapes"])
    classes = Classes([*_listed(root), *sorted(seen.keys() - {UNLABELED})], root)
    source = Source(classes.names, by_area=False)
    for file in contents.keys() - found.keys():
        source.skipped.add("JSON files that are not of LabelMe", str(file.relative_to(root)))
    for file, content in found.items():
        with blame(file, "LabelMe"):
            source.items.append(_item(source, root, file, content, classes, images))
    if path.is_dir():
        _note_unused(source, root)
    return source


def _is_labelme(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("shapes"), list)


def _listed(root: Path) -> list[str]:
    """Returns the names in `labels.txt`, with which LabelMe is started."""
    path = root / "labels.txt"
    if not path.is_file():
        return []
    try:
        return [line for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8. Save it again, or take it away.") from None


def _item(
    source: Source,
    root: Path,
    file: Path,
    content: dict[str, Any],
    classes: Classes,
    images: Path | None,
) -> Item:
    typed = str(content.get("imagePath") or f"{file.stem}.jpg")
    image: Path | bytes | None = _image(file, typed, images)
    data = content.get("imageData")
    if image is None and data:
        image = base64.b64decode(data)
        source.notes.add("images taken from imageData, since their files are missing", typed)
    name = (parts_of(typed) or [file.stem])[-1]
    folder = file.parent.relative_to(root).as_posix()
    size = size_of(content.get("imageWidth"), content.get("imageHeight"))
    item = Item(name if folder == "." else f"{folder}/{name}", image, size)
    for index, shape in enumerate(content["shapes"], 1):
        where = f"{file.relative_to(root)}, shape {index}"
        label = classes.id_of(shape["label"])
        try:
            region = _region(shape)
        except Unusable as error:
            source.skipped.add(str(error), where)
            continue
        group = shape.get("group_id")
        if label is not None:
            group = "" if group is None else str(group)
            item.instances.append(Instance(label, region, where, group))
    return item


def _image(file: Path, typed: str, images: Path | None) -> Path | None:
    if images:
        return Finder([images / file.parent.name, images], images).find(typed)
    beside = file.parent / typed.replace("\\", "/")
    try:
        if beside.is_file():  # the path may lead upwards
            return beside
    except (OSError, ValueError):
        return None
    parts = parts_of(typed)
    return Finder([file.parent], None).find(parts[-1]) if parts else None


def _region(shape: dict[str, Any]) -> Region:
    kind = shape.get("shape_type") or "polygon"
    points = shape["points"]
    if kind in THIN:
        raise Unusable(f"shapes of the type {kind}, which cover no area")
    if kind in ("polygon", "oriented_rectangle"):
        return Polygons([points_of(points)])
    if kind not in ("rectangle", "circle", "mask"):
        raise Unusable(f"shapes of the unknown type {str(kind)[:40]}")
    if len(points) == 4 and kind == "rectangle":  # as versions of LabelMe from 5.5 may write it
        return Polygons([points_of(points)])
    if len(points) != 2:
        raise Unusable(f"shapes of the type {kind} that have not two points")
    (x0, y0), (x1, y1), _ = points_of([*points, points[0]]).tolist()
    if kind == "rectangle":
        return rectangle(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
    if kind == "circle":
        radius = math.hypot(x1 - x0, y1 - y0)
        if not radius:
            raise Unusable("circles without a radius")
        return Ellipse((x0, y0), (radius, radius))
    try:
        with Image.open(io.BytesIO(base64.b64decode(shape["mask"])), formats=["PNG"]) as picture:
            pixels = np.asarray(picture.convert("L")) > 0
    except Exception:
        raise Unusable("shapes of the type mask whose picture is damaged") from None
    return Bitmap(int(x0), int(y0), pixels.astype(np.uint8))


def _note_unused(source: Source, root: Path) -> None:
    """Notes pictures without a JSON file: whether they are empty or not yet labeled is unknown."""
    used = {item.image.resolve() for item in source.items if isinstance(item.image, Path)}
    for path in walk(root):
        if suffix_of(path) in SUFFIXES and path.resolve() not in used:
            kind = "images without a JSON file, left out since they may not have been labeled"
            source.notes.add(kind, str(path.relative_to(root)))
