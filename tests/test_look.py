"""`seg-l1 look`: one page about a data set, and what is odd about it."""

from __future__ import annotations

import base64
import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from seg_l1.cli.main import main
from seg_l1.data import folder
from seg_l1.experiments.look.examination import class_rows, examine, oddities, size_text
from tests.support.standard_files import write_pairs


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Twelve training and four test pairs of two classes."""
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "mine/train", 12, size=(24, 32))
    write_pairs(tmp_path / "mine/test", 16, size=(24, 32))
    for index in range(12):  # the first of test are those of train
        for kind in ("images", "masks"):
            (tmp_path / f"mine/test/{kind}/{index:03d}.png").unlink()
    (tmp_path / "mine/classes.txt").write_text("ground\nsquare\n")
    return tmp_path / "mine"


def look(*words):
    return main(["look", *words])


def found_in(root):
    data = folder.load(root=str(root), image_size=None)
    return examine(data), data


def test_shares_and_images_are_counted_as_they_are(mine):
    found, data = found_in(mine)
    rows = {row.name: row for row in class_rows(found, data.classes)}
    assert rows["square"].images == {name: len(split) for name, split in data.splits.items()}
    for split, pairs in data.splits.items():
        masks = np.concatenate([pairs[[i]][1].numpy() for i in range(len(pairs))])
        assert rows["square"].shares[split] == pytest.approx((masks == 1).mean())
        assert rows["ground"].shares[split] == pytest.approx((masks == 0).mean())
    assert size_text(found.sizes) == "24x32 (height x width)"
    assert oddities(found, data) == []


def test_copies_within_and_across_splits_are_named(mine):
    for kind in ("images", "masks"):
        shutil.copy(mine / f"train/{kind}/000.png", mine / f"test/{kind}/copy.png")
        shutil.copy(mine / f"test/{kind}/013.png", mine / f"test/{kind}/again.png")
    across, within = oddities(*found_in(mine))
    assert across.startswith("1 image is in several splits (") and "copy.png" in across
    assert within.startswith("1 image is twice in a split (") and "again.png" in within


def test_empty_masks_plain_images_and_missing_classes_are_named(mine):
    (mine / "classes.txt").write_text("ground\nsquare\ntree\n")
    Image.new("L", (32, 24), 255).save(mine / "train/masks/003.png")
    Image.new("RGB", (32, 24), (9, 9, 9)).save(mine / "train/images/004.png")
    text = "\n".join(oddities(*found_in(mine)))
    assert "no mask shows the class 'tree'" in text
    assert re.search(r"1 image without a labeled pixel: (train|val)/train/images/003", text)
    assert re.search(r"1 image of one color, without a picture: (train|val)/.*004", text)


def test_masks_that_hold_one_class_only_point_to_their_values(mine):
    for path in mine.rglob("masks/*.png"):
        if path.stem > "002":
            Image.new("L", (32, 24), 0).save(path)
    text = "\n".join(oddities(*found_in(mine)))
    assert re.search(r"13 of 16 masks hold nothing but 'ground' .*dataset.mask_values", text)


def test_a_small_class_is_named(mine):
    for path in mine.rglob("masks/*.png"):
        mask = np.zeros((24, 32), np.uint8)
        mask[3, 3] = path.stem == "000"
        Image.fromarray(mask).save(path)
    assert any("'square' has 0.01" in sentence for sentence in oddities(*found_in(mine)))


def test_the_page_needs_nothing_else_and_holds_the_pictures(mine, capsys):
    words = ["dataset=folder", "dataset.root=mine", "dataset.image_size=[16,16]"]
    assert look(*words, "augmentation=strong", "output=pages/a b.html") == 0
    page = (mine.parent / "pages/a b.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    train = len(folder.load(root=str(mine)).splits["train"])
    assert len(pictures) == 4 * train
    sizes = {Image.open(io.BytesIO(base64.b64decode(p))).size for p in pictures}
    assert sizes == {(16, 16)}
    shown = capsys.readouterr().out
    assert "wrote pages/a b.html" in shown
    assert "seg-l1 train experiment=own dataset.root=mine" in shown
    assert "<script" not in page


def test_names_of_files_and_classes_are_text_on_the_page(mine):
    (mine / "classes.txt").write_text("ground\n<b>square</b>\n")
    for kind in ("images", "masks"):
        path = mine / f"train/{kind}/000.png"
        path.rename(path.with_name("<i>x.png"))
    assert look("dataset=folder", "dataset.root=mine") == 0
    page = (mine.parent / "outputs/looks/mine.html").read_text()
    assert "<b>square" not in page and "&lt;b&gt;square" in page
    assert "<i>x" not in page


def test_it_shows_what_a_recipe_does(mine):
    assert look("experiment=own", "dataset.root=mine", "output=own.html") == 0
    page = (mine.parent / "own.html").read_text()
    assert "crop=[" in page and "experiment=own dataset.root=mine" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m", "dataset=folder", "dataset.root=mine"], "without -m"),
        (["dataset=folder", "dataset.root=mine,other"], "give each key one value"),
        (["dataset=folder", "dataset.root=nowhere"], "nowhere"),
        (["dataset=folder", "dataset.root=mine", "output="], "output: expected one file"),
        (["dataset=folder", "dataset.root=mine", "datset=x"], "datset"),
        (["dataset=folder", "dataset.root=mine", "dataset.image_size=null"], "make no batch"),
    ],
)
def test_wrong_words_are_refused(words, message, mine, capsys):
    assert look(*words) == 2
    assert message in capsys.readouterr().err
