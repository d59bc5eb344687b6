"""Draws the masks, and writes the folder that `dataset=folder` reads."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps
from PIL.Image import Image as Picture

from seg_l1.data.convert.names import split_by_folders, targets
from seg_l1.data.convert.regions import Rle, Unusable, coco_masks, decoded
from seg_l1.data.convert.source import Instance, Item, Source, listed
from seg_l1.data.images import SUFFIXES, foreign_format, open_picture, remedy, stem_of, suffix_of
from seg_l1.data.labels import IGNORE
from seg_l1.data.layout import SPLITS
from seg_l1.errors import UserError

ORIENTATION = 0x0112
"""The EXIF tag of the orientation."""


@dataclass
class Converted:
    """What was written.

    Attributes:
        folder: where.
        classes: the names of the classes 0, 1, ...
        pairs: the files of each split ("" = no splits).
        instances: the number of objects by class id, with those that are not labeled as `IGNORE`.
        pixels: the number of pixels by class id, likewise.
        drawn: the number of objects on each image, in the order of `pairs`.
        colors: the colors (r, g, b) that the source gives to class names.
        skipped, notes: lines about what is left out, and what is worth knowing.
    """

    folder: Path
    classes: list[str]
    colors: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    pairs: dict[str, list[tuple[Path, Path]]] = field(default_factory=dict)
    instances: Counter[int] = field(default_factory=Counter)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, dtype=np.int64))
    drawn: list[int] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write(
    source: Source,
    folder: Path,
    *,
    leave_missing: bool = False,
    link: bool = False,
    on_image: Callable[[int, int], None] = lambda done, count: None,
) -> Converted:
    """Writes images, masks and `classes.txt` into `folder`; nothing is left there on an error.

    Args:
        folder: a new or an empty folder.
        leave_missing: whether images that are missing are left out.
        link: whether to hard-link the originals instead of copying them; links are symbolic where
            hard links are impossible, as across file systems.
        on_image: is called with the number of images done, and that of all.

    Raises:
        UserError: if the folder has files, if images are missing, unreadable or of another size
            than the source says, or if nothing can be drawn.
    """
    coco_masks()
    check_empty(folder)
    items = _present(source, leave_missing=leave_missing)
    split_by_folders(items)
    items.sort(key=lambda item: ("", *SPLITS).index(item.split))
    done = Converted(folder, source.classes, source.colors)
    paths = targets(items, source.notes)
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        _write_all(source, items, paths, done, on_image, link=link)
        names = "".join(f"{name}\n" for name in done.classes)
        (folder / "classes.txt").write_text(names, "utf-8")
    except BaseException:
        _clear(folder, keep=existed)
        raise
    done.skipped, done.notes = source.skipped.lines(), source.notes.lines()
    return done


def check_empty(folder: Path) -> None:
    """Refuses a folder that has files, and a file."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; give a new folder to write into.")
    if folder.is_dir():
        names = [path.name for path in folder.iterdir()]
        if names:
            raise UserError(
                f"{folder}: is not empty ({listed(sorted(names))}), and nothing is overwritten."
                " Give a new folder, or remove this one."
            )


def _present(source: Source, *, leave_missing: bool) -> list[Item]:
    """Returns the items whose images are there."""
    if not source.items:
        raise UserError("the annotations name no images: there is nothing to convert.")
    missing = [item.name for item in source.items if item.image is None]
    present = [item for item in source.items if item.image is not None]
    if missing and (not leave_missing or not present):
        others = "" if not present else ", or leave them out with missing=skip"
        raise UserError(
            f"{len(missing)} of {len(source.items)} images are missing: {listed(missing)}. Give"
            f" images=<the folder that holds them>{others}."
        )
    for name in missing:
        source.skipped.add("images that are missing", name)
    seen: dict[tuple[str, Path], Item] = {}
    for item in present:
        if isinstance(item.image, Path):
            first = seen.setdefault((item.split, item.image.resolve()), item)
            if first is not item:
                raise UserError(
                    f"{item.image}: is named twice, by '{first.name}' and '{item.name}', so that it"
                    " would have two masks. Take one of them away."
                )
    return present


