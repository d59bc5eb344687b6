"""CVAT for images 1.1: annotations.xml and images/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from seg_l1.data.convert.finder import Finder, split_folder
from seg_l1.data.convert.kinds import refuse
from seg_l1.data.convert.regions import (
    LARGEST,
    Bitmap,
    Ellipse,
    Polygons,
    Region,
    Unusable,
    points_of,
    rectangle,
)
from seg_l1.data.convert.source import Classes, Instance, Item, Source, blame, listed, size_of, tidy
from seg_l1.data.images import MOST_PIXELS
from seg_l1.data.listing import walk
from seg_l1.errors import UserError, first_line, short

SHAPES = ("polygon", "box", "mask", "ellipse")
THIN = ("polyline", "points", "cuboid", "skeleton")


def read(path: Path, images: Path | None = None) -> Source:
    """Reads an XML file, or that of a folder.

    Args:
        images: where the images are; None = in images/ beside the file, or beside it.

    Raises:
        UserError: if there is no such file, or if it is not in CVAT's format.
    """
    file = _xml_file(path)
    try:
        root = ElementTree.parse(file).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{file}: is no XML ({first_line(error)}). Export it again.") from None
    if root.tag != "annotations" or root.find("track") is not None:
        raise refuse(file, "cvat")
    with blame(file, "CVAT"):
        classes = Classes(_labels(root), file)
        source = Source(classes.names, by_area=False, colors=_colors(root))
        folders = [images] if images else [file.parent / "images", file.parent]
        finder = Finder(folders, images or (path if path.is_dir() else None))
        subsets = {image.get("subset", "") for image in root.iter("image")}
        as_splits = len(subsets) > 1 and all(map(split_folder, subsets))
        for image in root.iter("image"):
            item = _item(image, finder)
            item.split = split_folder(image.get("subset", "")) if as_splits else ""
            item.instances += _instances(source, image, classes)
            source.items.append(item)
    return source


def _xml_file(path: Path) -> Path:
    if not path.is_dir():
        if not path.is_file() or path.suffix.lower() != ".xml":
            raise refuse(path, "cvat")
        return path
    found = [file for file in walk(path) if file.suffix.lower() == ".xml"]
    named = [file for file in found if file.name.lower() == "annotations.xml"] or found
    if not named:
        raise refuse(path, "cvat")
    if len(named) > 1:
        names = listed([file.relative_to(path) for file in named])
        raise UserError(f"{path}: holds {names}. Give the file that is meant.")
    return named[0]


def _labels(root: Element) -> list[str]:
    """Returns the labels of the task or project in their order, else those that occur."""
    found = [label.findtext("name", "") for label in _listed_labels(root)]
    shapes = (shape for image in root.iter("image") for shape in image if shape.tag in SHAPES)
    return found or sorted({shape.get("label", "") for shape in shapes})


def _listed_labels(root: Element) -> Iterator[Element]:
    for labels in root.iterfind("meta/*/labels"):
        for label in labels.iterfind("label"):
            if label.find("parent") is None:  # the points of a skeleton have one
                yield label


def _colors(root: Element) -> dict[str, tuple[int, int, int]]:
    """Returns the colors of the labels, where the file gives them as #rrggbb."""
    colors = {}
    for label in _listed_labels(root):
        text = label.findtext("color", "").strip()
        if re.fullmatch("#[0-9a-fA-F]{6}", text):
            red, green, blue = bytes.fromhex(text[1:])
            colors[tidy(label.findtext("name", ""))] = (red, green, blue)
    return colors


def _item(image: Element, finder: Finder) -> Item:
    name = image.attrib["name"]
    subset = image.get("subset")
    found = finder.find(f"{subset}/{name}") if subset else None
    size = size_of(int(image.get("width", 0)), int(image.get("height", 0)))
    return Item(name, found or finder.find(name), size)


def _instances(source: Source, image: Element, classes: Classes) -> list[Instance]:
    """Returns the shapes of an image, sorted by z_order; those of the same in document order."""
    found = []
    for index, shape in enumerate(image, 1):
        where = f"{image.attrib['name']}, {shape.tag} {index}"
        if shape.tag not in SHAPES:
            if shape.tag in THIN:
                source.skipped.add(f"shapes of the type {shape.tag}, which are no masks", where)
            continue
        label = classes.id_of(shape.get("label", ""))
        if label is None:
            name = short(shape.get("label", ""))
            source.skipped.add(f"shapes of the label {name}, which is not listed", where)
            continue
        try:
            region = _region(shape)
        except Unusable as error:
            source.skipped.add(str(error), where)
            continue
        group = "" if shape.get("group_id", "0") == "0" else shape.attrib["group_id"]
        found.append((int(shape.get("z_order", 0)), Instance(label, region, where, group)))
    return [instance for _, instance in sorted(found, key=lambda pair: pair[0])]


def _region(shape: Element) -> Region:
    if shape.tag == "polygon":
        pairs = [pair.split(",") for pair in shape.attrib["points"].split(";") if pair.strip()]
        return Polygons([points_of(pairs)])
    if shape.tag == "box":
        left, top, right, bottom = (_number(shape, key) for key in ("xtl", "ytl", "xbr", "ybr"))
        return rectangle(left, top, right, bottom, _number(shape, "rotation", "0"))
    if shape.tag == "ellipse":
        x, y, across, down = (_number(shape, key) for key in ("cx", "cy", "rx", "ry"))
        if min(across, down) <= 0:
            raise Unusable("ellipses without a radius")
        return Ellipse((x, y), (across, down), _number(shape, "rotation", "0"))
    left, top, width, height = (
        int(_number(shape, key)) for key in ("left", "top", "width", "height")
    )
    try:
        counts = [int(word) for word in shape.attrib["rle"].split(",")]
    except ValueError:
        counts = []
    whole = min([width, height, *counts, 0]) >= 0 and sum(counts) == width * height
    if not whole or not 0 < width * height <= MOST_PIXELS:
        raise Unusable("masks with damaged run lengths (RLE)")
    pixels = np.repeat(np.arange(len(counts)) % 2, counts).astype(np.uint8)
    return Bitmap(left, top, pixels.reshape(height, width))


def _number(shape: Element, key: str, default: str | None = None) -> float:
    try:
        number = float(shape.attrib[key] if default is None else shape.get(key, default))
    except ValueError:
        raise Unusable("shapes with coordinates that are no numbers") from None
    if not abs(number) < LARGEST:
        raise Unusable("shapes with coordinates that are no finite numbers")
    return number
