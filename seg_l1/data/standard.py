"""Data sets of the literature, through `torchvision.datasets` with its downloads and checksums.

| name | train and val | test | classes |
|---|---|---|---|
| `mnist` | drawn from the official train | official test | background and ten digits |
| `voc` | drawn from the official train (and SBD) | official val | background and 20 objects |
| `oxford_pet` | drawn from the official trainval | official test | background, pet (, border) |
| `cityscapes` | cities drawn from the official train | official val | 19 |

The test labels of Pascal VOC and Cityscapes are not public. What all loaders take:

* root: the folder that holds the files, as torchvision lays them out.
* download: fetch what is missing; what is there is not fetched again.
* num_classes: null, or the number of classes, which is checked.
* image_size: (H, W) to which everything is resized; null = every image keeps its own size.
* val_fraction: share of the official training images that is drawn as validation.
* memory_mib: a data set up to this size is held in memory, if it has an image_size.
* seed, group_pattern, stratify: how it is drawn, see `partition.partition`.

All raise UserError: if files are missing or damaged (naming them, and where they belong), if a
download fails, if a value does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from seg_l1.data.files import FileSplit, assemble, file_split, lookup_table
from seg_l1.data.partition import draw
from seg_l1.data.split import IGNORE, SegmentationData, TensorSplit, class_pixels, describe
from seg_l1.errors import UserError

Pairs = list[tuple[Path, Path]]
"""The files of image and mask."""
Source = TypeVar("Source")

VOC_CLASSES = [
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
]


def mnist(
    *,
    root: str,
    download: bool = False,
    num_classes: int | None = None,
    image_size: Sequence[int] | None = (32, 32),
    threshold: float = 0.5,
    val_fraction: float = 0.1,
    seed: int = 0,
    group_pattern: str | None = None,
    stratify: bool = False,
) -> SegmentationData:
    """MNIST (LeCun et al. 1998) with a class per pixel: 1 + d where the digit d has ink, else 0.

    The images are grey, 28x28, and normalised to (x - 0.5)/0.5. They are held in memory, as in
    torchvision.

    Args:
        image_size: (H, W); the digits are padded with background on all sides. null = 28x28.
        threshold: from how much ink on, of 1, a pixel belongs to the digit (more than that).
    """
    from torchvision.datasets import MNIST

    classes = ["background", *map(str, range(10))]
    _check_classes(num_classes, classes)
    height, width = image_size or (28, 28)
    if min(height, width) < 28:
        raise UserError(f"dataset.image_size: got {[height, width]}, expected at least [28, 28]")
    folder = Path(root).expanduser()
    raw = [f"MNIST/raw/{Path(name).stem}" for name, _ in MNIST.resources]
    how = f"unpack the four .gz files of {MNIST.mirrors[0]} into {folder / 'MNIST/raw'}"

    def read(split: str) -> TensorSplit:
        def make(fetch: bool) -> tuple[Tensor, Tensor]:
            source = MNIST(folder, train=split == "train", download=fetch)
            shape = (len(source.targets), 28, 28)
            if tuple(source.data.shape) != shape or source.targets.max() > 9:
                raise ValueError("images and labels do not fit together")
            return source.data, source.targets

        ink, digits = _obtain(make, folder, raw, how, download=download)
        top, left = (height - 28) // 2, (width - 28) // 2
        ink = pad(ink, (left, width - 28 - left, top, height - 28 - top))
        labels = (1 + digits).to(torch.uint8).view(-1, 1, 1)
        names = [f"{split}_{index:05d}.png" for index in range(len(ink))]
        return TensorSplit(ink[:, None], labels * (ink > 255 * threshold), names)

    whole, test = read("train"), read("test")
    counts = [class_pixels(masks, len(classes)) for masks in whole.masks.split(1024)]
    presence = torch.cat(counts).numpy() > 0
    indices = _drawn(val_fraction, seed, group_pattern, stratify)(whole.names, presence)
    splits = {part: whole.subset(chosen) for part, chosen in indices.items()}
    data = describe({**splits, "test": test}, classes, notes=[])
    return replace(data, mean=[0.5], std=[0.5], indices=indices, resize_mode="pad")


def voc(
    *,
    root: str,
    download: bool = False,
    extra: str | None = None,
    num_classes: int | None = None,
    image_size: Sequence[int] | None = (256, 256),
    val_fraction: float = 0.1,
    memory_mib: float = 2048,
    seed: int = 0,
    group_pattern: str | None = None,
    stratify: bool = False,
) -> SegmentationData:
    """Pascal VOC 2012 segmentation (Everingham et al. 2010): 21 classes, borders not labelled.

    Args:
        extra: "sbd" adds the images of the list train_noval.txt of SBD (Hariharan et al. 2011) to
            those that are split into train and val; an image of VOC's own train or val is left
            out.
    """
    from torchvision.datasets import SBDataset, VOCSegmentation
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    _check_classes(num_classes, VOC_CLASSES)
    folder = Path(root).expanduser()

    def official(split: str) -> Pairs:
        def make(fetch: bool) -> Pairs:
            source = VOCSegmentation(folder, image_set=split, download=fetch)
            return _paired(source.images, source.masks)

        inside = ("JPEGImages", "SegmentationClass", f"ImageSets/Segmentation/{split}.txt")
        needed = [f"VOCdevkit/VOC2012/{name}" for name in inside]
        how = f"unpack {DATASET_YEAR_DICT['2012']['url']} into {folder}"
        return _obtain(make, folder, needed, how, download=download)

    def sbd(fetch: bool) -> Pairs:
        fetch = (
            fetch and not (folder / "sbd/cls").exists()
        )  # it does not download over what is there
        source = SBDataset(folder / "sbd", "train_noval", "segmentation", download=fetch)
        return _paired(source.images, source.masks)

    train, test = official("train"), official("val")
    if extra is not None:
        known = {image.stem for image, _ in train + test}
        needed = ["sbd/img", "sbd/cls", "sbd/train_noval.txt"]
        how = (
            f"put img and cls of {SBDataset.url} and the list {SBDataset.voc_train_url}"
            f" into {folder / 'sbd'}"
        )
        more = _obtain(sbd, folder, needed, how, download=download)
        train += [pair for pair in more if pair[0].stem not in known]
    lookup = lookup_table({index: index for index in range(len(VOC_CLASSES))})
    sources = _sources(folder, train, test, image_size, lookup)
    drawn = _drawn(val_fraction, seed, group_pattern, stratify)
    return assemble(sources, VOC_CLASSES, drawn, memory_mib=memory_mib)


def oxford_pet(
    *,
    root: str,
    download: bool = False,
    border: str = "ignore",
    num_classes: int | None = None,
    image_size: Sequence[int] | None = (128, 128),
    val_fraction: float = 0.1,
    memory_mib: float = 2048,
    seed: int = 0,
    group_pattern: str | None = None,
    stratify: bool = False,
) -> SegmentationData:
    """Oxford-IIIT Pet (Parkhi et al. 2012): the trimaps of 37 breeds of cats and dogs.

    Args:
        border: what becomes of the pixels between pet and background: "ignore" (not labelled) or
            "class".
    """
    from torchvision.datasets import OxfordIIITPet

    classes = ["background", "pet", "border"][: 3 if border == "class" else 2]
    _check_classes(num_classes, classes)
    folder = Path(root).expanduser()
    how = (
        "unpack images.tar.gz and annotations.tar.gz of https://www.robots.ox.ac.uk/~vgg/data/pets"
        f" into {folder / 'oxford-iiit-pet'}"
    )

    def official(split: str) -> Pairs:
        def make(fetch: bool) -> Pairs:
            source = OxfordIIITPet(folder, split, "segmentation", download=fetch)
            return _paired(source._images, source._segs)

        inside = ("images", "annotations/trimaps", f"annotations/{split}.txt")
        needed = [f"oxford-iiit-pet/{name}" for name in inside]
        return _obtain(make, folder, needed, how, download=download)

    lookup = lookup_table({2: 0, 1: 1, 3: 2 if border == "class" else IGNORE})
    sources = _sources(folder, official("trainval"), official("test"), image_size, lookup)
    drawn = _drawn(val_fraction, seed, group_pattern, stratify)
    return assemble(sources, classes, drawn, memory_mib=memory_mib)


def cityscapes(
    *,
    root: str,
    download: bool = False,
    num_classes: int | None = None,
    image_size: Sequence[int] | None = (256, 512),
    val_fraction: float = 0.1,
    memory_mib: float = 2048,
    seed: int = 0,
    group_pattern: str | None = "^([^_]+)_",
    stratify: bool = False,
) -> SegmentationData:
    """Cityscapes (Cordts et al. 2016), fine labels: the 19 classes of its benchmark.

    Its licence asks for a registration, so there is no download, and `download` has no effect.
    `group_pattern` finds the city.
    """
    from torchvision.datasets import Cityscapes

    table = {entry.id: entry.train_id for entry in Cityscapes.classes if entry.id >= 0}
    name_of = {entry.train_id: entry.name for entry in Cityscapes.classes}
    classes = [name_of[index] for index in range(19)]
    _check_classes(num_classes, classes)
    folder = Path(root).expanduser()
    how = (
        "there is no download: register at https://www.cityscapes-dataset.com, and put"
        f" leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, unpacked or not, into {folder}"
    )

    def official(split: str) -> Pairs:
        def make(_: bool) -> Pairs:
            source = Cityscapes(folder, split, "fine", "semantic")
            return sorted(_paired(source.images, [mask for (mask,) in source.targets]))

        needed = [f"{kind}/{split}" for kind in ("leftImg8bit", "gtFine")]
        return _obtain(make, folder, needed, how, download=None)

    sources = _sources(folder, official("train"), official("val"), image_size, lookup_table(table))
    drawn = _drawn(val_fraction, seed, group_pattern, stratify)
    return assemble(sources, classes, drawn, memory_mib=memory_mib)


def _drawn(
    val_fraction: float, seed: int, group_pattern: str | None, stratify: bool
) -> Callable[..., dict[str, list[int]]]:
    return partial(
        draw,
        fractions={"val": val_fraction},
        seed=seed,
        group_pattern=group_pattern,
        stratify=stratify,
    )


def _sources(
    folder: Path, train: Pairs, test: Pairs, image_size: Sequence[int] | None, lookup: np.ndarray
) -> dict[str, FileSplit]:
    """What `assemble` takes; torchvision heeds no orientation that a camera wrote, nor do we."""
    return {
        split: file_split(folder, pairs, image_size, lookup, upright=False)
        for split, pairs in {"train": train, "test": test}.items()
    }


def _check_classes(num_classes: int | None, classes: list[str]) -> None:
    if num_classes not in (None, len(classes)):
        raise UserError(f"dataset.num_classes: got {num_classes}, expected {len(classes)}")


def _paired(images: Sequence[str | Path], masks: Sequence[str | Path]) -> Pairs:
    """Pairs of files that are there; an interrupted download leaves lists without their files."""
    pairs = [(Path(image), Path(mask)) for image, mask in zip(images, masks, strict=True)]
    missing = [path for pair in pairs for path in pair if not path.is_file()]
    if missing:
        more = f" ({len(missing)} files in all)" if len(missing) > 1 else ""
        raise FileNotFoundError(f"{missing[0]} is missing{more}")
    if not pairs:
        raise ValueError("no images are listed")
    return pairs


def _obtain(
    make: Callable[[bool], Source],
    folder: Path,
    needed: Sequence[str],
    how: str,
    *,
    download: bool | None,
) -> Source:
    """Returns make(False), or make(True) where `needed` is missing and `download` is on.

    Args:
        make: builds torchvision's data set; True lets it download.
        needed: what must lie below `folder`.
        how: how a person gets the files, as the end of a sentence.
        download: None where there is none.

    Raises:
        UserError: in place of whatever torchvision raises.
    """

    def missing() -> str:
        return ", ".join(name for name in needed if not (folder / name).exists())

    fetch = bool(download and missing())
    try:
        return make(fetch)
    except Exception as error:
        lacking, reason = missing(), " ".join(str(error).split()) or type(error).__name__
        absent = not lacking and isinstance(error, FileNotFoundError)
        told = f"{folder} lacks {lacking}" if lacking else f"{folder} cannot be read"
        if not lacking or not reason.startswith(("Dataset not found", "[Errno 2]")):
            told += f" ({reason})"
        told = reason if absent else told
        remedy = how if lacking or absent else f"remove what is damaged; then {how}"
        if download is False:
            remedy += ", or give dataset.download=true"
        key = "dataset.download: failed;" if fetch else "dataset.root:"
        raise UserError(f"{key} {told}.\n{remedy[0].upper()}{remedy[1:]}.") from error
