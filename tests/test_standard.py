"""The data sets of the literature, from tiny files in the formats of the real ones."""

from __future__ import annotations

import hashlib
import tarfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seg_l1.data import standard
from seg_l1.data.files import FileSplit
from seg_l1.data.split import TensorSplit
from seg_l1.errors import UserError
from tests.support.runs import runs
from tests.support.standard_files import WRITERS, write_mnist, write_sbd, write_voc

OFFICIAL = {
    "mnist": ("train", "test"),
    "voc": ("train", "val"),
    "oxford_pet": ("trainval", "test"),
    "cityscapes": ("train", "val"),
}
"""Where train and val are drawn from, and what is the test split."""
CLASS_OF = {
    "voc": {value: value for value in [*range(21), 255]},
    "oxford_pet": {1: 1, 2: 0, 3: 255},
    "cityscapes": {4: 255, 7: 0, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 33: 18},
}
"""Class of a mask value, from the documentation of each data set."""
FILES = sorted(CLASS_OF)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Nothing may be fetched: every attempt is counted, and fails as it does without a network."""
    attempts = []

    def refuse(request, *_, **__):
        attempts.append(request.full_url)
        raise urllib.error.URLError("network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return attempts


def load(name, root, **more):
    return getattr(standard, name)(root=str(root), **{"val_fraction": 0.3, **more})


def pairs(data, split):
    """name without folders -> (image (H, W, C), mask (H, W)) as numpy arrays."""
    held = data.splits[split]
    read = [held[[index]] for index in range(len(held))]
    return {
        Path(name).name: (images[0].permute(1, 2, 0).numpy(), masks[0].numpy())
        for name, (images, masks) in zip(held.names, read, strict=True)
    }


def classes_of(name, mask):
    return np.vectorize(CLASS_OF[name].__getitem__, otypes=[np.uint8])(mask)


@pytest.mark.parametrize("name", FILES)
def test_images_and_labels_are_those_that_were_written(name, tmp_path):
    written = WRITERS[name](tmp_path)
    data = load(name, tmp_path, image_size=None)
    train, test = (written[split] for split in OFFICIAL[name])
    assert set(data.splits) == {"train", "val", "test"}
    got = {split: pairs(data, split) for split in data.splits}
    assert not got["train"].keys() & got["val"].keys()
    for expected, found in ((train, got["train"] | got["val"]), (test, got["test"])):
        assert {row[0] for row in expected} == found.keys()
        for file, image, mask in expected:
            assert np.array_equal(found[file][0], image)
            assert np.array_equal(found[file][1], classes_of(name, mask))


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_train_and_val_are_drawn_from_the_official_listing(name, tmp_path):
    written = WRITERS[name](tmp_path)
    data, again = load(name, tmp_path), load(name, tmp_path)
    listing = [row[0] for row in written[OFFICIAL[name][0]]]
    assert set(data.indices) == {"train", "val"}
    assert sorted(data.indices["train"] + data.indices["val"]) == list(range(len(listing)))
    for split, positions in data.indices.items():
        named = [Path(path).name for path in data.splits[split].names]
        assert named == [listing[position] for position in positions]
    assert (data.indices, data.fingerprint) == (again.indices, again.fingerprint)
    others = [load(name, tmp_path, seed=seed).indices for seed in range(1, 5)]
    assert any(other != data.indices for other in others)


def test_cityscapes_are_split_by_city(tmp_path):
    WRITERS["cityscapes"](tmp_path)
    for seed in range(4):
        data = load("cityscapes", tmp_path, seed=seed, image_size=(8, 8))
        names = {split: held.names for split, held in data.splits.items()}
        cities = {split: {Path(n).name.split("_")[0] for n in names[split]} for split in names}
        assert {split: len(found) for split, found in cities.items()} == {
            "train": 2, "val": 1, "test": 1
        }  # fmt: skip
        assert len(set.union(*cities.values())) == 4
    assert (data.classes[0], data.classes[13], data.classes[18]) == ("road", "car", "bicycle")


@pytest.mark.parametrize("name", FILES)
def test_own_sizes_are_padded_to_the_largest_of_the_batch(name, tmp_path):
    written = {row[0]: row[1:] for row in WRITERS[name](tmp_path)[OFFICIAL[name][1]]}
    test = load(name, tmp_path, image_size=None).splits["test"]
    assert isinstance(test, FileSplit)
    assert test.image_size is None
    images, masks = test[[0, 2]]
    expected = [written[Path(test.names[index]).name] for index in (0, 2)]
    height, width = (max(mask.shape[axis] for _, mask in expected) for axis in (0, 1))
    assert images.shape == (2, 3, height, width)
    for got_image, got_mask, (image, mask) in zip(images, masks, expected, strict=True):
        canvas = np.zeros((height, width, 3), dtype=np.uint8)
        labels = np.full((height, width), 255, dtype=np.uint8)
        canvas[: mask.shape[0], : mask.shape[1]] = image
        labels[: mask.shape[0], : mask.shape[1]] = classes_of(name, mask)
        assert np.array_equal(got_image.permute(1, 2, 0).numpy(), canvas)
        assert np.array_equal(got_mask.numpy(), labels)
    part = test.subset([2])
    assert torch.equal(part[[0]][0], test[[2]][0])
    assert part.names == [test.names[2]]


@pytest.mark.parametrize("name", FILES)
def test_too_large_for_memory_is_read_from_disk_and_the_same(name, tmp_path):
    WRITERS[name](tmp_path)
    held = load(name, tmp_path, image_size=(16, 24))
    read = load(name, tmp_path, image_size=(16, 24), memory_mib=0)
    for split in held.splits:
        assert isinstance(held.splits[split], TensorSplit)
        assert isinstance(read.splits[split], FileSplit)
        assert held.splits[split].image_size == read.splits[split].image_size == (16, 24)
        assert torch.equal(held.splits[split][[1, 0]][0], read.splits[split][[1, 0]][0])
        assert torch.equal(held.splits[split][[1, 0]][1], read.splits[split][[1, 0]][1])
    assert held.fingerprint == read.fingerprint


@pytest.mark.parametrize(
    ("size", "threshold"), [((32, 32), 0.5), (None, 0.0), ((35, 33), 0.9)], ids=str
)
def test_mnist_pixels_with_ink_have_the_class_of_their_digit(size, threshold, tmp_path):
    written = write_mnist(tmp_path)
    data = load("mnist", tmp_path, image_size=size, threshold=threshold)
    assert (data.classes, data.mean, data.std) == (
        ["background", *"0123456789"], [0.5], [0.5]
    )  # fmt: skip
    got = pairs(data, "train") | pairs(data, "val") | pairs(data, "test")
    assert len(got) == len(written["train"]) + len(written["test"])
    height, width = size or (28, 28)
    top, left = (height - 28) // 2, (width - 28) // 2
    for name, ink, digit in written["train"] + written["test"]:
        image = np.zeros((height, width), dtype=np.uint8)
        image[top : top + 28, left : left + 28] = ink
        assert np.array_equal(got[name][0][..., 0], image)
        assert np.array_equal(got[name][1], np.where(image / 255 > threshold, 1 + digit, 0))


def test_mnist_can_be_stratified_by_digit(tmp_path):
    written = write_mnist(tmp_path, train=40)
    data = load("mnist", tmp_path, val_fraction=0.25, stratify=True)
    digits = [int(written["train"][index][2]) for index in data.indices["val"]]
    assert sorted(digits) == list(range(10))


def test_pet_borders_are_a_class_if_so_asked(tmp_path):
    written = WRITERS["oxford_pet"](tmp_path)
    data = load("oxford_pet", tmp_path, border="class", image_size=None, num_classes=3)
    assert data.classes == ["background", "pet", "border"]
    assert data.unlabeled == 0
    got = pairs(data, "test")
    for name, _, mask in written["test"]:
        assert np.array_equal(got[name][1], np.array([9, 1, 0, 2])[mask])


def test_pets_can_be_grouped_by_breed(tmp_path):
    WRITERS["oxford_pet"](tmp_path)
    data = load("oxford_pet", tmp_path, group_pattern=r"^(.+)_\d+", val_fraction=0.5)
    breeds = {s: {Path(n).name.split("_")[0] for n in data.splits[s].names} for s in data.indices}
    assert sorted(map(sorted, breeds.values())) == [["Abyssinian"], ["beagle"]]


def test_sbd_adds_its_masks_to_train_and_none_of_vocs_own_images(tmp_path):
    voc = write_voc(tmp_path)
    extra = write_sbd(tmp_path, voc)["train_noval"]
    data = load("voc", tmp_path, extra="sbd", image_size=None)
    got = pairs(data, "train") | pairs(data, "val")
    assert got.keys() == {row[0] for row in voc["train"] + extra[:3]}
    assert pairs(data, "test").keys() == {row[0] for row in voc["val"]}
    for name, image, mask in extra[:3] + voc["train"][:1]:
        assert np.array_equal(got[name][0], image)
        assert np.array_equal(got[name][1], mask)


def test_the_orientation_that_a_camera_wrote_is_not_heeded_as_in_torchvision(tmp_path):
    name, image, mask = write_voc(tmp_path)["val"][0]
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    bright = np.full_like(image, 200)
    bright[:5] = 10
    Image.fromarray(bright).save(
        tmp_path / "VOCdevkit" / "VOC2012" / "JPEGImages" / name, exif=exif, quality=95
    )
    got_image, got_mask = pairs(load("voc", tmp_path, image_size=None), "test")[name]
    assert np.abs(got_image.astype(int) - bright).mean() < 3
    assert np.array_equal(got_mask, mask)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_another_number_of_classes_is_refused(name, tmp_path):
    WRITERS[name](tmp_path)
    with pytest.raises(UserError, match=r"dataset\.num_classes: got 5, expected \d+"):
        load(name, tmp_path, num_classes=5)


def test_mnist_does_not_fit_into_fewer_pixels(tmp_path):
    with pytest.raises(UserError, match=r"dataset\.image_size: got \[24, 32\]"):
        load("mnist", tmp_path, image_size=(24, 32))


LACKING = {
    "mnist": ["MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/t10k-labels-idx1-ubyte"],
    "voc": ["VOCdevkit/VOC2012/JPEGImages", "VOCtrainval_11-May-2012.tar"],
    "oxford_pet": ["oxford-iiit-pet/images", "annotations.tar.gz"],
    "cityscapes": ["leftImg8bit/train", "gtFine_trainvaltest.zip", "no download: register"],
}


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_missing_files_are_named_with_their_place(name, tmp_path, offline):
    with pytest.raises(UserError) as caught:
        load(name, tmp_path / "nowhere")
    text = str(caught.value)
    assert text.startswith("dataset.root: ")
    assert text.count("\n") == 1
    assert all(word.lower() in text.lower() for word in [*LACKING[name], str(tmp_path)])
    assert ("dataset.download=true" in text) == (name != "cityscapes")
    assert offline == []


def test_cityscapes_says_that_it_cannot_be_downloaded(tmp_path, offline):
    with pytest.raises(UserError, match="There is no download: register at"):
        load("cityscapes", tmp_path, download=True)
    WRITERS["cityscapes"](tmp_path)
    assert load("cityscapes", tmp_path, download=True)
    assert offline == []


@pytest.mark.parametrize("name", ["mnist", "oxford_pet", "voc"])
def test_a_download_that_is_refused_is_no_traceback(name, tmp_path, offline):
    with pytest.raises(UserError) as caught:
        load(name, tmp_path / "nowhere", download=True)
    text = str(caught.value)
    assert text.startswith("dataset.download: ")
    assert "network is unreachable" in text
    assert all(word in text for word in [*LACKING[name], str(tmp_path)])
    assert text.count("\n") == 1
    assert offline


@pytest.mark.parametrize("name", ["mnist", "oxford_pet", "voc"])
def test_what_is_there_is_not_downloaded_again(name, tmp_path, offline):
    WRITERS[name](tmp_path)
    assert load(name, tmp_path, download=True).fingerprint == load(name, tmp_path).fingerprint
    assert offline == []


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def pack_mnist(root, monkeypatch):
    from torchvision.datasets import MNIST

    write_mnist(root, packed=True)
    raw = root / "MNIST" / "raw"
    known = [(name, md5(raw / name)) for name, _ in MNIST.resources]
    monkeypatch.setattr(MNIST, "resources", known)
    return raw / "train-images-idx3-ubyte.gz"


def pack_voc(root, monkeypatch):
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    write_voc(root / "elsewhere")
    archive = root / DATASET_YEAR_DICT["2012"]["filename"]
    with tarfile.open(archive, "w") as tar:
        tar.add(root / "elsewhere" / "VOCdevkit", "VOCdevkit")
    monkeypatch.setitem(DATASET_YEAR_DICT["2012"], "md5", md5(archive))
    return archive


def pack_oxford_pet(root, monkeypatch):
    from torchvision.datasets import OxfordIIITPet

    WRITERS["oxford_pet"](root / "elsewhere")
    base, known = root / "oxford-iiit-pet", []
    base.mkdir()
    for url, _ in OxfordIIITPet._RESOURCES:
        archive = base / Path(url).name
        kind = archive.name.split(".")[0]
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(root / "elsewhere" / "oxford-iiit-pet" / kind, kind)
        known.append((url, md5(archive)))
    monkeypatch.setattr(OxfordIIITPet, "_RESOURCES", tuple(known))
    return archive


PACKERS = {"mnist": pack_mnist, "voc": pack_voc, "oxford_pet": pack_oxford_pet}
"""Each puts the official archives where a download would, and returns one of them."""


@pytest.mark.parametrize("name", sorted(PACKERS))
def test_archives_with_the_right_checksum_are_unpacked(name, tmp_path, monkeypatch, offline):
    PACKERS[name](tmp_path / "a", monkeypatch)
    WRITERS[name](tmp_path / "b")
    packed = load(name, tmp_path / "a", download=True)
    assert packed.fingerprint == load(name, tmp_path / "b").fingerprint
    assert offline == []


@pytest.mark.parametrize("name", sorted(PACKERS))
def test_a_wrong_checksum_is_noticed(name, tmp_path, monkeypatch, offline):
    """The archive is not unpacked but fetched anew, which fails here."""
    archive = PACKERS[name](tmp_path, monkeypatch)
    content = bytearray(archive.read_bytes())
    content[-1] ^= 1
    archive.write_bytes(content)
    with pytest.raises(UserError, match=r"dataset\.download: .*network is unreachable"):
        load(name, tmp_path, download=True)
    assert offline


@pytest.mark.parametrize("name", sorted(PACKERS))
def test_an_archive_that_cannot_be_unpacked_is_no_traceback(name, tmp_path, monkeypatch):
    archive = PACKERS[name](tmp_path, monkeypatch)
    monkeypatch.setattr("torchvision.datasets.utils.check_integrity", lambda *_: True)
    archive.write_bytes(archive.read_bytes()[:700])
    with pytest.raises(UserError, match=r"dataset\.download: "):
        load(name, tmp_path, download=True)


@pytest.mark.parametrize("whole", [True, False])
def test_archives_of_cityscapes_are_unpacked(whole, tmp_path):
    WRITERS["cityscapes"](tmp_path / "b")
    root = tmp_path / "a"
    root.mkdir()
    for kind in ("leftImg8bit", "gtFine"):
        with zipfile.ZipFile(root / f"{kind}_trainvaltest.zip", "w") as archive:
            for path in sorted((tmp_path / "b" / kind).rglob("*.*")):
                archive.write(path, path.relative_to(tmp_path / "b"))
    if whole:
        expected = load("cityscapes", tmp_path / "b").fingerprint
        assert load("cityscapes", root).fingerprint == expected
    else:
        (root / "gtFine_trainvaltest.zip").write_bytes(b"no archive")
        with pytest.raises(UserError, match="not a zip file"):
            load("cityscapes", root)


DAMAGE = {
    "mnist": "MNIST/raw/train-images-idx3-ubyte",
    "voc": "VOCdevkit/VOC2012/SegmentationClass/2007_000003.png",
    "oxford_pet": "oxford-iiit-pet/annotations/trimaps/Abyssinian_3.png",
    "cityscapes": "gtFine/train/ulm/ulm_000000_000002_gtFine_labelIds.png",
}


@pytest.mark.parametrize("name", sorted(DAMAGE))
def test_truncated_files_are_named(name, tmp_path):
    WRITERS[name](tmp_path)
    path = tmp_path / DAMAGE[name]
    path.write_bytes(path.read_bytes()[:70])
    with pytest.raises(UserError) as caught:
        load(name, tmp_path)
    assert str(tmp_path if name == "mnist" else path) in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_listed_files_that_are_not_there_are_named(name, tmp_path):
    WRITERS[name](tmp_path)
    path = tmp_path / DAMAGE[name]
    path.unlink()
    with pytest.raises(UserError, match=" is missing") as caught:
        load(name, tmp_path)
    assert str(path) in str(caught.value)


def test_labels_beyond_the_ten_digits_are_refused(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + bytes([10]))
    with pytest.raises(UserError, match="do not fit together"):
        load("mnist", tmp_path)


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_a_validation_split_of_nothing_is_refused(name, tmp_path):
    WRITERS[name](tmp_path)
    with pytest.raises(UserError, match=r"dataset\.val_fraction=0: leaves the split 'val' empty"):
        load(name, tmp_path, val_fraction=0.0)


def test_the_command_says_what_is_missing_and_writes_nothing(command, tmp_path, offline):
    code, _, err = command("dataset=mnist", "dataset.download=true")
    assert code == 2
    assert err.startswith("error: dataset.download: ")
    assert len(err.splitlines()) == 2
    assert str(Path("data/mnist/MNIST/raw")) in err
    assert runs(tmp_path) == []
