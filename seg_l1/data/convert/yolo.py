"""YOLO's segmentation, as Ultralytics reads it: data.yaml, images/ and labels/."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seg_l1.data.convert.kinds import refuse
from seg_l1.data.convert.regions import Polygons, Unusable, points_of
from seg_l1.data.convert.source import Classes, Instance, Item, Source, blame, listed
from seg_l1.data.images import SUFFIXES, suffix_of
from seg_l1.data.listing import walk
from seg_l1.errors import UserError, first_line

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Picture:
    """An image file, its path below the folder of the split, and its file of labels."""

    path: Path
    name: str
    labels: Path


def read(path: Path, images: Path | None = None) -> Source:
    """Reads a data.yaml, or that of a folder.

    Args:
        images: the folder to use in place of `path` in data.yaml.

    Raises:
        UserError: if there is none, or if it is not as Ultralytics describes it.
    """
    file = _yaml_file(path)
    content = _content(file)
    with blame(file, "YOLO"):
        names = _names(content["names"])
        classes = Classes((names[key] for key in sorted(names)), file)
        ids = {key: classes.id_of(name) for key, name in names.items()}
        source = Source(classes.names, by_area=True)
        splits = _splits(source, file, content, images)
    if "val" in splits and "train" in splits and _same(splits["train"], splits["val"]):
        source.notes.say("val is left out, since it has the images of train")
        del splits["val"]
    for split, pictures in splits.items():
        for picture in pictures:
            image = picture.path if picture.path.is_file() else None
            item = Item(picture.name, image, split=split if len(splits) > 1 else "")
            if picture.labels.is_file():
                item.instances += _instances(source, picture.labels, ids)
            else:
                source.notes.add(
                    "images without a file of labels, all background", str(picture.path)
                )
            source.items.append(item)
    every = [picture for pictures in splits.values() for picture in pictures]
    if not any(picture.labels.is_file() for picture in every):
        raise UserError(
            f"{every[0].labels}: is missing, as are the labels of all {len(every)} images. They"
            " belong into a folder labels/ beside images/, under the names of the images."
        )
    return source


def _yaml_file(path: Path) -> Path:
    if not path.is_dir():
        if not path.is_file() or path.suffix.lower() not in (".yaml", ".yml"):
            raise refuse(path, "yolo")
        return path
    found = [f for f in sorted(path.iterdir()) if f.suffix.lower() in (".yaml", ".yml")]
    named = [file for file in found if file.stem == "data"] or found
    if len(named) > 1:
        raise UserError(
            f"{path}: holds {listed([f.name for f in named])}. Give the file that is meant."
        )
    if not named:
        raise refuse(path, "yolo")
    return named[0]


def _content(file: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text("utf-8-sig"))
    except UnicodeDecodeError:
        raise UserError(f"{file}: is not UTF-8. Save it again.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: is no YAML ({first_line(error)}). Export it again.") from None
    if not isinstance(content, dict) or "names" not in content:
        raise UserError(f"{file}: has no key 'names'; expected the data.yaml of a YOLO data set.")
    return content


def _names(names: Any) -> dict[int, str]:
    if isinstance(names, dict):
        return {int(key): str(name) for key, name in names.items()}
    if not isinstance(names, list):
        raise ValueError("'names' is neither a list nor a mapping")
    return dict(enumerate(map(str, names)))


def _splits(
    source: Source, file: Path, content: dict[str, Any], images: Path | None
) -> dict[str, list[Picture]]:
    """Returns the images of each split that is named."""
    splits = {}
    for split in SPLITS:
        value = content.get(split, content.get("valid") if split == "val" else None)
        typed = [value] if isinstance(value, str) else value or []
        places = [_place(file, content, str(text), images) for text in typed]
        if split == "test" and None in places:  # Roboflow names it in any case
            source.notes.say(f"test is left out, since {listed(typed)} is missing")
            continue
        for text, place in zip(typed, places, strict=True):
            if place is None:
                raise UserError(
                    f"{file}: '{text}' is not found. Correct 'path' or"
                    f" '{split}' in it, or give images=<folder> in place of 'path'."
                )
        pictures = [one for place in places if place for one in _pictures(place)]
        if typed and not pictures:
            raise UserError(f"{file}: '{split}: {listed(typed)}' holds no images.")
        if pictures:
            splits[split] = pictures
    if not splits:
        raise UserError(f"{file}: names no images; expected 'train: <folder>', 'val: <folder>'.")
    return splits


def _pictures(place: Path) -> Iterator[Picture]:
    if place.is_dir():
        paths = [(path, path.relative_to(place)) for path in walk(place)]
    elif place.suffix.lower() == ".txt":
        lines = [Path(line.strip()) for line in place.read_text("utf-8-sig").splitlines()]
        paths = [(place.parent / line, Path(line.name)) for line in lines if line.name]
    else:
        raise UserError(f"{place}: is neither a folder nor a .txt file of paths.")
    for path, name in paths:
        if suffix_of(path) in SUFFIXES:
            yield Picture(path, name.as_posix(), _labels_of(path))


def _place(file: Path, content: dict[str, Any], typed: str, images: Path | None) -> Path | None:
    """Returns the folder that a split names, also after the data set was moved; None if missing."""
    base = Path(str(content.get("path") or ""))
    roots = [images] if images else [file.parent / base, file.parent, Path(base)]
    path = Path(typed.replace("\\", "/"))
    # Roboflow writes ../train/images for train/images
    inside = Path(*[part for part in path.parts if part not in ("..", path.anchor)])
    candidates = [root / one for one in (path, inside) for root in roots]
    return next((place for place in candidates if place.exists()), None)


def _labels_of(image: Path) -> Path:
    """Returns the file of labels: labels/ in place of the last images/, as in Ultralytics."""
    parts = [*image.parts]
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return Path(*parts).with_name(f"{image.stem}.txt")


def _same(one: list[Picture], other: list[Picture]) -> bool:
    return {p.path.resolve() for p in one} == {p.path.resolve() for p in other}


def _instances(source: Source, file: Path, ids: dict[int, int | None]) -> Iterator[Instance]:
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{file}: is not UTF-8 text; expected 'class x1 y1 x2 y2 ...'.") from None
    for number, line in enumerate(lines, 1):
        where = f"{file.name}, line {number}"
        words = line.split()
        if not words:
            continue
        try:
            key, points = _line(words)
        except Unusable as error:
            source.skipped.add(str(error), where)
            continue
        label = ids.get(key)
        if label is None:
            source.skipped.add(f"lines of the class {key}, which data.yaml does not name", where)
            continue
        yield Instance(label, Polygons([points], relative=True), where)


def _line(words: list[str]) -> tuple[int, Any]:
    if len(words) == 5:
        raise Unusable("bounding boxes (lines of five numbers), which are no masks")
    try:
        key = float(words[0])
        values = [float(word) for word in words[1:]]
    except ValueError:
        raise Unusable("lines that are not 'class x1 y1 x2 y2 ...'") from None
    if not key.is_integer():
        raise Unusable("lines that are not 'class x1 y1 x2 y2 ...'")
    points = points_of(values)
    if points.max() > 2 or points.min() < -1:
        raise Unusable("lines with coordinates in pixels; expected shares from 0 to 1")
    return int(key), points
