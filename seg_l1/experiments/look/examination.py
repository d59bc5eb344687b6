"""What a data set holds, and what is odd about it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np

from seg_l1.data.labels import IGNORE
from seg_l1.data.split import SegmentationData

NAMED = 3
"""Images that an oddity names."""

TINY = 1e-3
"""A class below this share of the labeled pixels is small."""


@dataclass
class Examination:
    """Counts over all images.

    Attributes:
        sizes: number of images of each (height, width).
        images: per split and class id, images that show the class.
        pixels: per split and class id, pixels; `IGNORE` for those without a label.
        one_class: per class id, images in which all labeled pixels are of that class.
        unlabeled, uniform: images without a labeled pixel, and those of one color.
        copies: lists of images with the same pixels.
    """

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    images: dict[str, Counter[int]] = field(default_factory=dict)
    pixels: dict[str, Counter[int]] = field(default_factory=dict)
    one_class: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    unlabeled: list[str] = field(default_factory=list)
    uniform: list[str] = field(default_factory=list)
    copies: list[list[str]] = field(default_factory=list)


def examine(data: SegmentationData) -> Examination:
    """Reads every image once."""
    found = Examination()
    same: dict[bytes, list[str]] = defaultdict(list)
    for split, pairs in data.splits.items():
        images, pixels = Counter[int](), Counter[int]()
        for place, name in enumerate(pairs.names):
            image, mask = (part[0].numpy() for part in pairs[[place]])
            where = f"{split}/{name}"
            found.sizes[mask.shape] += 1
            ids, counts = np.unique(mask, return_counts=True)
            pixels.update(dict(zip(ids.tolist(), counts.tolist(), strict=True)))
            classes = [int(i) for i in ids if i != IGNORE]
            images.update(classes)
            if not classes:
                found.unlabeled.append(where)
            elif len(classes) == 1:
                found.one_class[classes[0]].append(where)
            if image.min() == image.max():
                found.uniform.append(where)
            same[blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()].append(where)
        found.images[split], found.pixels[split] = images, pixels
    found.copies = [names for names in same.values() if len(names) > 1]
    return found


def oddities(found: Examination, data: SegmentationData) -> list[str]:
    """Returns a sentence for everything that a person should look at."""
    return [
        *_of_copies(found),
        *_of_single_classes(found, data),
        *_of_classes(found, data.classes),
        *_listed(found.unlabeled, "without a labeled pixel"),
        *_listed(found.uniform, "of one color, without a picture"),
    ]


def _of_copies(found: Examination) -> Iterator[str]:
    across = [names for names in found.copies if len({n.partition("/")[0] for n in names}) > 1]
    within = [names for names in found.copies if names not in across]
    for copies, where, why in (
        (across, "in several splits", "scores on them are too good; remove one of each"),
        (within, "twice in a split", "they count twice"),
    ):
        if copies:
            examples = "; ".join(" = ".join(names[:2]) for names in copies[:NAMED])
            more = f" and {len(copies) - NAMED} more" if len(copies) > NAMED else ""
            plural = "s are" if len(copies) > 1 else " is"
            yield f"{len(copies)} image{plural} {where} ({examples}{more}): {why}."


def _of_single_classes(found: Examination, data: SegmentationData) -> Iterator[str]:
    total = sum(len(split) for split in data.splits.values())
    for index, names in sorted(found.one_class.items()):
        if len(data.classes) > 1 and len(names) > total / 2:
            yield (
                f"{len(names)} of {total} masks hold nothing but '{data.classes[index]}'"
                f" ({_some(names)}): is dataset.mask_values right?"
            )


def _of_classes(found: Examination, classes: Sequence[str]) -> Iterator[str]:
    for index, name in enumerate(classes):
        missing = [split for split, images in found.images.items() if not images[index]]
        if len(missing) == len(found.images):
            yield f"no mask shows the class '{name}': its IoU cannot be computed."
        elif missing:
            remedy = " (dataset.stratify=true spreads classes evenly)" if "val" in missing else ""
            yield f"no mask of {' and '.join(missing)} shows the class '{name}'{remedy}."
        share = _share(found, "train", index)
        if 0 < share < TINY:
            yield (
                f"'{name}' has {100 * share:.2g} % of the labeled training pixels, in"
                f" {found.images['train'][index]} images: a network learns it last, if at all."
            )


def _share(found: Examination, split: str, index: int) -> float:
    """The share of a class among the labeled pixels of a split."""
    pixels = found.pixels[split]
    return pixels[index] / max(1, pixels.total() - pixels[IGNORE])


def _listed(names: Sequence[str], what: str) -> Iterator[str]:
    if names:
        yield f"{len(names)} image{'s' * (len(names) > 1)} {what}: {_some(names)}."


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


@dataclass(frozen=True)
class ClassRow:
    """A row of the table of classes.

    Attributes:
        shares: of the labeled pixels, per split.
        images: that show the class, per split.
    """

    name: str
    shares: dict[str, float]
    images: dict[str, int]


def class_rows(found: Examination, classes: Sequence[str]) -> list[ClassRow]:
    """Returns the table of classes."""
    return [
        ClassRow(
            name,
            {split: _share(found, split, index) for split in found.pixels},
            {split: images[index] for split, images in found.images.items()},
        )
        for index, name in enumerate(classes)
    ]


def size_text(sizes: Counter[tuple[int, int]]) -> str:
    """Returns the sizes of the images in words, as height x width."""
    if len(sizes) == 1:
        ((height, width),) = sizes
        return f"{height}x{width} (height x width)"
    areas = sorted(sizes.elements(), key=lambda size: size[0] * size[1])
    least, middle, most = (f"{h}x{w}" for h, w in (areas[0], areas[len(areas) // 2], areas[-1]))
    return f"{len(sizes)} sizes, from {least} to {most}, median {middle} (height x width)"
