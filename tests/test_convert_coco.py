"""COCO's instances, against the masks of pycocotools."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from seg_l1.data.convert import coco, regions
from seg_l1.data.convert.write import write
from seg_l1.errors import UserError
from tests.support import annotations as made
from tests.support.annotations import HEIGHT, SQUARE, WIDTH, box, flat

mask_utils = pytest.importorskip("pycocotools.mask")
COCO = pytest.importorskip("pycocotools.coco").COCO

CAT, DOG = 1, 2


def converted(path, folder, images=None, **options):
    return write(coco.read(path, images, **options), folder)


def mask_of(done, name):
    """The mask (H, W) of the image of this name."""
    pairs = [pair for pairs in done.pairs.values() for pair in pairs]
    (mask,) = [mask for image, mask in pairs if image.name == name]
    return np.array(Image.open(mask))


def random_annotations(generator, count):
    """Polygons of one or two parts (some leave the image), and run lengths of both kinds."""
    found = []
    for index in range(count):
        center = generator.uniform((0, 0), (WIDTH, HEIGHT))
        angles = np.sort(generator.uniform(0, 2 * np.pi, (2, 7)), axis=1)
        rim = np.stack([np.cos(angles), np.sin(angles)], -1) * generator.uniform(2, 14)
        parts = [(center + part + 9 * i).ravel().tolist() for i, part in enumerate(rim)]
        segmentation = parts[: 1 + index % 2]
        if index % 4 > 1:
            pixels = generator.random((HEIGHT, WIDTH)) < 0.2
            rle = mask_utils.encode(np.asfortranarray(pixels.astype(np.uint8)))
            if index % 4 == 2:
                segmentation = {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}
            else:
                runs = pixels.T.ravel().astype(int)
                borders = np.flatnonzero(np.diff(np.r_[0, runs, 1 - runs[-1]]))
                counts = np.diff(np.r_[0, borders]).tolist()
                segmentation = {"size": [HEIGHT, WIDTH], "counts": counts}
        one = {"segmentation": segmentation, "category_id": [3, 7][index // 3 % 2]}
        found.append({**one, "image_id": 1 + index % 3, "iscrowd": int(index % 11 == 10)})
    return found


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_masks_are_those_of_pycocotools(tmp_path):
    """Of `annToMask`, the smaller area drawn later, crowds as 255."""
    names = ["a.png", "deep/b.png", "deep/er/c.png"]
    for seed, name in enumerate(names):
        made.image(tmp_path / "in" / name, seed=seed)
    many = random_annotations(np.random.default_rng(0), 66)
    path = made.coco(tmp_path / "in/labels.json", names, many)
    done = converted(path, tmp_path / "out")
    assert done.classes == ["background", "cat", "dog"]
    api = COCO(str(path))
    for key, name in enumerate(names, 1):
        expected = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        drawn = [(api.annToMask(one), one) for one in api.loadAnns(api.getAnnIds(imgIds=[key]))]
        for pixels, one in sorted(drawn, key=lambda pair: -int(pair[0].sum())):
            label = 255 if one["iscrowd"] else {3: CAT, 7: DOG}[one["category_id"]]
            expected[pixels == 1] = label
        assert {*np.unique(expected)} == {0, CAT, DOG, 255}
        found = np.array(Image.open(tmp_path / "out/masks" / name))
        np.testing.assert_array_equal(found, expected)
        assert (tmp_path / "out/images" / name).read_bytes() == (
            tmp_path / "in" / name
        ).read_bytes()
    crowds = sum(one["iscrowd"] for one in many)
    assert done.instances[255] == crowds == 6
    skipped = sum(int(re.search(r": (\d+) \(first", line)[1]) for line in done.skipped)
    assert sum(done.instances.values()) == 66 - skipped
    assert (tmp_path / "out/classes.txt").read_text() == "background\ncat\ndog\n"


@pytest.mark.parametrize("seed", range(5))
def test_compressed_counts_are_read_as_pycocotools_writes_them(seed):
    generator = np.random.default_rng(seed)
    shape = generator.integers(1, 90, 2)
    pixels = (generator.random(shape) < generator.random()).astype(np.uint8)
    text = mask_utils.encode(np.asfortranarray(pixels))["counts"].decode()
    counts = regions.uncompressed(text)
    assert sum(counts) == pixels.size
    np.testing.assert_array_equal(np.repeat(np.arange(len(counts)) % 2, counts), pixels.T.ravel())


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([], "without a segmentation"),
        (None, "without a segmentation"),
        ([[1, 1, 5, 5]], "fewer than three points"),
        ([[1, 1, 5, 5, 7]], "odd number"),
        ([["a", 1, 5, 5, 7, 7]], "no numbers"),
        ([[float("nan"), 1, 5, 5, 7, 7]], "no finite numbers"),
        ([[1e300, 1, 5, 5, 7, 7]], "no finite numbers"),
        ([[100, 100, 110, 100, 110, 110]], "cover no pixel"),
        ([[5, 5, 9, 9, 5, 5]], "cover no pixel"),
        ({"counts": [3, 4], "size": [HEIGHT, WIDTH]}, "damaged run lengths"),
        ({"counts": [-3, 1203], "size": [HEIGHT, WIDTH]}, "damaged run lengths"),
        ({"counts": "garbage!!", "size": [HEIGHT, WIDTH]}, "damaged run lengths"),
        ({"counts": "é", "size": [HEIGHT, WIDTH]}, "damaged run lengths"),
        ({"counts": [1200], "size": [WIDTH, HEIGHT]}, "another size"),
        ({"counts": 5}, "damaged run lengths"),
        ("polygon", "neither polygons nor run lengths"),
    ],
)
def test_what_cannot_be_drawn_is_counted_and_the_rest_is_drawn(segmentation, reason, tmp_path):
    made.image(tmp_path / "a.png")
    good = {"segmentation": [flat(SQUARE)]}
    path = made.coco(tmp_path / "x.json", ["a.png"], [{"segmentation": segmentation}, good])
    done = converted(path, tmp_path / "out")
    (line,) = done.skipped
    assert reason in line and line.endswith(": 1 (first: x.json, annotation 1)")
    np.testing.assert_array_equal(mask_of(done, "a.png") == CAT, box(10, 5, 20, 15))
    assert done.instances == {CAT: 1}


def test_a_polygon_that_goes_far_beyond_is_clipped(tmp_path):
    made.image(tmp_path / "a.png")
    far = [[-1e8, -1e8], [1e8, -1e8], [1e8, 10], [-1e8, 10]]
    path = made.coco(tmp_path / "x.json", ["a.png"], [{"segmentation": [flat(far)]}])
    done = converted(path, tmp_path / "out")
    np.testing.assert_array_equal(mask_of(done, "a.png") == CAT, box(0, 0, WIDTH, 10))
    assert "shapes clipped at the border of their image: 1" in done.notes[0]


def test_a_hole_comes_as_run_lengths_and_parts_are_a_union(tmp_path):
    made.image(tmp_path / "a.png")
    ring = box(2, 2, 28, 28) & ~box(10, 10, 20, 20)
    rle = mask_utils.encode(np.asfortranarray(ring.astype(np.uint8)))
    rle["counts"] = rle["counts"].decode()
    two = [flat(SQUARE), flat([[15, 5], [25, 5], [25, 15], [15, 15]])]
    path = made.coco(
        tmp_path / "x.json",
        ["a.png", "b.png"],
        [{"segmentation": rle}, {"segmentation": two, "image_id": 2, "category_id": 7}],
    )
    made.image(tmp_path / "b.png")
    done = converted(path, tmp_path / "out")
    np.testing.assert_array_equal(mask_of(done, "a.png") == CAT, ring)
    np.testing.assert_array_equal(mask_of(done, "b.png") == DOG, box(10, 5, 25, 15))


def test_crowds_have_their_class_if_asked(tmp_path):
    made.image(tmp_path / "a.png")
    one = {"segmentation": [flat(SQUARE)], "iscrowd": 1}
    path = made.coco(tmp_path / "x.json", ["a.png"], [one])
    with pytest.raises(UserError, match=r"no object of a class can be drawn.*crowd=class"):
        converted(path, tmp_path / "out")
    done = converted(path, tmp_path / "out2", crowd="class")
    np.testing.assert_array_equal(mask_of(done, "a.png") == CAT, box(10, 5, 20, 15))


def test_unknown_categories_and_images_are_counted(tmp_path):
    made.image(tmp_path / "a.png")
    one = {"segmentation": [flat(SQUARE)]}
    more = [{**one, "category_id": 99}, {**one, "category_id": 98}, {**one, "image_id": 5}, one]
    done = converted(made.coco(tmp_path / "x.json", ["a.png"], more), tmp_path / "out")
    assert done.skipped == [
        "annotations of the category 99, which is not listed: 1 (first: x.json, annotation 1)",
        "annotations of the category 98, which is not listed: 1 (first: x.json, annotation 2)",
        "annotations of images that are not listed: 1 (first: x.json, annotation 3)",
    ]


LAYOUTS = {
    "coco": ("annotations/instances_{}2017.json", "{}2017/{}", ("train", "val")),
    "inside": ("annotations/instances_{}2017.json", "images/{}2017/{}", ("train", "val")),
    "roboflow": ("{}/_annotations.coco.json", "{}/{}", ("train", "valid", "test")),
    "datumaro": ("annotations/instances_{}.json", "images/{}/{}", ("train", "val", "test")),
    "flat": ("{}.json", "pictures/{}-{}", ("train", "test")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_of_splits_become_split_folders(layout, tmp_path):
    """Images of the same name in each split are those of the split."""
    file, image, splits = LAYOUTS[layout]
    for seed, decoy in enumerate(("a.png", "images/a.png"), 7):
        made.image(tmp_path / "in" / decoy, seed=seed)
    for seed, split in enumerate(splits):
        made.image(tmp_path / "in" / image.format(split, "a.png"), seed=seed)
        name = "a.png" if layout != "flat" else f"{split}-a.png"
        one = {"segmentation": [flat(SQUARE)]}
        made.coco(tmp_path / "in" / file.format(split), [name], [one])
    done = converted(tmp_path / "in", tmp_path / "out")
    names = ["val" if split == "valid" else split for split in splits]
    assert {*done.pairs} == {*names}
    for split, name in zip(splits, names, strict=True):
        (pair,) = done.pairs[name]
        source = tmp_path / "in" / image.format(split, "a.png")
        assert pair[0].parent == tmp_path / "out" / name / "images"
        assert pair[0].read_bytes() == source.read_bytes()


def test_captions_and_key_points_beside_instances_are_not_read(tmp_path):
    made.image(tmp_path / "in/train2017/a.png")
    one = {"segmentation": [flat(SQUARE)]}
    made.coco(tmp_path / "in/annotations/instances_train2017.json", ["a.png"], [one])
    made.coco(tmp_path / "in/annotations/person_keypoints_train2017.json", ["a.png"], [one])
    (tmp_path / "in/annotations/captions_train2017.json").write_text("[")
    done = converted(tmp_path / "in", tmp_path / "out")
    assert {*done.pairs} == {""} and done.instances == {CAT: 1}


@pytest.mark.parametrize("name", ["C:\\data\\imgs\\a.png", "/nowhere/a.png", "sub\\a.png", "a.png"])
def test_images_are_found_below_the_folder_that_is_given(name, tmp_path):
    made.image(tmp_path / "pictures/sub/A.png" if name == "a.png" else tmp_path / "pictures/a.png")
    one = {"segmentation": [flat(SQUARE)]}
    path = made.coco(tmp_path / "json/x.json", [name], [one])
    with pytest.raises(UserError, match=r"1 of 1 images are missing: .*images=<the folder"):
        converted(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    done = converted(path, tmp_path / "out", tmp_path / "pictures")
    assert done.instances == {CAT: 1}


def test_a_name_that_several_files_have_is_refused(tmp_path):
    for folder in "bc":
        made.image(tmp_path / f"in/{folder}/x/a.png")
    one = {"segmentation": [flat(SQUARE)]}
    made.coco(tmp_path / "in/labels/x.json", ["a.png"], [one])
    with pytest.raises(UserError, match=r"several files have this name.*images=<folder>"):
        coco.read(tmp_path / "in")
    made.coco(tmp_path / "in/labels/x.json", ["b/x/a.png"], [one])
    done = converted(tmp_path / "in", tmp_path / "out")
    ((image, _),) = done.pairs[""]
    assert image == tmp_path / "out/images/b/x/a.png"


def test_classes_are_in_the_order_of_their_ids_with_the_background_first(tmp_path):
    made.image(tmp_path / "a.png")
    categories = [
        {"id": 90, "name": "tree"},
        {"id": 4, "name": "Background"},
        {"id": 2, "name": "car"},
        {"id": 7, "name": "car"},
    ]
    square = {"segmentation": [flat(SQUARE)]}
    large = {"segmentation": [flat([[2, 2], [38, 2], [38, 28], [2, 28]])]}
    some = [{**large, "category_id": 7}, {**square, "category_id": 4}]
    path = made.coco(tmp_path / "x.json", ["a.png"], some, categories=categories)
    done = converted(path, tmp_path / "out")
    assert done.classes == ["Background", "car", "tree"]
    expected = box(2, 2, 38, 28) & ~box(10, 5, 20, 15)
    np.testing.assert_array_equal(mask_of(done, "a.png"), expected)


def test_files_that_number_the_categories_differently_are_refused(tmp_path):
    made.image(tmp_path / "in/a.png")
    made.coco(tmp_path / "in/train.json", ["a.png"], [])
    made.coco(tmp_path / "in/val.json", ["a.png"], [], categories=[{"id": 3, "name": "cow"}])
    with pytest.raises(UserError, match=r"val.json: category 3 is 'cow', in another file 'cat'"):
        coco.read(tmp_path / "in")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["images"][0].pop("file_name"), "lacks 'file_name'"),
        (lambda c: c["categories"][0].pop("id"), "lacks 'id'"),
        (lambda c: c.update(images=["a.png"]), "not as COCO writes it"),
        (lambda c: c.update(annotations=[5]), "not as COCO writes it"),
        (lambda c: c.update(annotations=None), "looks like|holds the keys"),
        (lambda c: c.update(categories=[{"id": i, "name": f"c{i}"} for i in range(254)]), "255 cl"),
        (lambda c: c.update(categories=[{"id": 3, "name": "x" * 101}]), "cannot be used"),
        (lambda c: c.update(categories=[{"id": 3, "name": "a, 1, 2, 3"}]), "name and a color"),
        (lambda c: c.update(categories=[{"id": [], "name": "a"}]), "not as COCO writes it"),
        (lambda c: c.update(images=c["images"] * 2), "two images have the id 1"),
        (lambda c: c.update(images=[]), "name no images"),
        (lambda c: c.update(annotations=[]), "no object of a class can be drawn"),
        (lambda c: c["images"][0].update(width=41), "is 40x30 pixels, its annotations are for 41x"),
    ],
)
def test_files_that_are_not_as_coco_writes_them_are_refused(change, message, tmp_path):
    made.image(tmp_path / "a.png")
    one = {"segmentation": [flat(SQUARE)]}
    path = made.coco(tmp_path / "x.json", ["a.png"], [one])
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        converted(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("turn", "stored"),
    [*((turn, False) for turn in range(1, 9)), *((turn, True) for turn in range(5, 9))],
)
def test_a_turned_image_is_annotated_as_its_size_says(turn, stored, tmp_path):
    """The upright size means what is seen, the other the picture as it is stored."""
    from seg_l1.data.images import open_picture

    made.image(tmp_path / "a.png", turn=turn)
    upright = open_picture(tmp_path / "a.png").size
    width, height = (WIDTH, HEIGHT) if stored else upright
    image = {"id": 1, "file_name": "a.png", "width": width, "height": height}
    corner = [[0, 0], [12, 0], [12, 5], [0, 5]]
    path = made.coco(tmp_path / "x.json", [], [{"segmentation": [flat(corner)]}], images=[image])
    done = converted(path, tmp_path / "out")
    picture = Image.fromarray(box(0, 0, 12, 5).astype(np.uint8))
    if stored:
        exif = picture.getexif()
        exif[0x0112] = turn
        picture.save(tmp_path / "b.png", exif=exif)
        expected = np.array(open_picture(tmp_path / "b.png", mask=True))
    else:
        expected = np.zeros(upright[::-1], dtype=np.uint8)
        expected[:5, :12] = 1
    np.testing.assert_array_equal(mask_of(done, "a.png"), expected)
