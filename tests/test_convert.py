"""`seg-l1 convert`: what is written and printed, what is refused, and training on it."""

from __future__ import annotations

import json
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from seg_l1.cli.main import main
from seg_l1.data import folder
from seg_l1.data.convert import regions
from seg_l1.data.convert.finder import parts_of, split_named
from seg_l1.data.convert.source import Classes, Instance, Item, Source
from seg_l1.data.convert.write import write
from seg_l1.display.converted import save_pairs
from seg_l1.display.paint import palette
from seg_l1.errors import UserError
from tests.support import annotations as made
from tests.support.annotations import SQUARE, box, flat, joined, shares
from tests.support.refusals import assert_refused, called
from tests.support.runs import TINY, runs

pytest.importorskip("pycocotools")
pytest.importorskip("yaml")

ONE = {"segmentation": [flat(SQUARE)]}


def images(folder, count=6):
    return [made.image(folder / f"{i}.png", seed=i).name for i in range(count)]


def make_coco(root):
    names = images(root / "images")
    made.coco(root / "labels.json", names, [{**ONE, "image_id": i} for i in range(1, 7)])
    return root / "labels.json"


def make_labelme(root):
    for name in images(root):
        made.labelme(root / name.replace("png", "json"), [{"points": SQUARE}])
    return root


def make_yolo(root):
    labels = {f"{split}/{i}": f"0 {shares(SQUARE)}" for split in ("train", "val") for i in range(3)}
    return made.yolo(root, labels)


def make_cvat(root):
    names = images(root / "images")
    shape = f'<polygon label="cat" points="{joined(SQUARE)}"/>'
    return made.cvat(root / "annotations.xml", dict.fromkeys(names, shape))


MAKERS = {"coco": make_coco, "labelme": make_labelme, "yolo": make_yolo, "cvat": make_cvat}


