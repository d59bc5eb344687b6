"""Finding pairs: layouts, suffixes of names, and notes on what is left out."""

from __future__ import annotations

import re
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

from seg_l1.config.compose import compose_plain
from seg_l1.data import folder, layout
from seg_l1.errors import UserError
from tests.support.standard_files import write_pairs

OPTIONS = {"num_classes": 2, "image_size": (16, 24)}
KINDS = ("images", "masks")


def load(root, **options):
    return folder.load(root=str(root), **OPTIONS, **options)


def sizes(root, **options):
    data = load(root, **options)
    assert all(len({*split.names}) == len(split) for split in data.splits.values())
    return {name: len(split) for name, split in data.splits.items()}


def renamed(root, *, image="", mask=""):
    """Puts a text at the end of the names of images, and of masks."""
    for kind, text in zip(KINDS, (image, mask), strict=True):
        for path in list(root.rglob(f"{kind}/**/*.png")):
            path.rename(path.with_name(f"{path.stem}{text}.png"))
    return root


def test_pairs_in_subfolders_are_used_under_the_same_path(street):
    for kind in KINDS:
        (street / kind / "site/b").mkdir(parents=True)
        for number in range(6):
            path = street / kind / f"{number:03d}.png"
            path.rename(street / kind / f"site/b/{number % 3 + 6 * (number < 3):03d}.png")
    found = layout.find(street)
    assert len(found.splits["train"]) == 12
    for image, mask in found.splits["train"]:
        assert image.relative_to(street / "images") == mask.relative_to(street / "masks")
    data = folder.load(root=str(street))
    assert "images/site/b/007.png" in {name for s in data.splits.values() for name in s.names}
    assert data.notes == []
    (street / "masks/site/b/007.png").rename(street / "masks/site/007.png")
    with pytest.raises(UserError, match=r"it lies at site/007.png, move it to site/b/007.png"):
        folder.load(root=str(street))


def test_a_link_that_leads_back_is_followed_once(street):
    for kind in KINDS:
        (street / kind / "again").symlink_to(street / kind, target_is_directory=True)
    assert len(layout.find(street).splits["train"]) == 12


@pytest.mark.parametrize("split_first", [False, True])
@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val", None])
def test_split_folders_lie_inside_or_outside(val, split_first, tmp_path):
    folders = {"train": 5, "test": 3} | ({val: 2} if val else {})
    for name, count in folders.items():
        write_pairs(tmp_path / "made", count)
        for kind in KINDS:
            target = tmp_path / (f"data/{name}/{kind}" if split_first else f"data/{kind}/{name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "made" / kind).rename(target)
        shutil.rmtree(tmp_path / "made")
    data = load(tmp_path / "data")
    counts = {name: len(split) for name, split in data.splits.items()}
    if val:
        assert counts == {"train": 5, "val": 2, "test": 3}
        assert (data.notes, data.indices) == ([], {})
    else:
        assert counts == {"train": 4, "val": 1, "test": 3}
        assert {*data.indices} == {"train", "val"}
        assert "dataset.val_fraction=0.2 of train is drawn" in data.notes[0]
    assert "has no effect" in load(tmp_path / "data", test_fraction=0.2).notes[-1 if val else -2]


def test_split_folders_that_are_not_used_are_told(tmp_path):
    write_pairs(tmp_path, 5)
    for name, count in {"train": 4, "extra": 3}.items():
        write_pairs(tmp_path / name, count)
    data = load(tmp_path)
    assert sum(map(len, data.splits.values())) == 5
    notes = "\n".join(data.notes)
    assert "extra (3 pictures): not used" in notes
    assert "train (4 pictures): not used" in notes


def test_a_test_split_without_masks_is_told(tmp_path):
    for name in ("train", "val", "test"):
        write_pairs(tmp_path / name, 3)
    shutil.rmtree(tmp_path / "test/masks")
    data = load(tmp_path)
    assert {*data.splits} == {"train", "val"}
    assert ["images (3 pictures): not used, there is no test/masks/" in n for n in data.notes] == [
        True
    ]


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (["val/images", "valid/images"], "val/ and valid/ are the same split; keep one"),
        (["test/images", "test/masks"], "split 'train' has no images"),
        (["photos", "labels"], "but labels, photos. Rename its folders"),
        (["images", "images/train", "masks"], "masks/train: this folder is missing"),
    ],
)
def test_layouts_that_are_none_are_refused(made, words, tmp_path):
    for path in made:
        (tmp_path / path).mkdir(parents=True)
        Image.new("L", (30, 20)).save(tmp_path / path / "a.png")
    if "images/train" in made:
        (tmp_path / "images/a.png").unlink()
    with pytest.raises(UserError, match=re.escape(words)):
        load(tmp_path)


def test_pictures_beside_split_folders_are_refused_until_they_are_moved(tmp_path):
    write_pairs(tmp_path, 6)
    write_pairs(tmp_path / "more", 2)
    for kind in KINDS:
        (tmp_path / "more" / kind).rename(tmp_path / kind / "test")
    with pytest.raises(UserError, match="beside the folder test/") as caught:
        load(tmp_path)
    for kind in KINDS:
        assert f"{tmp_path / kind / 'train'}" in str(caught.value)
        (tmp_path / kind / "train").mkdir()
        for path in list((tmp_path / kind).glob("*.png")):
            path.rename(tmp_path / kind / "train" / path.name)
    assert sizes(tmp_path) == {"train": 5, "val": 1, "test": 2}


