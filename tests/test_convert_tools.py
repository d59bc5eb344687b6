"""LabelMe, YOLO and CVAT: masks by definition, on small drawn examples."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from PIL import Image

from seg_l1.data.convert import cvat, labelme, yolo
from seg_l1.data.convert.regions import Polygons, decoded
from seg_l1.data.convert.write import write
from seg_l1.data.images import open_picture
from seg_l1.errors import UserError
from tests.support import annotations as made
from tests.support.annotations import HEIGHT, SQUARE, WIDTH, box, joined, shares

pytest.importorskip("pycocotools")
pytest.importorskip("yaml")

CAT, DOG = 1, 2
LARGE = [[4, 2], [34, 2], [34, 26], [4, 26]]
WHOLE, INNER = box(4, 2, 34, 26), box(10, 5, 20, 15)


def masks_of(done):
    """The masks (H, W) by the stem of their names, with the split where there is one."""
    return {
        "/".join(filter(None, (split, mask.stem))): np.array(Image.open(mask))
        for split, pairs in done.pairs.items()
        for _, mask in pairs
    }


@pytest.mark.parametrize("seed", range(8))
def test_a_pixel_is_in_a_polygon_if_its_center_is(seed):
    generator = np.random.default_rng(seed)
    angles = np.sort(generator.uniform(0, 2 * np.pi, 7))
    rim = np.stack([np.cos(angles), np.sin(angles)], -1) * generator.uniform(5, 14, (7, 1))
    points = rim + np.array([20, 15])
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    centers, outline = np.stack([x.ravel(), y.ravel()], -1), Outline(np.r_[points, points[:1]])
    inside, surely = (
        outline.contains_points(centers, radius=radius).reshape(HEIGHT, WIDTH)
        for radius in (0.3, -0.3)
    )
    found = decoded(Polygons([points]).rle(HEIGHT, WIDTH))
    differ = inside != surely  # within 0.3 pixels of the border
    exact = outline.contains_points(centers).reshape(HEIGHT, WIDTH)
    np.testing.assert_array_equal(found[~differ], exact[~differ])
    assert (found != exact).mean() < 0.01


# LabelMe


def test_labelme_draws_in_the_order_of_the_file_and_background_cuts_holes(tmp_path):
    made.image(tmp_path / "in/a.png")
    shapes = [
        {"points": LARGE, "label": "dog"},
        {"points": [[20, 15], [10, 5]], "shape_type": "rectangle"},
        {"points": [[12, 7], [16, 7], [16, 12], [12, 12]], "label": "_background_"},
        {"points": [[0, 28], [5, 30]], "shape_type": "rectangle", "label": "__ignore__"},
    ]
    made.labelme(tmp_path / "in/a.json", shapes)
    done = write(labelme.read(tmp_path / "in"), tmp_path / "out")
    expected = np.where(INNER, CAT, np.where(WHOLE, DOG, 0))
    expected[box(12, 7, 16, 12)] = 0
    expected[box(0, 28, 5, 30)] = 255
    np.testing.assert_array_equal(masks_of(done)["a"], expected)
    assert done.classes == ["background", "cat", "dog"]
    made.labelme(tmp_path / "in/a.json", [shapes[1], shapes[0]])
    done = write(labelme.read(tmp_path / "in"), tmp_path / "out2")
    np.testing.assert_array_equal(masks_of(done)["a"], DOG * WHOLE)


def test_labelme_circles_and_masks(tmp_path):
    made.image(tmp_path / "in/a.png")
    picture = io.BytesIO()
    blob = np.random.default_rng(0).random((6, 9)) < 0.5
    Image.fromarray(blob).save(picture, "PNG")
    shapes = [
        {"points": [[20.5, 15.0], [26.5, 15.0]], "shape_type": "circle", "label": "dog"},
        {
            "points": [[3, 4], [11, 9]],
            "shape_type": "mask",
            "mask": base64.b64encode(picture.getvalue()).decode(),
        },
    ]
    made.labelme(tmp_path / "in/a.json", shapes)
    found = masks_of(write(labelme.read(tmp_path / "in/a.json"), tmp_path / "out"))["a"]
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    np.testing.assert_array_equal(found == DOG, np.hypot(x - 20.5, y - 15) <= 6)
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    expected[4:10, 3:12] = blob
    np.testing.assert_array_equal(found == CAT, expected)


def test_labelme_lines_are_counted_and_groups_are_one_object(tmp_path):
    made.image(tmp_path / "in/a.png")
    thin = [
        {"points": [[1, 1], [5, 5]], "shape_type": "line"},
        {"points": [[1, 1], [5, 5], [9, 1]], "shape_type": "linestrip"},
        {"points": [[1, 1]], "shape_type": "point"},
        {"points": [[1, 1]], "shape_type": "star"},
        {"points": [[1, 1], [2, 2]]},
        {"points": [[1, 1]], "shape_type": "circle"},
        {"points": [[1, 1], [1, 1]], "shape_type": "circle"},
        {"points": [[1, 1], [3, 3]], "shape_type": "mask", "mask": "AAAA"},
        {"points": [["a", 1], [3, 3]], "shape_type": "rectangle"},
    ]
    parts = [{"points": SQUARE, "group_id": 4}, {"points": LARGE, "group_id": 4}]
    made.labelme(tmp_path / "in/a.json", [*thin, *parts, {"points": SQUARE}])
    done = write(labelme.read(tmp_path / "in"), tmp_path / "out")
    assert done.instances == {CAT: 2}
    assert len(done.skipped) == 9 and all(": 1 (first: a.json" in line for line in done.skipped)
    assert "type linestrip, which cover no area: 1 (first: a.json, shape 2)" in done.skipped[1]


def test_labelme_paths_of_windows_and_images_in_the_json(tmp_path):
    made.image(tmp_path / "in/imgs/ä b.png")
    path = tmp_path / "in/json/x.json"
    made.labelme(path, [{"points": SQUARE}], imagePath="..\\imgs\\ä b.png")
    content = made.image(tmp_path / "c.jpg", seed=3).read_bytes()
    data = base64.b64encode(content).decode()
    shape = [{"points": SQUARE}]
    made.labelme(tmp_path / "in/json/y.json", shape, imagePath="gone.png", imageData=data)
    done = write(labelme.read(tmp_path / "in"), tmp_path / "out")
    assert {*masks_of(done)} == {"ä b", "gone"}
    assert (tmp_path / "out/images/json/gone.jpg").read_bytes() == content
    for mask in masks_of(done).values():
        np.testing.assert_array_equal(mask == CAT, INNER)
    assert "imageData" in done.notes[0]
    made.labelme(tmp_path / "in/json/y.json", shape, imagePath="gone.png")
    with pytest.raises(UserError, match=r"1 of 2 images are missing: json/gone.png"):
        write(labelme.read(tmp_path / "in"), tmp_path / "out2")
    source = labelme.read(tmp_path / "in")
    assert len(write(source, tmp_path / "out2", leave_missing=True).pairs[""]) == 1


@pytest.mark.parametrize("turn", range(1, 9))
def test_labelme_annotates_the_upright_picture(turn, tmp_path):
    made.image(tmp_path / "in/a.jpg", turn=turn)
    width, height = open_picture(tmp_path / "in/a.jpg").size
    assert (width, height) == ((WIDTH, HEIGHT) if turn < 5 else (HEIGHT, WIDTH))
    shapes = [{"points": [[0, 0], [12, 5]], "shape_type": "rectangle"}]
    size = {"imageWidth": width, "imageHeight": height, "imagePath": "a.jpg"}
    made.labelme(tmp_path / "in/a.json", shapes, **size)
    mask = masks_of(write(labelme.read(tmp_path / "in"), tmp_path / "out"))["a"]
    expected = np.zeros((height, width))
    expected[:5, :12] = CAT
    np.testing.assert_array_equal(mask, expected)


def test_labelme_classes_of_labels_txt_come_first_and_folders_are_splits(tmp_path):
    for seed, name in enumerate(("train/a", "train/b", "val/a")):
        made.image(tmp_path / f"in/{name}.png", seed=seed)
        made.labelme(tmp_path / f"in/{name}.json", [{"points": SQUARE, "label": "zebra"}])
    made.image(tmp_path / "in/val/new.png")
    (tmp_path / "in/labels.txt").write_text("__ignore__\n_background_\nzebra\nape\n")
    made.labelme(tmp_path / "in/val/a.json", [{"points": SQUARE, "label": "cat"}])
    (tmp_path / "in/other.json").write_text("{}")
    done = write(labelme.read(tmp_path / "in"), tmp_path / "out")
    assert done.classes == ["background", "zebra", "ape", "cat"]
    assert {*masks_of(done)} == {"train/a", "train/b", "val/a"}
    assert "JSON files that are not of LabelMe: 1 (first: other.json)" in done.skipped
    assert any("val/new.png" in line and "may not have been labeled" in line for line in done.notes)


# YOLO


def test_yolo_draws_smaller_objects_in_front(tmp_path):
    small, large = f"0 {shares(SQUARE)}\n", f"1 {shares(LARGE)}\n"
    path = made.yolo(
        tmp_path / "in",
        {
            "train/a": small + large,
            "train/b": f"{large}\n0 0.5 0.5 0.2 0.2\n9 {shares(SQUARE)}\n0 0.1 0.1 0.2\n"
            "0 a b c d e f\n0 10 5 20 5 20 15\n0.5 0 0 0 1 1 1\n",
            "val/a": "",
            "val/deep/c": small,
        },
    )
    made.image(tmp_path / "in/images/val/d.png")
    done = write(yolo.read(path), tmp_path / "out")
    masks = masks_of(done)
    assert {*masks} == {"train/a", "train/b", "val/a", "val/c", "val/d"}
    both = np.where(INNER, CAT, DOG * WHOLE)
    np.testing.assert_array_equal(masks["train/a"], both)
    np.testing.assert_array_equal(masks["train/b"], DOG * WHOLE)
    np.testing.assert_array_equal(masks["val/c"], CAT * INNER)
    assert not masks["val/a"].any() and not masks["val/d"].any()
    assert (tmp_path / "out/val/masks/deep/c.png").is_file()
    assert [re.search(r": (\d) \(first", line)[1] for line in done.skipped] == [*"11121"]
    skipped = "\n".join(done.skipped)
    assert (
        "bounding boxes (lines of five numbers), which are no masks: 1 (first: b.txt, line 3)"
        in (skipped)
    )
    for words in ("odd number", "class 9, which data.yaml does not name", "in pixels"):
        assert words in skipped
    assert any("without a file of labels, all background" in line for line in done.notes)


YAMLS = {
    "list": "path: .\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n",
    "gaps": "train: images/train\nval: images/val\ntest:\nnames: {0: cat, 5: dog}\nnc: 2\n",
    "elsewhere": "path: /datasets/mine\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n",
    "lists": "train: [images/train]\nval:\n- images/val\nnames: [cat, dog]\n",
    "texts": "train: train.txt\nval: val.txt\nnames: [cat, dog]\n",
    "missing test": "train: images/train\nvalid: images/val\ntest: gone\nnames: [cat, dog]\n",
}


@pytest.mark.parametrize("name", YAMLS)
def test_yolo_reads_the_forms_of_data_yaml(name, tmp_path):
    key = 5 if name == "gaps" else 1
    lines = {"train/a": f"{key} {shares(SQUARE)}\n", "val/b": f"0 {shares(SQUARE)}\n"}
    made.yolo(tmp_path / "in", lines, YAMLS[name])
    for split, image in (("train", "a"), ("val", "b")):
        (tmp_path / f"in/{split}.txt").write_text(f"./images/{split}/{image}.png\n")
    done = write(yolo.read(tmp_path / "in"), tmp_path / "out")
    assert done.classes == ["background", "cat", "dog"]
    masks = masks_of(done)
    np.testing.assert_array_equal(masks["train/a"], DOG * INNER)
    np.testing.assert_array_equal(masks["val/b"], CAT * INNER)
    assert any("test is left out" in line for line in done.notes) == (name == "missing test")


def test_yolo_as_roboflow_writes_it(tmp_path):
    for split in ("train", "valid"):
        made.yolo(tmp_path / "in" / split, {"a": f"0 {shares(SQUARE)}\n"})
        (tmp_path / "in" / split / "data.yaml").unlink()
    text = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: ['cat']\n"
    (tmp_path / "in/data.yaml").write_text(text)
    done = write(yolo.read(tmp_path / "in/data.yaml"), tmp_path / "out")
    assert {*masks_of(done)} == {"train/a", "val/a"}


def test_yolo_with_val_the_same_as_train_has_no_splits(tmp_path):
    text = "train: images\nval: images\nnames: [cat]\n"
    made.yolo(tmp_path / "in", {"a": f"0 {shares(SQUARE)}\n"}, text)
    done = write(yolo.read(tmp_path / "in"), tmp_path / "out")
    assert {*masks_of(done)} == {"a"} and "it has the images of train" in done.notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [cat]\n", "names no images"),
        ("train: images\n", "no key 'names'"),
        ("train: nowhere\nnames: [cat]\n", "'nowhere' is not found"),
        ("train: [\n", "is no YAML"),
        ("train: images\nnames: {a: cat}\n", "not as YOLO writes it"),
        ("train: images\nnames: cat\n", "neither a list nor a mapping"),
        ("train: images/train\nnames: [cat]\n", "belong into a folder labels"),
        ("train: labels\nnames: [cat]\n", "holds no images"),
        ("- 1\n", "no key 'names'"),
    ],
)
def test_yolo_files_that_are_not_as_they_should_be(text, message, tmp_path):
    made.yolo(tmp_path / "in", {"train/a": f"0 {shares(SQUARE)}\n"}, text)
    if "labels" in message:
        (tmp_path / "in/labels").rename(tmp_path / "in/marks")
    with pytest.raises(UserError, match=message):
        write(yolo.read(tmp_path / "in"), tmp_path / "out")


# CVAT


def test_cvat_draws_by_z_order_then_in_document_order(tmp_path):
    made.image(tmp_path / "in/images/a.png")
    front = f'<polygon label="cat" z_order="1" points="{joined(SQUARE)}"/>'
    back = '<box label="dog" xtl="4" ytl="2" xbr="34" ybr="26" z_order="0"/>'
    again = '<box label="dog" xtl="0" ytl="0" xbr="12" ybr="30" z_order="1"/>'
    hole = '<box label="background" xtl="30" ytl="20" xbr="32" ybr="22" z_order="5"/>'
    thin = (
        '<polyline label="cat" points="1,1;2,2"/><points label="cat" points="1,1"/><tag label="x"/>'
    )
    made.cvat(tmp_path / "in/annotations.xml", {"a.png": thin + hole + front + back + again})
    done = write(cvat.read(tmp_path / "in"), tmp_path / "out")
    expected = np.where(INNER, CAT, DOG * WHOLE)
    expected[:, :12] = DOG
    expected[box(30, 20, 32, 22)] = 0
    np.testing.assert_array_equal(masks_of(done)["a"], expected)
    assert [line.partition(",")[0] for line in done.skipped] == [
        "shapes of the type polyline",
        "shapes of the type points",
    ]


def test_cvat_masks_boxes_that_are_turned_and_ellipses(tmp_path):
    made.image(tmp_path / "in/images/a.png")
    pixels = np.random.default_rng(1).random((7, 11)) < 0.4
    pixels[0, 0] = True  # so that the first run is of length 0
    runs, value = [], False
    for pixel in pixels.ravel():
        if pixel == value and runs:
            runs[-1] += 1
        else:
            runs += [1] if pixel == value else ([0, 1] if not runs else [1])
            value = pixel
    rle = ", ".join(map(str, runs))
    shapes = (
        f'<mask label="cat" rle="{rle}" left="3" top="4" width="11" height="7"/>'
        '<box label="dog" xtl="20" ytl="10" xbr="36" ybr="14" rotation="90"/>'
        '<ellipse label="cat" cx="10" cy="20" rx="6" ry="3" rotation="0"/>'
    )
    made.cvat(tmp_path / "in/annotations.xml", {"a.png": shapes})
    found = masks_of(write(cvat.read(tmp_path / "in"), tmp_path / "out"))["a"]
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    expected = ((x - 10) / 6) ** 2 + ((y - 20) / 3) ** 2 <= 1
    expected[4:11, 3:14] |= pixels
    np.testing.assert_array_equal(found == CAT, expected)
    np.testing.assert_array_equal(found == DOG, box(26, 4, 30, 20))


@pytest.mark.parametrize("angle", [30, 90, 200])
def test_cvat_ellipses_turn_as_its_boxes_do(angle, tmp_path):
    """The ellipse of a thin box lies along it."""
    made.image(tmp_path / "in/images/a.png")
    shapes = (
        f'<box label="dog" xtl="8" ytl="13" xbr="32" ybr="17" rotation="{angle}"/>'
        f'<ellipse label="cat" cx="20" cy="15" rx="11" ry="1.5" rotation="{angle}"/>'
    )
    made.cvat(tmp_path / "in/annotations.xml", {"a.png": shapes})
    found = masks_of(write(cvat.read(tmp_path / "in"), tmp_path / "out"))["a"]
    made.cvat(tmp_path / "in/annotations.xml", {"a.png": shapes.partition("/>")[0] + "/>"})
    alone = masks_of(write(cvat.read(tmp_path / "in"), tmp_path / "out2"))["a"]
    assert (found == CAT).sum() > 35 and (alone[found == CAT] == DOG).all()


def test_cvat_labels_in_their_order_and_subsets_as_splits(tmp_path):
    for seed, split in enumerate(("Train", "Validation")):
        made.image(tmp_path / f"in/images/{split}/a b.png", seed=seed)
    square = f'<polygon label="zoo" points="{joined(SQUARE)}"/>'
    path = tmp_path / "in/annotations.xml"
    made.cvat(path, {"a b.png": square}, labels=("zoo", "ape", "Background"), subset="Train")
    text = path.read_text()
    image = text[text.index("<image") : text.index("</annotations>")]
    path.write_text(text.replace(image, image + image.replace("Train", "Validation")))
    done = write(cvat.read(tmp_path / "in"), tmp_path / "out")
    assert done.classes == ["Background", "zoo", "ape"]
    assert {*masks_of(done)} == {"train/a b", "val/a b"}
    for split, name in (("train", "Train"), ("val", "Validation")):
        ((image, _),) = done.pairs[split]
        assert image.read_bytes() == (tmp_path / f"in/images/{name}/a b.png").read_bytes()


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ('<mask label="cat" rle="3, 4" left="0" top="0" width="3" height="3"/>', "damaged run len"),
        (
            '<mask label="cat" rle="x" left="0" top="0" width="3" height="3"/>',
            "damaged run lengths",
        ),
        (
            '<mask label="cat" rle="1000000000000" left="0" top="0" width="1000000" '
            'height="1000000"/>',
            "damaged run lengths",
        ),
        ('<box label="cat" xtl="a" ytl="0" xbr="3" ybr="3"/>', "no numbers"),
        ('<box label="cat" xtl="nan" ytl="0" xbr="3" ybr="3"/>', "no finite numbers"),
        ('<ellipse label="cat" cx="1" cy="1" rx="0" ry="3"/>', "without a radius"),
        ('<polygon label="cat" points="1,1;2,2"/>', "fewer than three points"),
        ('<polygon label="cat" points="1,1;2"/>', "no numbers"),
        ('<polygon label="cow" points="1,1;2,2;3,1"/>', "which is not listed"),
    ],
)
def test_cvat_shapes_that_cannot_be_drawn_are_counted(shape, reason, tmp_path):
    made.image(tmp_path / "in/images/a.png")
    good = f'<polygon label="cat" points="{joined(SQUARE)}"/>'
    made.cvat(tmp_path / "in/annotations.xml", {"a.png": shape + good})
    done = write(cvat.read(tmp_path / "in"), tmp_path / "out")
    (line,) = done.skipped
    assert reason in line and "a.png, " in line
    np.testing.assert_array_equal(masks_of(done)["a"], CAT * INNER)