def _write_all(
    source: Source,
    items: Sequence[Item],
    paths: Sequence[PurePosixPath],
    done: Converted,
    on_image: Callable[[int, int], None],
    *,
    link: bool,
) -> None:
    errors: list[str] = []
    for index, (item, path) in enumerate(zip(items, paths, strict=True)):
        place = done.folder / item.split
        image = place / "images" / path
        mask = place / "masks" / path.with_name(f"{stem_of(Path(path.name))}.png")
        try:
            _write_one(source, item, image, mask, done, link=link)
        except UserError as error:
            errors.append(str(error))
        done.pairs.setdefault(item.split, []).append((image, mask))
        on_image(index + 1, len(items))
    if errors:
        more = f" ({len(errors)} such images in all)" if len(errors) > 1 else ""
        shown = errors if len(errors) > 1 else []
        cut = [f"... and {len(errors) - 10} more"] if len(errors) > 10 else []
        raise UserError(f"{errors[0]}{more}", [*shown[1:10], *cut])
    if done.instances.keys() <= {0, IGNORE}:
        raise UserError(
            "no object of a class can be drawn. Export polygons or masks"
            f"{', or give crowd=class' if done.instances[IGNORE] and source.by_area else ''}.",
            [f"skipped: {line}" for line in source.skipped.lines()]
            + [f"note: {line}" for line in source.notes.lines()],
        )


def _write_one(
    source: Source, item: Item, image: Path, mask: Path, done: Converted, *, link: bool
) -> None:
    if isinstance(item.image, Path) and suffix_of(item.image) not in SUFFIXES:
        expected = f"Save it as one of {', '.join(sorted(SUFFIXES))}"
        known = foreign_format(item.image)
        raise UserError(
            f"{item.image}: {f'is {known}, which ' if known else ''}cannot be read."
            f" {remedy(item.image) if known else expected}"
        )
    for folder in (image.parent, mask.parent):
        folder.mkdir(parents=True, exist_ok=True)
    if isinstance(item.image, Path):
        stored = open_picture(item.image, upright=False)
        if link:
            _link(item.image, image, source)
        else:
            shutil.copyfile(item.image, image)
    else:
        image.write_bytes(item.image or b"")
        try:
            stored = open_picture(image, upright=False)
        except UserError:
            raise UserError(f"{item.name}: its imageData cannot be read as an image.") from None
    ids, drawn = _ids(source, item, stored, done.instances)
    Image.fromarray(ids).save(mask)
    done.pixels += np.bincount(ids.ravel(), minlength=256)
    done.drawn.append(drawn)


def _link(original: Path, path: Path, source: Source) -> None:
    original = original.resolve()
    try:
        os.link(original, path)
    except OSError:
        path.symlink_to(original)
        kind = "images that are symbolic links (no hard links are possible), so keep the originals"
        source.notes.add(kind, f"{path.name} -> {original}")


def _ids(
    source: Source, item: Item, stored: Picture, instances: Counter[int]
) -> tuple[np.ndarray, int]:
    """Returns the mask of the upright picture, and the number of objects on it.

    Tools annotate the picture as it is seen. Where the source gives the size of the picture as it
    is stored, its coordinates are those of the stored picture.
    """
    turn = stored.getexif().get(ORIENTATION, 1)
    upright = stored.size[::-1] if turn in (5, 6, 7, 8) else stored.size
    if item.size not in (None, upright, stored.size):
        assert item.size is not None
        raise UserError(
            f"{item.image if isinstance(item.image, Path) else item.name}: is"
            f" {upright[0]}x{upright[1]} pixels, its annotations are for"
            f" {item.size[0]}x{item.size[1]}. Give the images that were annotated"
            " (images=<folder>)."
        )
    width, height = item.size or upright
    ids, drawn = draw(source, item, (height, width), instances)
    if (width, height) != upright:
        picture = Image.fromarray(ids)
        picture.getexif()[ORIENTATION] = turn
        ids = np.asarray(ImageOps.exif_transpose(picture))
    return ids, drawn


def draw(
    source: Source, item: Item, size: tuple[int, int], instances: Counter[int]
) -> tuple[np.ndarray, int]:
    """Returns the class ids (H, W) and the number of objects, which it adds to `instances`."""
    masks = coco_masks()
    drawn: list[tuple[int, Instance, Rle]] = []
    for instance in item.instances:
        try:
            rle = instance.region.rle(*size)
        except Unusable as error:
            source.skipped.add(str(error), instance.where)
            continue
        area = int(masks.area(rle))
        if not area:
            source.skipped.add("shapes that cover no pixel of their image", instance.where)
            continue
        if instance.region.beyond(*size):
            source.notes.add("shapes clipped at the border of their image", instance.where)
        drawn.append((area, instance, rle))
    if source.by_area:
        drawn.sort(key=lambda one: -one[0])
    ids = np.zeros(size, dtype=np.uint8)
    for _, instance, rle in drawn:
        ids[decoded(rle)] = instance.label
    objects = {(one.label, one.group or index) for index, (_, one, _) in enumerate(drawn)}
    instances.update(label for label, _ in objects)
    return ids, len(objects)


def has_train(done: Converted) -> bool:
    """Returns whether there are images to train on."""
    return not {"", "train"}.isdisjoint(done.pairs)


def _clear(folder: Path, *, keep: bool) -> None:
    for path in [*folder.iterdir()]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if not keep:
        folder.rmdir()