@pytest.mark.parametrize("tool", MAKERS)
def test_the_folder_is_read_as_it_is(tool, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = MAKERS[tool](tmp_path / "an export")
    code, out, err = called("convert", [tool, str(source), "new data"], capsys)
    assert (code, err) == (0, "")
    data = folder.load(root="new data", image_size=None)
    assert {*data.notes} <= {"no training pixel has the class dog"}
    assert data.classes[:2] == ["background", "cat"]
    assert sum(map(len, data.splits.values())) == 6
    for split in data.splits.values():
        for index in range(len(split)):
            pixels, mask = split[[index]]
            np.testing.assert_array_equal(mask[0].numpy() == 1, box(10, 5, 20, 15))
            assert pixels.shape[2:] == mask.shape[1:]
    assert re.search(r"cat\s*\S\s*6\s*\S\s*8\.33 %", out)
    assert "images: 6" in out and "objects: 6" in out
    command = out.rstrip().splitlines()[-1]
    assert shlex.split(command) == [
        "seg-l1", "train", "experiment=own", "dataset.root=new data",
    ]  # fmt: skip
    with Image.open("new data/preview.png") as picture:
        assert picture.format == "PNG" and picture.width > 600
    assert called("convert", [tool, str(source), "new data"], capsys)[0] == 2


@pytest.mark.slow
@pytest.mark.parametrize("tool", MAKERS)
def test_training_on_what_was_converted(tool, command, tmp_path, capsys):
    source = MAKERS[tool](tmp_path / "export")
    assert main(["convert", tool, str(source), str(tmp_path / "data")]) == 0
    words = [*shlex.split(capsys.readouterr().out.rstrip().splitlines()[-1])[2:]]
    small = [word for word in TINY if "dataset.num" not in word and "epochs" not in word]
    code, _, err = command(*words, *small, "trainer.epochs=1")
    assert code == 0, err
    summary = json.loads((runs(tmp_path)[0] / "summary.json").read_text())
    assert 0 <= summary["best"]["val/miou"] <= 1


def test_a_checkout_shows_its_own_command(tmp_path, capsys):
    source = make_coco(tmp_path / "in")
    assert main(["convert", "coco", str(source), str(tmp_path / "o")], checkout=True) == 0
    assert "train.py experiment=own" in capsys.readouterr().out


def broken(name, text):
    def make(root):
        root.mkdir()
        path = root / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return make


def empty(root):
    root.mkdir()
    return root


VIDEO = "<annotations><track id='0' label='cat'/></annotations>"
REFUSED = [
    ("coco", lambda root: root / "nope.json", ["nope.json", "no such file or folder"]),
    ("coco", empty, ["holds no files", "COCO's instances"]),
    ("labelme", empty, ["holds no files", "shapes, imagePath"]),
    ("yolo", empty, ["holds no files", "data.yaml"]),
    ("cvat", empty, ["holds no files", "annotations.xml"]),
    ("coco", broken("x.json", "{"), ["x.json: is no JSON"]),
    ("coco", broken("x.json", ""), ["x.json: is no JSON (it is empty)"]),
    ("coco", broken("x.json", b"\xff\xfe\x00"), ["x.json: is no JSON (it is not UTF-8)"]),
    ("coco", broken("x.json", "[" * 100_000), ["x.json: is no JSON"]),
    ("coco", broken("x.json", "[]"), ["holds a list, as COCO's results do"]),
    ("coco", broken("x.json", "5"), ["is not a JSON file of COCO's"]),
    ("coco", broken("x.json", '{"a": 1}'), ["holds the keys a"]),
    ("coco", broken("x.json", '{"images": [], "annotations": []}'), ["lacks categories"]),
    (
        "coco",
        broken("x.json", '{"images":[],"categories":[],"annotations":[{"segments_info":[]}]}'),
        ["panoptic"],
    ),
    ("labelme", broken("x.json", "{"), ["x.json: is no JSON"]),
    ("cvat", broken("x.xml", "<a"), ["x.xml: is no XML"]),
    ("cvat", broken("x.xml", ""), ["x.xml: is no XML"]),
    ("cvat", broken("x.xml", VIDEO), ["CVAT for video 1.1", "export it as 'CVAT for images 1.1'"]),
    ("cvat", broken("x.xml", "<annotation><bndbox/></annotation>"), ["Pascal VOC"]),
    ("cvat", broken("x.zip", "PK"), ["unpack it"]),
    ("yolo", broken("data.yaml", b"\xff\xfe\x00\x01"), ["data.yaml", "UTF-8"]),
    ("coco", make_labelme, ["It looks like LabelMe", "Give labelme in place of coco"]),
    ("coco", make_yolo, ["Give yolo in place of coco"]),
    ("coco", make_cvat, ["Give cvat in place of coco"]),
    ("labelme", make_coco, ["It looks like COCO", "Give coco in place of labelme"]),
    ("yolo", make_coco, ["Give coco in place of yolo"]),
    ("cvat", make_labelme, ["Give labelme in place of cvat"]),
    ("cvat", broken("a.json", '{"_via_img_metadata": {}}'), ["VIA"]),
    ("yolo", broken("a.txt", "0 1 1"), ["whose data.yaml is to be given"]),
    ("yolo", broken("a b.png", "x"), ["a b.png: is not the data.yaml"]),
]


@pytest.mark.parametrize(("tool", "make", "words"), REFUSED)
def test_wrong_files_are_refused_with_what_they_look_like(tool, make, words, tmp_path, capsys):
    path = make(tmp_path / "in [ä]")
    result = called("convert", [tool, str(path), str(tmp_path / "out")], capsys)
    assert_refused(result, words, tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], ["give a tool, a source and a new folder"]),
        (["coco"], ["got 1 words"]),
        (["coc", "a", "b"], ["'coc': is no tool", "Did you mean 'coco'?"]),
        (["COCO", "a", "b"], ["Did you mean 'coco'?"]),
        (["coco", "a", "b", "c"], ["got 4 words"]),
        (["coco", "{coco}", ""], ["give a tool, a source"]),
        (["coco", "{coco}", "b", "imges=x"], ["Did you mean 'images'?"]),
        (["coco", "{coco}", "b", "--x"], ["--x"]),
        (["coco", "{coco}", "b", "images=nope"], ["images: there is no folder 'nope'"]),
        (["coco", "{coco}", "b", "missing=yes"], ["missing: got 'yes'", "error or skip"]),
        (["coco", "{coco}", "b", "crowd=x"], ["ignore or class"]),
        (["coco", "{coco}", "b", "link=yes"], ["link: got 'yes'", "false or true"]),
        (["cvat", "{coco}", "b", "crowd=class"], ["cvat has no crowd regions"]),
        (["coco", "{coco}", "full"], ["full: is not empty (x)", "nothing is overwritten"]),
        (["coco", "{coco}", "full/x"], ["is a file"]),
        (["coco", "{coco}", "full/x/y"], ["full/x"]),
        (["coco", "in", "in/out"], ["lies in the source"]),
        (["coco", "{coco}", "/proc/x"], ["/proc/x"]),
        (["coco", "x" * 20_000, "b"], ["too long"]),
        (["coco", "{coco}", "y" * 20_000], ["too long"]),
    ],
)
def test_wrong_words_are_refused(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = make_coco(tmp_path / "in")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    typed = [word.replace("{coco}", str(source)) for word in words]
    assert_refused(called("convert", typed, capsys), message, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_without_pycocotools_the_command_that_installs_it_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(regions, "import_module", lambda name: __import__("not a module"))
    source = make_coco(tmp_path / "in")
    result = called("convert", ["coco", str(source), str(tmp_path / "o")], capsys)
    assert_refused(result, ["pip install pycocotools", "seg-l1[convert]"], tmp_path)


def test_unreadable_images_are_named_and_nothing_is_left(tmp_path, capsys):
    source = make_coco(tmp_path / "in")
    (tmp_path / "in/images/1.png").write_text("no picture")
    Image.new("I;16", (40, 30)).save(tmp_path / "in/images/3.png")
    (tmp_path / "out").mkdir()
    code, _, err = called("convert", ["coco", str(source), str(tmp_path / "out")], capsys)
    assert code == 2 and "2 such images in all" in err
    for name in ("1.png", "3.png"):
        assert str(tmp_path / "in/images" / name) in err
    assert str(tmp_path / "out") not in err
    assert not list((tmp_path / "out").iterdir())


def source_of(items):
    source = Source(["background", "cat"], by_area=True)
    region = regions.rectangle(10, 5, 20, 15)
    for index, item in enumerate(items):
        item.instances.append(Instance(1, region, f"shape {index}"))
    source.items += items
    return source


def test_names_that_would_meet_are_told_apart(tmp_path):
    """Absolute paths lose their folders, and masks the suffix; nothing hides or looks a split."""
    names = [
        "/one/a.png", "/two/a.png", "a.jpg", "C:\\x\\A.PNG", "b/a.png",
        ".hidden/.a.png", "x.png/a.png",
        "train/a.png", "../a.png",
    ]  # fmt: skip
    items = []
    for index, name in enumerate(names):
        suffix = ".jpg" if "jpg" in name else ".png"
        items.append(Item(name, made.image(tmp_path / f"in/{index}{suffix}", seed=index)))
    done = write(source_of(items), tmp_path / "out")
    found = [str(image.relative_to(tmp_path / "out/images")) for image, _ in done.pairs[""]]
    assert found == [
        "a.png", "a_2.png", "a_3.jpg", "A_4.png", "b/a.png", "_hidden/_a.png", "x_png/a.png",
        "train_/a.png", "a_5.png",
    ]  # fmt: skip
    data = folder.load(root=str(tmp_path / "out"))
    assert sum(map(len, data.splits.values())) == len(names) and data.notes == []
    assert "has the same name: 4 (first: /two/a.png -> a_2.png)" in done.notes[0]


def test_one_file_for_two_names_is_refused(tmp_path):
    path = made.image(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"is named twice, by 'x/a.png' and 'y/a.png'"):
        write(source_of([Item("x/a.png", path), Item("y/a.png", path)]), tmp_path / "out")


def test_splits_that_alternate_are_told_apart(tmp_path):
    """`Converted.drawn` belongs to `Converted.pairs`."""
    names = ["val/0.png", "train/1.png", "val/2.png", "train/3.png"]
    items = [Item(n, made.image(tmp_path / f"{i}.png", seed=i)) for i, n in enumerate(names)]
    source = source_of(items)
    items[0].instances.clear()
    done = write(source, tmp_path / "out")
    assert {s: [i.name for i, _ in pairs] for s, pairs in done.pairs.items()} == {
        "train": ["1.png", "3.png"],
        "val": ["0.png", "2.png"],
    }
    assert done.drawn == [1, 1, 0, 1]


def test_formats_that_cannot_be_read_are_told_with_their_remedy(tmp_path):
    path = tmp_path / "a.heic"
    path.write_bytes(b"x")
    with pytest.raises(UserError, match=r"is HEIF, which cannot be read. Export it as PNG"):
        write(source_of([Item("a.heic", path)]), tmp_path / "out")
    path.rename(tmp_path / "a.xyz")
    with pytest.raises(UserError, match=r"a.xyz: cannot be read. Save it as one of .bmp"):
        write(source_of([Item("a.xyz", tmp_path / "a.xyz")]), tmp_path / "out")


def test_missing_images_can_be_left_out(tmp_path):
    path = made.image(tmp_path / "a.png")
    items = [Item("a.png", path), *(Item(f"{i}.png", None) for i in range(9))]
    with pytest.raises(UserError, match=r"9 of 10 images are missing: 0.png, .*, and 5 more"):
        write(source_of(items), tmp_path / "out")
    done = write(source_of(items), tmp_path / "out", leave_missing=True)
    assert done.skipped == ["images that are missing: 9 (first: 0.png)"]


def test_the_limit_of_classes_is_that_of_the_reader(tmp_path):
    names = [f"c{i}" for i in range(253)]
    classes = Classes(names, tmp_path)
    assert len(classes.names) == 254 and classes.id_of("c252") == 253
    with pytest.raises(UserError, match=r"names 255 classes with the background.*254"):
        Classes([*names, "more"], tmp_path)
    source = source_of([Item("a.png", made.image(tmp_path / "a.png"))])
    source.classes = classes.names
    source.items[0].instances[0] = Instance(253, regions.rectangle(0, 0, 9, 9), "x")
    write(source, tmp_path / "out")
    mask = np.array(Image.open(tmp_path / "out/masks/a.png"))
    assert mask.max() == 253


@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_masks_fit_turned_images_when_they_are_read(turn, tmp_path):
    """A bright corner, found where the mask says, after both were read for training."""
    pixels = np.zeros((30, 40, 3), dtype=np.uint8)
    stored = Image.fromarray(pixels)
    upright = np.zeros((30, 40) if turn < 5 else (40, 30), dtype=np.uint8)
    upright[3:9, 2:17] = 255
    undo = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90,
            8: Image.Transpose.ROTATE_270}[turn]  # fmt: skip
    stored = Image.fromarray(upright) if undo is None else Image.fromarray(upright).transpose(undo)
    exif = stored.getexif()
    exif[0x0112] = turn
    stored.save(tmp_path / "a.png", exif=exif)
    source = source_of([Item("a.png", tmp_path / "a.png", upright.shape[::-1])])
    source.items[0].instances[0] = Instance(1, regions.rectangle(2, 3, 17, 9), "x")
    write(source, tmp_path / "out")
    data = folder.load(root=str(tmp_path / "out"), image_size=None, val_fraction=None)
    image, mask = data.splits["train"][[0]]
    np.testing.assert_array_equal(image[0, 0].numpy() > 128, mask[0].numpy() == 1)


def test_images_are_linked_if_asked(tmp_path, monkeypatch, capsys):
    source = make_coco(tmp_path / "in")
    words = ["coco", str(source)]
    code, out, _ = called("convert", [*words, str(tmp_path / "hard"), "link=true"], capsys)
    assert code == 0 and "symbolic" not in out

    def refuse(*_):
        raise OSError("another device")

    monkeypatch.setattr("os.link", refuse)
    code, out, _ = called("convert", [*words, str(tmp_path / "soft"), "link=true"], capsys)
    assert code == 0 and "symbolic links" in out and ": 6 (first: 0.png -> " in out
    for path in (tmp_path / "in/images").iterdir():
        hard, soft = (tmp_path / kind / "images" / path.name for kind in ("hard", "soft"))
        assert hard.samefile(path) and not hard.is_symlink()
        assert soft.samefile(path) and soft.is_symlink()
    for kind in ("hard", "soft"):
        assert len(folder.load(root=str(tmp_path / kind)).splits["train"]) > 0


def test_originals_stay_if_a_conversion_with_links_fails(tmp_path, capsys):
    source = make_coco(tmp_path / "in")
    (tmp_path / "in/images/5.png").write_text("no picture")
    before = {path: path.read_bytes() for path in sorted((tmp_path / "in/images").iterdir())}
    words = ["coco", str(source), str(tmp_path / "out"), "link=true"]
    assert called("convert", words, capsys)[0] == 2
    assert before == {
        path: path.read_bytes() for path in sorted((tmp_path / "in/images").iterdir())
    }
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("dog", "used"), [("#C06010", True), ("#12F3A5", False), ("#ffffff", False), ("red", False)]
)
def test_the_picture_has_the_colors_of_the_labels_if_they_differ(dog, used, tmp_path, capsys):
    source = make_cvat(tmp_path / "in")
    text = source.read_text()
    for name, color in (("cat", "#12f3a5"), ("dog", dog)):
        text = text.replace(
            f"<name>{name}<", f"<name>{name}</name><color>{color}</color><name>x<", 1
        )
    source.write_text(text.replace("<name>x</name>", ""))
    assert called("convert", ["cvat", str(source), str(tmp_path / "out")], capsys)[0] == 0
    with Image.open(tmp_path / "out/preview.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert ((pixels == (0x12, 0xF3, 0xA5)).all(-1).sum() > 50) == used


@pytest.mark.parametrize("length", [1, 100])
def test_the_legend_of_the_picture_has_all_classes_and_is_not_cut(length, tmp_path):
    """Each color is in the picture below the images, and its edges are white."""
    names = [f"_{index:02d}{'x' * length}"[:100] for index in range(20)]
    items = [Item(f"{i}.png", made.image(tmp_path / f"{i}.png", seed=i)) for i in range(7)]
    source = source_of(items)
    source.classes = ["background", *names]
    parts = [regions.rectangle(x, 0, x + 2, 30) for x in range(0, 40, 2)]
    items[0].instances += [Instance(i, part, "x") for i, part in enumerate(parts, 1)]
    done = write(source, tmp_path / "out")
    save_pairs(tmp_path / "a.png", done)
    with Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    for color in palette(source.classes)[1:]:
        assert (pixels == color).all(-1).sum() > 150
    assert (pixels[-250:, [0, -1]] == 255).all()


def test_a_picture_of_objects_too_small_to_be_seen_is_drawn(tmp_path):
    item = Item("a.png", made.image(tmp_path / "a.png", size=(3000, 2000)))
    source = source_of([item])
    item.instances[0] = Instance(1, regions.rectangle(1, 1, 2, 2), "x")
    done = write(source, tmp_path / "out")
    assert done.pixels[1] == 1
    save_pairs(tmp_path / "b.png", done)
    assert (tmp_path / "b.png").stat().st_size > 1000


def test_words_of_names():
    assert parts_of("a//./b\\c.png") == ["a", "b", "c.png"]
    assert parts_of("") == parts_of("/") == []
    assert split_named("my-TEST_set 3") == "test" and split_named("values") == ""