def test_an_empty_split_is_refused(tmp_path):
    write_pairs(tmp_path / "train", 2)
    write_pairs(tmp_path / "val", 0)
    with pytest.raises(UserError, match="the split 'val' has no images"):
        load(tmp_path)
    shutil.rmtree(tmp_path / "val")
    assert sizes(tmp_path, val_fraction=0.5) == {"train": 1, "val": 1}


@pytest.mark.parametrize(
    ("image", "mask", "note"),
    [
        ("", "_mask", "dataset.mask_suffix=_mask was"),
        ("", "_segmentation", "dataset.mask_suffix=_segmentation was"),
        ("_image", "", "dataset.image_suffix=_image dataset.mask_suffix= was"),
        ("_training", "_manual1", "dataset.image_suffix=_training dataset.mask_suffix=_manual1"),
        ("", " (1)", "'dataset.mask_suffix=\" (1)\"' was"),
    ],
)
def test_a_suffix_of_all_names_is_found_and_told(image, mask, note, street):
    expected = load(street)
    data = load(renamed(street, image=image, mask=mask))
    assert note in data.notes[0]
    masks = [m for s in (data, expected) for m in [s.splits["train"].masks]]
    assert np.array_equal(*masks)
    typed = load(street, image_suffix=image, mask_suffix=mask)
    assert typed.notes == []
    assert typed.fingerprint == data.fingerprint


def typed_keys(message):
    """The keys that a message asks for, as a shell and hydra read them."""
    words = re.findall(r"'dataset\.\w+_suffix=[^']*'|dataset\.\w+_suffix=\S*", message)
    words = [shlex.split(word)[0].rstrip(".,") for word in words]
    config = compose_plain(["dataset=folder", "dataset.root=x", *words])["dataset"]
    return {key: config[key] for key in ("image_suffix", "mask_suffix")}


@pytest.mark.parametrize("names", [("", "_color"), ("_labelIds", "_color"), ("_1", " b")])
def test_several_masks_of_an_image_are_refused_with_the_keys_that_choose(names, street):
    for path in list(street.glob("masks/*.png")):
        Image.new("L", (30, 20)).save(path.with_name(f"{path.stem}{names[1]}.png"))
        path.rename(path.with_name(f"{path.stem}{names[0]}.png"))
    with pytest.raises(UserError, match="give each image 2 masks; choose one") as caught:
        load(street)
    first, _, second = str(caught.value).partition(" or ")
    shares = []
    for option in (first, second):
        data = load(street, **typed_keys(option.partition("choose one with")[2] or option))
        assert sum(map(len, data.splits.values())) == 12
        assert any("12 pictures" in note and "not used" in note for note in data.notes)
        shares.append(data.pixel_shares[1])
    assert min(shares) == 0 < max(shares)


def test_images_without_mask_are_named_with_the_suffix(street):
    renamed(street, mask="_mask")
    (street / "masks/004_mask.png").unlink()
    with pytest.raises(UserError, match=r"'train/004'|'004' \(1 without") as caught:
        load(street)
    assert "dataset.mask_suffix=_mask" in str(caught.value)


def test_one_pair_has_no_suffix_that_could_be_guessed(tmp_path):
    write_pairs(tmp_path, 1)
    (tmp_path / "images/000.png").rename(tmp_path / "images/cat.png")
    (tmp_path / "masks/000.png").rename(tmp_path / "masks/cog.png")
    with pytest.raises(UserError, match="Names must agree"):
        load(tmp_path, val_fraction=None)
    typed = {"image_suffix": "at", "mask_suffix": "og", "val_fraction": None}
    assert sizes(tmp_path, **typed) == {"train": 1}


def test_files_that_are_no_pictures_are_counted(street):
    for name in ("a.txt", "b.txt", "readme", "000.png.original", "Thumbs.db", ".hidden"):
        (street / "images" / name).touch()
    (street / "images/000.npy").touch()  # the picture of that name is used
    notes = load_notes(street)
    assert len(notes) == 1
    assert "are left out (2 .txt, 1 without suffix, 1 .npy)" in notes[0]


def load_notes(root):
    return folder.load(root=str(root)).notes


def test_two_pictures_of_a_name_are_refused_where_they_are_used(street):
    shutil.copy(street / "images/003.png", street / "images/003.tif")
    with pytest.raises(UserError, match="keep one"):
        load(street)


def test_a_folder_to_score_needs_no_training_pairs(tmp_path):
    write_pairs(tmp_path / "a", 3)
    write_pairs(tmp_path / "b/test", 4)
    write_pairs(tmp_path / "c/val", 2)
    write_pairs(tmp_path / "c/test", 1)
    assert sizes(tmp_path / "a", to_score=True) == {"test": 3}
    assert sizes(tmp_path / "b", to_score=True) == {"test": 4}
    assert sizes(tmp_path / "c", to_score=True) == {"val": 2, "test": 1}
