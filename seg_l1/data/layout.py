"""Finding the pairs of image and mask below a folder, and telling what is left out.

The layouts: `images/` and `masks/`; `images/train`, `masks/train` and so on; `train/images`,
`train/masks` and so on. Each `images/` and `masks/` may hold subfolders, in which the pairs lie
under the same relative path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from seg_l1.data.images import SUFFIXES, suffix_of
from seg_l1.data.listing import Listing, key_of, walk
from seg_l1.data.suffixes import Suffixes, find_suffixes
from seg_l1.errors import UserError

Pair = tuple[Path, Path]
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""The splits, and the names that their folders may have."""


@dataclass(frozen=True)
class Found:
    """The pairs of each split that is there, and remarks on how they were found."""

    splits: dict[str, list[Pair]]
    notes: list[str] = field(default_factory=list)


def find(folder: Path, *, image_suffix: str | None = None, mask_suffix: str | None = None) -> Found:
    """Finds the pairs of image and mask below `folder`; without split folders they are "train".

    Args:
        image_suffix, mask_suffix: what follows the part that the names of image and mask share,
            without .png and so on; None = found, where only one choice is possible.

    Raises:
        UserError: if there is no layout, if a file has no partner or cannot be read, naming it.
    """
    places, notes = _places(folder)
    listings = {
        split: (Listing.of(images), Listing.of(masks, mask=True))
        for split, (images, masks) in places.items()
    }
    for pair in listings.values():
        for listing in pair:
            listing.check_formats()
    suffixes = find_suffixes(
        {f"{split}/{key}" for split, (images, _) in listings.items() for key in images.paths},
        {f"{split}/{key}" for split, (_, masks) in listings.items() for key in masks.paths},
        image_suffix,
        mask_suffix,
    )
    splits = {}
    for split, (images, masks) in listings.items():
        splits[split], remarks = _pairs(images, masks, suffixes)
        notes += remarks
        if not splits[split] and split != "train":
            raise UserError(
                f"{folder}: the split '{split}' has no images. Fill {images.folder} and"
                f" {masks.folder}, or remove them."
            )
    if suffixes.note:
        notes.append(suffixes.note)
    notes += [listing.note for pair in listings.values() for listing in pair if listing.note]
    return Found({split: pairs for split, pairs in splits.items() if pairs}, notes)


def check_training(folder: Path, found: Found) -> None:
    """Refuses a folder that holds no pairs to train on."""
    if "train" not in found.splits:
        others = ", ".join(found.splits)
        raise UserError(
            f"{folder}: the split 'train' has no images{f', only {others}' if others else ''}. Fill"
            " train/images and train/masks, or put all pairs into images/ and masks/"
            " (dataset.val_fraction draws val from them)."
        )


def _places(folder: Path) -> tuple[dict[str, Pair], list[str]]:
    """Returns the folders of images and masks of each split, and notes on those not used."""
    images, masks = (_child(folder, kind) for kind in ("images", "masks"))
    notes: list[str] = []
    if images is None:
        outside = _split_folders(folder)
        inside = {
            split: (_child(path, "images"), _child(path, "masks") or path / "masks")
            for split, path in outside.items()
        }
        places = {split: (a, b) for split, (a, b) in inside.items() if a is not None}
        if not places:
            there = ", ".join(sorted(p.name for p in _folders(folder))[:8]) or "no folders"
            raise UserError(
                f"{folder}: holds neither images/ and masks/ nor train/images and train/masks (nor"
                f" images/train and masks/train), but {there}. Rename its folders."
            )
        used = {path for split, path in outside.items() if split in places}
    else:
        masks = masks or folder / "masks"
        places, used = {"train": (images, masks)}, {images, masks}
        inside_images = _split_folders(images)
        if inside_images:
            inside_masks = _split_folders(masks) if masks.is_dir() else {}
            places = {
                split: (path, inside_masks.get(split, masks / path.name))
                for split, path in inside_images.items()
            }
            notes += _beside(images, masks, places)
    if "test" in places and not places["test"][1].is_dir():
        pictures, wanted = places.pop("test")
        notes.append(f"{_named(pictures)}: not used, there is no {wanted.relative_to(folder)}/")
        used.add(pictures.parent)
    notes += [f"{_named(path)}: not used" for path in _unused(folder, used)]
    return places, notes


