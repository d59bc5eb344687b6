"""COCO's instances: polygons, run lengths, crowds; one JSON file, or one per split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seg_l1.data.convert.finder import Finder, split_named
from seg_l1.data.convert.kinds import refuse
from seg_l1.data.convert.regions import Polygons, Region, RunLengths, Unusable, points_of
from seg_l1.data.convert.source import (
    Classes,
    Instance,
    Item,
    Remarks,
    Source,
    blame,
    read_json,
    size_of,
    tidy,
)
from seg_l1.data.labels import IGNORE
from seg_l1.data.listing import walk
from seg_l1.errors import UserError, short

LISTS = ("images", "annotations", "categories")


def read(path: Path, images: Path | None = None, *, crowd: str = "ignore") -> Source:
    """Reads a JSON file, or all below a folder: `instances_*.json` where there are such files.

    Args:
        images: where the images are; None = beside the JSON file, or in a folder beside it.
        crowd: "class" = regions with `iscrowd` have their class; "ignore" = they are not labeled.

    Raises:
        UserError: if there is no such file, or if one is not in COCO's format.
    """
    contents = _contents(path)
    names: dict[int, str] = {}
    for file, content in contents.items():
        with blame(file, "COCO"):
            for category in content["categories"]:
                key, name = category["id"], tidy(category["name"])
                if names.setdefault(key, name) != name:
                    raise UserError(
                        f"{file}: category {key} is '{name}', in another file '{names[key]}'."
                        " Convert them one by one, or export them together."
                    )
    first = next(iter(contents))
    with blame(first, "COCO"):
        classes = Classes((names[key] for key in sorted(names)), first)
    ids = {key: classes.id_of(name) for key, name in names.items()}
    source = Source(classes.names, by_area=True)
    splits = _splits([*contents])
    below = images or (path if path.is_dir() else None)
    for (file, content), split in zip(contents.items(), splits, strict=True):
        with blame(file, "COCO"):
            finder = Finder(_places(file, images), below)
            _read_file(source, file, content, ids, finder, split, crowd=crowd)
    return source


def _contents(path: Path) -> dict[Path, dict[str, Any]]:
    if not path.is_dir():
        is_json = path.is_file() and path.suffix.lower() == ".json"
        content: Any = read_json(path) if is_json else None
        if not is_coco(content):
            raise refuse(path, "coco", content)
        return {path: content}
    files = [file for file in walk(path) if file.suffix.lower() == ".json"]
    instances = [file for file in files if file.name.lower().startswith("instances")]
    contents = {file: read_json(file) for file in instances or files}
    found = {file: content for file, content in contents.items() if is_coco(content)}
    if not found:
        raise refuse(path, "coco", next(iter(contents.values()), None))
    return found


def is_coco(content: Any) -> bool:
    """Returns whether the content of a JSON file is that of COCO's instances."""
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in LISTS):
        return False
    first = next(iter(content["annotations"]), None)
    return not (isinstance(first, dict) and "segments_info" in first)


def _splits(files: Sequence[Path]) -> list[str]:
    """Returns the split of each file; "" for all if they share one, or if no name contains one."""
    splits = [split_named(file.stem) or split_named(file.parent.name) for file in files]
    without = [file for file, split in zip(files, splits, strict=True) if not split]
    if len(without) == len(files) or len({*splits}) == 1:
        return [""] * len(files)
    if without:
        raise UserError(
            f"{without[0]}: neither its name nor that of its folder says to which split it belongs,"
            " as those of other files do. Give one JSON file in place of the folder, or put train,"
            " val or test into the name."
        )
    return splits


def _places(file: Path, images: Path | None) -> list[Path]:
    """Returns where the images of a JSON file may be."""
    tag = file.stem.partition("_")[2]
    split = split_named(file.stem) or split_named(file.parent.name)
    names = [name for name in (tag, split) if name]
    roots = [images] if images else [file.parent, file.parent.parent]
    folders = [folder for root in roots for folder in (root, root / "images")]
    deeper = [folder / name for name in names for folder in folders]
    # the folder of its own split first: names may occur in each split
    return [*deeper, *folders]


def _read_file(
    source: Source,
    file: Path,
    content: dict[str, Any],
    ids: dict[int, int | None],
    finder: Finder,
    split: str,
    *,
    crowd: str,
) -> None:
    items: dict[Any, Item] = {}
    for one in content["images"]:
        name = str(one["file_name"])
        size = size_of(one.get("width"), one.get("height"))
        if one["id"] in items:
            raise UserError(
                f"{file}: two images have the id {one['id']}, {items[one['id']].name} and {name}."
                " Export it again."
            )
        items[one["id"]] = Item(name, finder.find(name), size, split=split)
    source.items += items.values()
    for index, one in enumerate(content["annotations"]):
        where = f"{file.name}, annotation {one.get('id', index)}"
        label = ids.get(one.get("category_id"))
        item = items.get(one.get("image_id"))
        if item is None:
            source.skipped.add("annotations of images that are not listed", where)
        elif label is None:
            key = short(one.get("category_id"))
            source.skipped.add(f"annotations of the category {key}, which is not listed", where)
        else:
            try:
                region = _region(one.get("segmentation"), where, source.skipped)
            except Unusable as error:
                source.skipped.add(str(error), where)
                continue
            if one.get("iscrowd"):
                means = "not labeled" if crowd == "ignore" else "drawn with their class"
                source.notes.add(f"crowd regions (iscrowd=1), {means}", where)
                label = IGNORE if crowd == "ignore" else label
            item.instances.append(Instance(label, region, where))


def _region(segmentation: Any, where: str, skipped: Remarks) -> Region:
    if not segmentation:
        raise Unusable("annotations without a segmentation (boxes, key points)")
    if isinstance(segmentation, dict):
        counts = segmentation.get("counts")
        size = segmentation.get("size")
        if not isinstance(counts, list | str) or not isinstance(size, list):
            raise Unusable("damaged run lengths (RLE)")
        return RunLengths(counts, size)
    if not isinstance(segmentation, list):
        raise Unusable("annotations whose segmentation is neither polygons nor run lengths")
    if not isinstance(segmentation[0], list):  # some programs leave the outer list out
        segmentation = [segmentation]
    parts = []
    for values in segmentation:
        try:
            parts.append(points_of(values))
        except Unusable as error:
            if len(segmentation) == 1:
                raise
            skipped.add(f"parts of annotations ({error})", where)
    if not parts:
        raise Unusable("annotations without a part that can be drawn")
    return Polygons(parts)
