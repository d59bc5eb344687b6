"""Data sets of the literature, through `torchvision.datasets` with its downloads and checksums.

| name | train and val | test | classes |
|---|---|---|---|
| `mnist` | drawn from the official train | official test | background and ten digits |
| `voc` | drawn from the official train (and SBD) | official val | background and 20 objects |
| `oxford_pet` | drawn from the official trainval | official test | background, pet (, border) |
| `cityscapes` | cities drawn from the official train | official val | 19 |

The test labels of Pascal VOC and Cityscapes are not public. The further `options` of all loaders
are the fields of `official.Official`.

All raise UserError: if files are missing or damaged (naming them, and where they belong), if a
download fails, if a value does not fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torchvision.datasets import MNIST, Cityscapes, OxfordIIITPet, SBDataset, VOCSegmentation
from torchvision.datasets.voc import DATASET_YEAR_DICT

from seg_l1.data.labels import IGNORE
from seg_l1.data.official import Official, Pairs, paired
from seg_l1.data.split import SegmentationData, TensorSplit, class_pixels, describe
from seg_l1.errors import UserError

VOC_CLASSES = [
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair"),
    *("cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
]


def mnist(
    *, image_size: Sequence[int] | None = (32, 32), threshold: float = 0.5, **options: Any
) -> SegmentationData:
    """MNIST (LeCun et al. 1998) with a class per pixel: 1 + d where the digit d has ink, else 0.

    The images are grayscale, 28x28, and normalized to (x - 0.5)/0.5. They are held in memory, as in
    torchvision.

    Args:
        image_size: (H, W); the digits are padded with background on all sides. None = 28x28.
        threshold: ink, from 0 to 1, above which a pixel belongs to the digit.
    """
    source = Official(image_size=image_size, **options)
    classes = ["background", *map(str, range(10))]
    source.check_classes(classes)
    height, width = image_size or (28, 28)
    if min(height, width) < 28:
        raise UserError(f"dataset.image_size: got {[height, width]}, expected at least [28, 28]")
    raw = source.folder / "MNIST/raw"
    needed = [f"MNIST/raw/{Path(name).stem}" for name, _ in MNIST.resources]
    how = f"unpack the four .gz files of {MNIST.mirrors[0]} into {raw}"

    def read(split: str) -> TensorSplit:
        def make(fetch: bool) -> tuple[Tensor, Tensor]:
            official = MNIST(source.folder, train=split == "train", download=fetch)
            shape = (len(official.targets), 28, 28)
            if tuple(official.data.shape) != shape or official.targets.max() > 9:
                raise ValueError("images and labels do not fit together")
            return official.data, official.targets

        ink, digits = source.obtain(make, needed, how)
        top, left = (height - 28) // 2, (width - 28) // 2
        ink = pad(ink, (left, width - 28 - left, top, height - 28 - top))
        labels = (1 + digits).to(torch.uint8).view(-1, 1, 1)
        names = [f"{split}_{index:05d}.png" for index in range(len(ink))]
        return TensorSplit(ink[:, None], labels * (ink > 255 * threshold), names)

    whole, test = read("train"), read("test")
    counts = [class_pixels(masks, len(classes)) for masks in whole.masks.split(1024)]
    indices = source.draw(whole.names, torch.cat(counts).numpy() > 0)
    splits = {part: whole.subset(chosen) for part, chosen in indices.items()}
    data = describe({**splits, "test": test}, classes)
    return replace(data, mean=[0.5], std=[0.5], indices=indices, resize_mode="pad")


def voc(
    *, image_size: Sequence[int] | None = (256, 256), extra: str | None = None, **options: Any
) -> SegmentationData:
    """Pascal VOC 2012 segmentation (Everingham et al. 2010): 21 classes, borders not labeled.

    Args:
        extra: "sbd" adds the images of the list train_noval.txt of SBD (Hariharan et al. 2011) to
            those that are split into train and val, except images of VOC's own train or val.
    """
    source = Official(image_size=image_size, **options)
    source.check_classes(VOC_CLASSES)
    how = f"unpack {DATASET_YEAR_DICT['2012']['url']} into {source.folder}"

    def read(split: str) -> Pairs:
        def make(fetch: bool) -> Pairs:
            official = VOCSegmentation(source.folder, image_set=split, download=fetch)
            return paired(official.images, official.masks)

        inside = ("JPEGImages", "SegmentationClass", f"ImageSets/Segmentation/{split}.txt")
        return source.obtain(make, [f"VOCdevkit/VOC2012/{name}" for name in inside], how)

    train, test = read("train"), read("val")
    if extra is not None:
        own = {image.stem for image, _ in train + test}
        train += [pair for pair in _read_sbd(source) if pair[0].stem not in own]
    class_of = {index: index for index in range(len(VOC_CLASSES))}
    return source.assemble(train, test, VOC_CLASSES, class_of)


def _read_sbd(source: Official) -> Pairs:
    folder = source.folder / "sbd"

    def make(fetch: bool) -> Pairs:
        fetch = fetch and not (folder / "cls").exists()  # torchvision overwrites nothing
        official = SBDataset(str(folder), "train_noval", "segmentation", download=fetch)
        return paired(official.images, official.masks)

    links = f"{SBDataset.url} and the list {SBDataset.voc_train_url}"
    needed = ["sbd/img", "sbd/cls", "sbd/train_noval.txt"]
    return source.obtain(make, needed, f"put img and cls of {links} into {folder}")


def oxford_pet(
    *, image_size: Sequence[int] | None = (128, 128), border: str = "ignore", **options: Any
) -> SegmentationData:
    """Oxford-IIIT Pet (Parkhi et al. 2012): the trimaps of 37 breeds of cats and dogs.

    Args:
        border: the class of the pixels between pet and background: "ignore" (not labeled) or
            "class" (one of their own).
    """
    source = Official(image_size=image_size, **options)
    classes = ["background", "pet", "border"][: 3 if border == "class" else 2]
    source.check_classes(classes)
    how = (
        "unpack images.tar.gz and annotations.tar.gz of https://www.robots.ox.ac.uk/~vgg/data/pets"
        f" into {source.folder / 'oxford-iiit-pet'}"
    )

    def read(split: str) -> Pairs:
        def make(fetch: bool) -> Pairs:
            official = OxfordIIITPet(source.folder, split, "segmentation", download=fetch)
            return paired(official._images, official._segs)

        inside = ("images", "annotations/trimaps", f"annotations/{split}.txt")
        return source.obtain(make, [f"oxford-iiit-pet/{name}" for name in inside], how)

    class_of = {2: 0, 1: 1, 3: 2 if border == "class" else IGNORE}
    return source.assemble(read("trainval"), read("test"), classes, class_of)


def cityscapes(
    *,
    image_size: Sequence[int] | None = (256, 512),
    group_pattern: str | None = "^([^_]+)_",
    download: bool = False,
    **options: Any,
) -> SegmentationData:
    """Cityscapes (Cordts et al. 2016), fine labels: the 19 classes of its benchmark.

    Args:
        group_pattern: by default it finds the city.
        download: has no effect: the license asks for a registration.
    """
    source = Official(image_size=image_size, group_pattern=group_pattern, download=None, **options)
    class_of = {entry.id: entry.train_id for entry in Cityscapes.classes if entry.id >= 0}
    name_of = {entry.train_id: entry.name for entry in Cityscapes.classes}
    classes = [name_of[index] for index in range(19)]
    source.check_classes(classes)
    how = (
        "there is no download: register at https://www.cityscapes-dataset.com, and put"
        " leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, unpacked or not, into"
        f" {source.folder}"
    )

    def read(split: str) -> Pairs:
        def make(_: bool) -> Pairs:
            official = Cityscapes(source.folder, split, "fine", "semantic")
            return sorted(paired(official.images, [mask for (mask,) in official.targets]))

        return source.obtain(make, [f"{kind}/{split}" for kind in ("leftImg8bit", "gtFine")], how)

    return source.assemble(read("train"), read("val"), classes, class_of)