def _beside(images: Path, masks: Path, places: dict[str, Pair]) -> Iterator[str]:
    """Yields notes on folders beside split folders; refuses pictures there."""
    if any(suffix_of(path) in SUFFIXES for path in images.iterdir() if path.is_file()):
        name = min(path.name for path, _ in places.values())
        raise UserError(
            f"{images}: holds pictures beside the folder {name}/. Move those to train on into"
            f" {images}/train and {images.parent}/masks/train."
        )
    used = {path for pair in places.values() for path in pair}
    for path in [*_folders(images), *(_folders(masks) if masks.is_dir() else [])]:
        if path not in used:
            yield f"{_named(path)}: not used, since its name is not that of a split with images"


def _unused(folder: Path, used: Iterable[Path]) -> Iterator[Path]:
    """Yields the folders other than `used` that hold pictures, directly or in images/ or masks/."""
    for path in _folders(folder):
        if path not in used and _count(path):
            yield path


def _named(path: Path) -> str:
    return f"{path} ({_count(path)} pictures)"


def _count(folder: Path) -> int:
    """Returns the number of pictures in a folder, or else in its images/ or masks/."""
    for place in (folder, folder / "images", folder / "masks"):
        if place.is_dir():
            count = sum(suffix_of(path) in SUFFIXES for path in place.iterdir())
            if count:
                return count
    return 0


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def _child(folder: Path, name: str) -> Path | None:
    """Returns the folder `name` in `folder`, in capitals or not."""
    exact = folder / name
    others = (path for path in _folders(folder) if path.name.lower() == name)
    return exact if exact.is_dir() else next(others, None)


def _split_folders(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    children = {path.name.lower(): path for path in reversed(_folders(folder))}
    for split, names in SPLITS.items():
        paths = [children[name] for name in names if name in children]
        if len(paths) > 1:
            both = " and ".join(f"{path.name}/" for path in paths)
            raise UserError(f"{folder}: {both} are the same split; keep one")
        if paths:
            found[split] = paths[0]
    return found


def _pairs(images: Listing, masks: Listing, suffixes: Suffixes) -> tuple[list[Pair], list[str]]:
    """Returns the pairs of two folders, in the order of the images, and notes on other files."""
    image_of, other_images = suffixes.stems(images.paths, of_image=True)
    mask_of, other_masks = suffixes.stems(masks.paths, of_image=False)
    images_alone = sorted(image_of.keys() - mask_of.keys())
    masks_alone = sorted(mask_of.keys() - image_of.keys())
    if suffixes.leave_derived:
        count = len(masks_alone)
        masks_alone = [stem for stem in masks_alone if not stem.startswith(tuple(image_of))]
        other_masks += count - len(masks_alone)
    if images_alone or masks_alone:
        _refuse_unpaired(images_alone, masks_alone, images, masks, suffixes)
    pairs = [
        (_one(images.paths[image_of[stem]]), _one(masks.paths[mask_of[stem]]))
        for stem in sorted(image_of)
    ]
    notes = [
        f"{listing.folder}: {count} pictures are not used, since their names do not fit"
        f" dataset.{key}='{suffix}'"
        for listing, count, suffix, key in (
            (images, other_images, suffixes.image, "image_suffix"),
            (masks, other_masks, suffixes.mask, "mask_suffix"),
        )
        if count
    ]
    return pairs, notes


def _one(paths: list[Path]) -> Path:
    if len(paths) > 1:
        raise UserError(f"{paths[1]}: '{paths[0].name}' has the same name; keep one")
    return paths[0]


def _refuse_unpaired(
    images_alone: list[str],
    masks_alone: list[str],
    images: Listing,
    masks: Listing,
    suffixes: Suffixes,
) -> None:
    of_image, unpaired = bool(images_alone), [*images_alone, *masks_alone]
    stem = unpaired[0]
    lacking, other = (masks, "image") if of_image else (images, "mask")
    suffix = suffixes.mask if of_image else suffixes.image
    for path in walk(lacking.folder):
        if key_of(lacking.folder, path) == stem + suffix:
            listed = ", ".join(sorted(SUFFIXES))
            raise UserError(f"{path}: is left out; save it as one of {listed}")
    also = f", nor to the mask '{masks_alone[0]}'" if images_alone and masks_alone else ""
    without = {f"{lonely}{suffix}" for lonely in unpaired if lonely != stem}
    name = Path(stem).name + suffix
    elsewhere = [key for key in lacking.paths if key in without and Path(key).name == name]
    hint = f", or give {suffixes.keys}" if not (suffixes.image or suffixes.mask) else ""
    if elsewhere:
        there = lacking.paths[elsewhere[0]][0].relative_to(lacking.folder)
        hint = f"; it lies at {there}, move it to {stem}{suffix}{there.suffix}"
    raise UserError(
        f"{lacking.folder}: nothing belongs to the {other} '{stem}'{also} ({len(unpaired)} without"
        f" a partner in all). Names must agree up to the suffix{suffixes.words}{hint}."
    )
