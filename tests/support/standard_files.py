"""Tiny data sets in the files and formats of the real ones, as `seg_l1.data.standard` reads them.

Every writer returns what it wrote: official split -> list of (name, image array, mask array), the
mask as it is in the file.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from PIL import Image

Written = dict[str, list[tuple[str, np.ndarray, np.ndarray]]]
TRAIN, TEST = 10, 4
"""Pairs of the official training and test split, if not said otherwise."""


def write_mnist(root: Path, *, packed: bool = False, train: int = 30) -> Written:
    """idx files: magic number (type 8 = uint8, dimensions), big-endian sizes, bytes."""
    rng = np.random.default_rng(0)
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    written: Written = {}
    for split, prefix, count in (("train", "train", train), ("test", "t10k", 10)):
        images = np.zeros((count, 28, 28), dtype=np.uint8)
        images[:, 6:22, 8:20] = rng.integers(0, 256, (count, 16, 12))
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = np.array([8 * 256 + array.ndim, *array.shape], dtype=">u4").tobytes()
            content = header + array.tobytes()
            path = raw / f"{prefix}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
        written[split] = [
            (f"{split}_{index:05d}.png", image, label)
            for index, (image, label) in enumerate(zip(images, labels, strict=True))
        ]
    return written


def write_voc(root: Path) -> Written:
    """VOCdevkit/VOC2012: JPEGs, palette PNGs with 255 around every object, lists without suffix."""
    rng = np.random.default_rng(1)
    base = root / "VOCdevkit" / "VOC2012"
    lists = base / "ImageSets" / "Segmentation"
    for folder in (base / "JPEGImages", base / "SegmentationClass", lists):
        folder.mkdir(parents=True)
    written: Written = {}
    for split, count, first in (("train", TRAIN, 0), ("val", TEST, 500)):
        written[split] = []
        for index in range(count):
            name = f"2007_{first + index:06d}"
            mask = _boxed(rng, (20 + index, 30), 1 + index % 20, around=255)
            image = _save_jpeg(rng, base / "JPEGImages" / f"{name}.jpg", mask.shape)
            _save_palette(mask, base / "SegmentationClass" / f"{name}.png")
            written[split].append((f"{name}.jpg", image, mask))
        names = [Path(name).stem for name, _, _ in written[split]]
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return written


def write_sbd(root: Path, voc: Written) -> Written:
    """sbd/img, sbd/cls with the struct GTcls in each .mat, and the list train_noval.txt.

    Besides three images of its own it has one of VOC's train and one of VOC's val.
    """
    from scipy.io import savemat

    rng = np.random.default_rng(2)
    base = root / "sbd"
    for folder in ("img", "cls"):
        (base / folder).mkdir(parents=True)
    names = [f"2008_{index:06d}" for index in range(3)]
    names += [Path(voc[split][0][0]).stem for split in ("train", "val")]
    written = []
    for index, name in enumerate(names):
        mask = _boxed(rng, (24, 28), 1 + index)
        image = _save_jpeg(rng, base / "img" / f"{name}.jpg", mask.shape)
        truth = {
            "Boundaries": np.zeros((20, 1), dtype=object),
            "Segmentation": mask,
            "CategoriesPresent": np.array([[1 + index]], dtype=np.uint8),
        }
        savemat(base / "cls" / f"{name}.mat", {"GTcls": truth})
        written.append((f"{name}.jpg", image, mask))
    (base / "train_noval.txt").write_text("".join(f"{name}\n" for name in names))
    return {"train_noval": written}


def write_oxford_pet(root: Path) -> Written:
    """oxford-iiit-pet: images, trimaps (1 pet, 2 background, 3 border), lists with four columns."""
    rng = np.random.default_rng(3)
    base = root / "oxford-iiit-pet"
    notes = base / "annotations"
    for folder in (base / "images", notes / "trimaps"):
        folder.mkdir(parents=True)
    breeds = [("Abyssinian", 1, 1, 1), ("beagle", 2, 2, 1)]
    written: Written = {}
    lines: list[str] = []
    for split, count, first in (("trainval", TRAIN, 1), ("test", TEST, 101)):
        written[split], rows = [], []
        for index in range(count):
            breed, *ids = breeds[index % 2]
            name = f"{breed}_{first + index}"
            mask = _boxed(rng, (26, 22 + index), 1, around=3, background=2)
            image = _save_jpeg(rng, base / "images" / f"{name}.jpg", mask.shape)
            Image.fromarray(mask).save(notes / "trimaps" / f"{name}.png")
            written[split].append((f"{name}.jpg", image, mask))
            rows.append(" ".join(map(str, [name, *ids])) + "\n")
        (notes / f"{split}.txt").write_text("".join(rows))
        lines += rows
    (notes / "list.txt").write_text("#Image CLASS-ID SPECIES BREED ID\n" + "".join(lines))
    return written


def write_cityscapes(root: Path) -> Written:
    """leftImg8bit and gtFine: <split>/<city>/<city>_<sequence>_<frame>_<kind>.png and polygons."""
    rng = np.random.default_rng(4)
    cities = {"train": ["aachen", "bremen", "ulm"], "val": ["munster"], "test": ["berlin"]}
    written: Written = {}
    for split, names in cities.items():
        written[split] = []
        for city in names:
            images, truth = root / "leftImg8bit" / split / city, root / "gtFine" / split / city
            images.mkdir(parents=True)
            truth.mkdir(parents=True)
            for frame in range(4):
                stem = f"{city}_000000_{frame:06d}"
                mask = _boxed(rng, (24, 48), 24 + frame, around=4, background=7)
                mask[:2] = 33 if frame else 23
                image = rng.integers(0, 256, (24, 48, 3), dtype=np.uint8)
                Image.fromarray(image).save(images / f"{stem}_leftImg8bit.png")
                Image.fromarray(mask).save(truth / f"{stem}_gtFine_labelIds.png")
                Image.fromarray(mask.astype(np.uint16)).save(
                    truth / f"{stem}_gtFine_instanceIds.png"
                )
                Image.fromarray(image).save(truth / f"{stem}_gtFine_color.png")
                (truth / f"{stem}_gtFine_polygons.json").write_text('{"objects": []}')
                written[split].append((f"{stem}_leftImg8bit.png", image, mask))
    return written


WRITERS = {
    "mnist": write_mnist,
    "voc": write_voc,
    "oxford_pet": write_oxford_pet,
    "cityscapes": write_cityscapes,
}


def _boxed(
    rng: np.random.Generator,
    size: tuple[int, int],
    value: int,
    *,
    around: int | None = None,
    background: int = 0,
) -> np.ndarray:
    """A mask with a box of `value` in it, and one pixel of `around` around that."""
    mask = np.full(size, background, dtype=np.uint8)
    top, left = rng.integers(1, size[0] - 10), rng.integers(1, size[1] - 10)
    if around is not None:
        mask[top - 1 : top + 9, left - 1 : left + 9] = around
    mask[top : top + 8, left : left + 8] = value
    return mask


def _save_jpeg(rng: np.random.Generator, path: Path, size: tuple[int, ...]) -> np.ndarray:
    """Saves noise; returns it as it is after the losses of JPEG."""
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    with Image.open(path) as picture:
        return np.array(picture)


def _save_palette(mask: np.ndarray, path: Path) -> None:
    """A PNG of mode P whose colours are not the class ids, as in Pascal VOC."""
    picture = Image.fromarray(mask)
    picture.putpalette([(37 * index) % 256 for index in range(768)])
    picture.save(path)


def write_masks(root: Path, size: tuple[int, int]) -> None:
    """Writes four masks of two classes into masks/, and makes images/, which is empty."""
    (root / "images").mkdir()
    (root / "masks").mkdir()
    for index in range(4):
        mask = np.zeros(size, np.uint8)
        mask[: 4 + index] = 1
        Image.fromarray(mask).save(root / f"masks/{index}.png")


def write_pairs(root: Path, count: int, size: tuple[int, int] = (20, 30)) -> None:
    """Writes images/*.png and masks/*.png of (height, width) `size`."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for index in range(count):
        mask = np.zeros(size, dtype=np.uint8)
        top, left = rng.integers(0, size[0] - 8), rng.integers(0, size[1] - 8)
        mask[top : top + 8, left : left + 8] = 1
        image = rng.integers(0, 100, (*size, 3), dtype=np.uint8) + 120 * mask[..., None]
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"{index:03d}.png")
        Image.fromarray(mask).save(root / "masks" / f"{index:03d}.png")
