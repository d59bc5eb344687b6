"""What a value of a mask means: read right, or refused with a key that reads it when typed."""

from __future__ import annotations

import re
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from seg_l1.config.limits import check_value
from seg_l1.config.words import parse_word
from seg_l1.data import folder
from seg_l1.data.mask_values import Key, color_code, text
from seg_l1.data.masks import reading_of
from seg_l1.errors import UserError

SIZE = (24, 32)
COLORS = np.array([[40, 40, 40], [200, 60, 60], [60, 200, 60], [9, 9, 200]], np.uint8)


def ids_of(index, number):
    """A scene with a block of each class, elsewhere in each file."""
    ids = np.zeros(SIZE, np.uint8)
    for label in range(1, number):
        ids[4 * label : 4 * label + 3, index : index + 10] = label
    return ids


def palette_picture(ids, order):
    """A palette mask whose palette holds the colors of the classes in another order."""
    picture = Image.fromarray(np.argsort(order).astype(np.uint8)[ids])
    picture.putpalette(COLORS[order].ravel().tolist())
    return picture


def soft(ids):
    """Black and white with gray at the borders."""
    picture = Image.fromarray(255 * ids)
    return picture.resize((97, 71), Image.Resampling.BILINEAR).resize(SIZE[::-1])


@pytest.fixture
def write(tmp_path):
    """A folder of masks made of ids, and of images that show them."""

    def make(picture_of, *, classes="abc", number=3, count=6, suffix=".png"):
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir()
        for index in range(count):
            ids = ids_of(index, number)
            Image.fromarray(COLORS[ids]).save(tmp_path / "images" / f"{index}.png")
            picture = (
                picture_of(ids, index) if picture_of.__code__.co_argcount > 1 else (picture_of(ids))
            )
            if not isinstance(picture, Image.Image):
                picture = Image.fromarray(picture)
            picture.save(tmp_path / "masks" / f"{index}{suffix}")
        if classes:
            (tmp_path / "classes.txt").write_text("\n".join(classes))
        return tmp_path

    return make


def masks_of(root, **options):
    """The class ids of each file, and the data set."""
    data = folder.load(root=str(root), image_size=options.pop("image_size", SIZE), **options)
    masks = {}
    for split in data.splits.values():
        for index, name in enumerate(split.names):
            masks[int(name.split("/")[-1].split(".")[0])] = split[[index]][1][0].numpy()
    return masks, data


def typed_in(message):
    """The sets of overrides of a message, as the arguments that they make."""
    advice = re.split(r"\b[Gg]ive ", message)[-1]
    for part in advice.split(", or "):
        words = re.findall(r"dataset\.\w+=[^\s']+|'dataset[^']+'", part)
        options = {}
        for word in words:
            override = parse_word(word.strip("'").rstrip(".") if word[0] == "'" else word)
            check_value(override.key_or_group, override.value())
            options[override.key_or_group.partition(".")[2]] = override.value()
        if options:
            yield options


def mapped(*classes):
    """The classes of the ids 0, 1, ..."""
    return lambda ids: np.array(classes, np.uint8)[ids]


def levels(*values):
    return lambda ids: np.array(values, np.uint16 if max(values) > 255 else np.uint8)[ids]


def mixed_bits(ids, index):
    picture = Image.fromarray(255 * ids)
    return picture.convert("1") if index % 2 else picture


def gray_palette(ids, index):
    picture = Image.fromarray(ids if index % 2 else 255 * ids)
    if index % 2:
        picture.putpalette([0, 0, 0, 255, 255, 255])
    return picture


# masks -> how they are written, what is typed at first, and for each remedy the classes of 0, 1, 2
REFUSED = {
    "colors": (lambda m: COLORS[m], {}, {}, [mapped(0, 2, 1)]),
    "colors, one without label": (
        lambda m: levels(0, 1, 2)(m)[..., None] * np.array([0, 60, 99], np.uint8),
        {"classes": "ab"}, {}, [mapped(255, 0, 1)]),
    "a color that is in no mask": (
        lambda m: COLORS[m], {"classes": "abcd"}, {}, [mapped(0, 2, 1)]),
    "palettes that differ": (
        lambda m, i: palette_picture(m, [0, 1, 2] if i % 2 else [0, 2, 1]), {}, {},
        [mapped(0, 2, 1), None]),
    "gray palettes among grays": (
        gray_palette, {"classes": "ab", "number": 2}, {}, [mapped(0, 1), None]),
    "1-bit among 0/255": (
        mixed_bits, {"classes": "ab", "number": 2}, {}, [mapped(0, 1), None]),
    "0/255": (levels(0, 255), {"classes": "ab", "number": 2}, {}, [mapped(0, 1)]),
    "0/255, of three classes": (levels(0, 255), {"number": 2}, {}, [mapped(0, 1)]),
    "1/255": (levels(1, 255), {"classes": "ab", "number": 2}, {}, [mapped(0, 1)]),
    "0/255 read as 0/1": (
        levels(0, 255), {"classes": "ab", "number": 2}, {"mask_values": [0, 1]}, [mapped(0, 1)]),
    "0/1 read as 0/255": (
        levels(0, 1), {"classes": "ab", "number": 2}, {"mask_values": [0, 255]}, [mapped(0, 1)]),
    "ids from 1 on": (
        levels(0, 1, 2), {"classes": "ab"}, {}, [mapped(255, 0, 1), mapped(0, 1, 255)]),
    "ids from 1 on, typed": (
        levels(0, 1, 2), {"classes": "ab"}, {"mask_values": [1, 2]}, [mapped(255, 0, 1)]),
    "0 typed as no label": (
        levels(0, 1, 2), {"classes": "ab"}, {"unlabeled_values": [0]}, [mapped(255, 0, 1)]),
    "an id without a label": (
        levels(0, 1, 11), {"classes": "ab"}, {}, [mapped(0, 1, 255), mapped(255, 0, 1)]),
    "one more id without a label": (
        lambda m, i: levels(0, 1, 11 + i % 2)(m), {"classes": "ab"}, {"unlabeled_values": [11]},
        [mapped(0, 1, 255)]),
    "trimaps": (
        levels(0, 128, 255), {"classes": "ab"}, {}, [mapped(0, 255, 1), mapped(0, 1, 255)]),
    "an id of three classes": (levels(0, 7), {"number": 2}, {}, [mapped(0, 1)]),
    "16-bit ids": (
        levels(0, 1000, 2000), {"classes": "ab"}, {}, [mapped(255, 0, 1)]),
    "negative ids": (
        lambda m: m.astype(np.int32) - 1, {"classes": "ab", "suffix": ".tif"},
        {}, [mapped(255, 0, 1), mapped(0, 255, 1)]),
    "JPEG": (
        levels(0, 255), {"classes": "ab", "number": 2, "suffix": ".jpg"}, {}, [mapped(0, 1)]),
    "JPEG in color": (
        lambda m: Image.fromarray(255 * m).convert("RGB"),
        {"classes": "ab", "number": 2, "suffix": ".jpg"}, {}, [mapped(0, 1)]),
    "soft borders": (soft, {"classes": "ab", "number": 2}, {}, [None]),
    "soft borders, typed": (
        soft, {"classes": "ab", "number": 2}, {"mask_values": [0, 255]}, [None]),
    "threshold of 0/1": (
        levels(0, 1), {"classes": "ab", "number": 2}, {"mask_threshold": 128}, [mapped(0, 1)]),
    "three numbers, two meanings": (
        lambda m, i: np.full(SIZE, 20, np.uint8) if i == 0 else (
            np.array([[10, 20, 30], [200, 100, 50]], np.uint8)[m]),
        {"classes": "ab", "number": 2}, {"mask_values": [[10, 20, 30], [200, 100, 50]]}, []),
    "many colors": (
        lambda m, i: np.where((np.arange(32) < 8)[:, None], np.arange(32, dtype=np.uint8)[:, None]
                              * np.array([1, 2, 3], np.uint8), COLORS[m]),
        {}, {}, [None]),
    "one photograph": (
        lambda m, i: np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
        if i == 3 else m,
        {}, {}, [None]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_the_remedy_of_a_refusal_reads_the_masks(case, write):
    picture_of, layout, typed, expected = REFUSED[case]
    root = write(picture_of, **layout)
    with pytest.raises(UserError) as caught:
        masks_of(root, **typed)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) - message.count(str(root)) * len(str(root)) < 700
    remedies = list(typed_in(message))
    if expected:
        assert len(remedies) == len(expected), message
    for options, classes in zip(remedies, expected, strict=False):
        kept = {} if "Leave this key out" in message else typed
        masks, _ = masks_of(root, **{**kept, **options})
        for index, got in masks.items():
            if classes is not None:
                wanted = classes(ids_of(index, layout.get("number", 3)))
                if case.startswith("JPEG"):
                    assert (got != wanted).mean() < 0.01
                else:
                    assert np.array_equal(got, wanted), options


@pytest.mark.parametrize("picture_of", [levels(0, 1), levels(0, 255)], ids=["0/1", "0/255"])
@pytest.mark.parametrize("listing", [True, False])
def test_one_class_needs_a_background(picture_of, listing, write):
    root = write(picture_of, classes=["crack"] if listing else None, number=2)
    with pytest.raises(UserError, match="Name the background too") as caught:
        masks_of(root, num_classes=1)
    (root / "classes.txt").write_text("background\ncrack\n")
    options = [found for found in typed_in(str(caught.value)) if "mask_values" in found]
    assert len(options) == (picture_of(np.ones(1, int))[0] > 1)
    masks, data = masks_of(root, **(options[0] if options else {}))
    assert data.classes == ["background", "crack"]
    assert all(np.array_equal(got, ids_of(index, 2)) for index, got in masks.items())


UNNAMED = {
    "ids": (levels(0, 1, 2), mapped(0, 1, 2)),
    "ids and 255": (levels(0, 1, 255), mapped(0, 1, 255)),
    "0, 128, 255": (levels(0, 128, 255), mapped(0, 1, 2)),
    "colors": (lambda m: COLORS[m], mapped(0, 2, 1)),
    "palettes that differ": (
        lambda m, i: palette_picture(m, PALETTES[i % 3]), mapped(0, 2, 1)),
    "16 bits": (levels(0, 300, 65535), mapped(0, 1, 2)),
}  # fmt: skip


@pytest.mark.parametrize("case", UNNAMED)
def test_masks_without_a_listing_are_read_by_the_key_that_is_suggested(case, write):
    picture_of, classes = UNNAMED[case]
    root = write(picture_of, classes=None)
    with pytest.raises(UserError, match=r"classes.txt: is missing") as caught:
        masks_of(root)
    (options,) = typed_in(str(caught.value))
    masks, _ = masks_of(root, **options)
    assert all(np.array_equal(got, classes(ids_of(index, 3))) for index, got in masks.items())


def test_soft_masks_without_a_listing_are_cut(write):
    root = write(soft, classes=None, number=2)
    with pytest.raises(UserError) as caught:
        masks_of(root)
    assert list(typed_in(str(caught.value))) == [{"num_classes": 2, "mask_threshold": 128}]


PALETTES = [[0, 1, 2], [0, 2, 1], [2, 0, 1]]

# masks -> how they are written, what is typed, the classes of 0, 1, 2, 3
READ = {
    "hex": (lambda m: COLORS[m], ["#282828", "#C83C3C", "#3cc83c"], mapped(0, 1, 2)),
    "numbers": (lambda m: COLORS[m], COLORS[:3].tolist(), mapped(0, 1, 2)),
    "text without quotes, as a shell leaves it": (
        lambda m: COLORS[m], "[#282828,[#c83c3c],#3cc83c]", mapped(0, 1, 2)),
    "gray as an id": (lambda m: COLORS[m], [40, "#c83c3c", "#3cc83c"], mapped(0, 1, 2)),
    "colors of one class": (lambda m: COLORS[m], ["#282828", ["#c83c3c", [60, 200, 60]]],
                            mapped(0, 1, 1)),
    "palettes that differ": (
        lambda m, i: palette_picture(m, PALETTES[i % 3]), ["#282828", "#c83c3c", "#3cc83c"],
        mapped(0, 1, 2)),
    "colors, palettes and RGBA": (
        lambda m, i: palette_picture(m, [1, 0, 2]) if i % 2 else (
            Image.fromarray(COLORS[m]).convert("RGBA")),
        COLORS[:3].tolist(), mapped(0, 1, 2)),
    "ids of one class": (levels(0, 1, 7), [0, [1, 7]], mapped(0, 1, 1)),
    "three ids of one class": (
        lambda m: levels(5, 6, 7, 8)(ids_of(0, 4) * (m >= 0)), [[5, 6, 7], 8], None),
    "a class in no mask": (levels(0, 1, 7), [0, [], 1, 7], mapped(0, 2, 3)),
    "another order": (levels(0, 1, 2), [2, 0, 1], mapped(1, 2, 0)),
    "16 bits": (levels(0, 300, 65535), [0, 300, 65535], mapped(0, 1, 2)),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_mask_values_say_what_a_pixel_means(case, write):
    picture_of, values, classes = READ[case]
    root = write(picture_of, classes=None)
    if isinstance(values, list):
        check_value("dataset.mask_values", values)
    for memory in (2048, 0):
        masks, _ = masks_of(root, mask_values=values, memory_mib=memory)
        for index, got in masks.items():
            wanted = ids_of(index, 3) if classes else ids_of(0, 4)
            wanted = classes(wanted) if classes else np.array([0, 0, 0, 1], np.uint8)[wanted]
            assert np.array_equal(got, wanted)


@pytest.mark.parametrize("number", [3, 4])
def test_other_values_have_no_label(number, write):
    root = write(levels(0, 7, 8, 9), classes="ab", number=number)
    masks, data = masks_of(root, mask_values=[0, 8], unlabeled_values="others")
    for index, got in masks.items():
        assert np.array_equal(got, mapped(0, 255, 1, 255)(ids_of(index, number)))
    assert 0 < data.unlabeled < 1


def test_white_may_be_a_class_of_colors_and_255_is_no_label_of_ids(write):
    root = write(lambda m: np.array([[0, 0, 0], [255, 255, 255], [9, 9, 200]], np.uint8)[m])
    _, data = masks_of(root, mask_values=["#000000", "#ffffff", "#0909c8"])
    assert data.unlabeled == 0
    with pytest.raises(UserError, match=r"holds the value 255"):
        masks_of(root, mask_values=["#000000", "#0909c8", "#0909c9"])


@pytest.mark.parametrize("values", [None, [0, 1], [0, 255], [255, 0]], ids=str)
def test_white_of_1_bit_masks_is_what_the_key_names(values, write):
    """255 where the key names 255, else 1; together with 8-bit masks of these values."""
    white = 255 if values and 255 in values else 1

    def picture_of(ids, index):
        return Image.fromarray(ids > 0) if index % 2 else white * ids

    masks, _ = masks_of(write(picture_of, classes="ab", number=2), mask_values=values)
    order = mapped(1, 0) if values == [255, 0] else mapped(0, 1)
    for index, got in masks.items():
        assert np.array_equal(got, order(ids_of(index, 2)))


def test_1_bit_masks_among_1_and_255_are_refused(write):
    root = write(lambda m, i: Image.fromarray(m > 0) if i == 0 else levels(0, 1, 255)(m))
    with pytest.raises(UserError, match="save the 1-bit masks as 8-bit PNG"):
        masks_of(root, mask_values=[0, 1, 255])
    picture = Image.open(root / "masks" / "0.png").convert("L")
    picture.save(root / "masks" / "0.png")
    masks_of(root, mask_values=[0, 1, 255])


@pytest.mark.parametrize("values", [None, [0, 255], [255, 0]], ids=str)
@pytest.mark.parametrize("threshold", [50, 128, 200.5])
def test_a_threshold_cuts_where_it_says(values, threshold, write):
    root = write(soft, classes="ab", number=2)
    masks, data = masks_of(root, mask_values=values, mask_threshold=threshold)
    assert data.unlabeled == 0
    for index, got in masks.items():
        bright = np.array(soft(ids_of(index, 2))) >= threshold
        assert np.array_equal(got, ~bright if values == [255, 0] else bright)


def test_colors_beside_a_threshold_are_not_labeled_if_others_are_not(write):
    def with_red(ids):
        picture = np.stack([255 * ids] * 3, -1)
        picture[:5, :5] = (200, 0, 0)
        return picture

    root = write(with_red, classes="ab", number=2)
    masks, _ = masks_of(root, mask_threshold=128, unlabeled_values="others")
    for index, got in masks.items():
        expected = ids_of(index, 2).copy()
        expected[:5, :5] = 255
        assert np.array_equal(got, expected)
    with pytest.raises(UserError, match=r"holds the value \[200,0,0\]"):
        masks_of(root, mask_threshold=128)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask_threshold": 128}, r"mask_threshold: makes two classes, but there are 3"),
        ({"mask_values": [0, 1]}, r"mask_values: 2 values for 3 classes"),
        ({"mask_values": [0, 1, [2, 0]]}, r"mask_values: .* names a value twice \(0\)"),
        ({"mask_values": [0, 1, 2], "unlabeled_values": [2]}, r"unlabeled_values: 2 is the value"),
        ({"mask_values": [0, 1, "road"]}, r"mask_values: got .*road.*, expected a list"),
        ({"mask_values": "road"}, r"mask_values: got 'road', expected a list"),
        ({"unlabeled_values": 5}, r"unlabeled_values: got 5, expected a list"),
        ({"unlabeled_values": ["#12345"]}, r"unlabeled_values: got"),
    ],
)
def test_a_key_that_contradicts_itself_is_refused(options, words, write):
    with pytest.raises(UserError, match=f"^dataset.{words}"):
        masks_of(write(levels(0, 1, 2)), **options)


def test_both_values_of_a_threshold_on_one_side_are_refused(write):
    with pytest.raises(UserError, match=r"^dataset.mask_threshold: expected .* below 128"):
        masks_of(write(soft, classes="ab", number=2), mask_values=[0, 1], mask_threshold=128)


@pytest.mark.parametrize("name", ["classes.txt", "class_dict.csv"])
@pytest.mark.parametrize("header", ["", "name, r, g, b\n", "class,red,green,blue\n"])
def test_a_listing_of_classes_gives_their_colors(name, header, write):
    root = write(lambda m: COLORS[m], classes=None)
    lines = [f"{word}, {', '.join(map(str, COLORS[i]))}" for i, word in enumerate("xyz")]
    (root / name).write_text(header + "\n".join(lines) + "\n\n")
    masks, data = masks_of(root)
    assert data.classes == ["x", "y", "z"]
    assert all(np.array_equal(got, ids_of(index, 3)) for index, got in masks.items())
    for path in (root / "masks").iterdir():
        Image.fromarray(ids_of(int(path.stem), 3)).save(path)
    with pytest.raises(UserError) as caught:
        masks_of(root)
    (options,) = typed_in(str(caught.value))
    masks, _ = masks_of(root, **options)
    assert all(np.array_equal(got, ids_of(index, 3)) for index, got in masks.items())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x, 1, 2, 3\ny, 1, 2, 300\n", r"'y, 1, 2, 300' is not like"),
        ("x, 1, 2, 3\ny\n", r"'y' is not like"),
        ("x, 1, 2, 3\ny, 1, 2, 3\n", r"gives the color \[1, 2, 3\] to two classes"),
        ("x, 1, 2, 3\nx, 1, 2, 4\n", r"names a class twice"),
    ],
)
def test_a_listing_with_other_lines_is_refused(text, words, write):
    root = write(levels(0, 1), classes=[text], number=2)
    with pytest.raises(UserError, match=rf"classes.txt: {words}"):
        masks_of(root)


def test_commas_in_names_of_classes_are_no_colors(write):
    _, data = masks_of(write(levels(0, 1), classes=["sky, clouds", "car"], number=2))
    assert data.classes == ["sky, clouds", "car"]


def test_gray_levels_of_the_classes_are_taken_with_a_note(write):
    masks, data = masks_of(write(levels(0, 100, 200)))
    assert all(np.array_equal(got, ids_of(index, 3)) for index, got in masks.items())
    (note,) = data.notes
    assert "0 = a, 100 = b, 200 = c (dataset.mask_values=[0,100,200])" in note


def test_pixels_that_differ_in_transparency_alone_are_refused(write):
    def picture_of(ids):
        return np.dstack([np.zeros_like(ids), 100 * ids])

    with pytest.raises(UserError, match="differ in transparency; save it without an alpha channel"):
        masks_of(write(picture_of))


def test_a_color_that_is_always_transparent_is_read(write):
    colors = np.concatenate([COLORS, [[0], [255], [255], [255]]], 1).astype(np.uint8)
    masks, _ = masks_of(write(lambda m: colors[m]), mask_values=COLORS[:3].tolist())
    assert all(np.array_equal(got, ids_of(index, 3)) for index, got in masks.items())


def test_deep_colors_are_refused_not_cut_to_8_bits(write):
    root = write(levels(0, 1, 2))
    rows = b"".join(b"\0" + row.tobytes() for row in np.full((*SIZE, 3), 300, ">u2"))
    header = struct.pack(">IIBBBBB", SIZE[1], SIZE[0], 16, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    (root / "masks" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    with pytest.raises(UserError, match=r"0.png: has 16 bits per channel; .* 8-bit PNG"):
        masks_of(root)


def test_classes_that_the_size_loses_are_counted(write):
    """Of each three rows the middle one is kept: row 5 is lost, of rows 4 to 6 row 4 is not."""

    def picture_of(ids, index):
        thin = np.zeros(SIZE, np.uint8)
        thin[5 if index < 4 else slice(4, 7)] = 1
        thin[9:20, 3:20] = 2
        return thin

    root = write(picture_of)
    masks, data = masks_of(root, image_size=(8, 32))
    assert [index for index, got in sorted(masks.items()) if not (got == 1).any()] == [0, 1, 2, 3]
    (note,) = data.notes
    assert note.startswith("image_size 8x32 (height x width) loses b in 4 of 6 masks;")
    assert masks_of(root, image_size=None)[1].notes == []


def test_a_class_that_the_size_loses_everywhere_is_not_called_absent(write):
    def picture_of(ids):
        thin = np.zeros(SIZE, np.uint8)
        thin[5] = 1
        return thin

    data = masks_of(write(picture_of), image_size=(8, 32))[1]
    assert [note.partition(";")[0] for note in data.notes] == [
        "image_size 8x32 (height x width) loses b in 6 of 6 masks",
        "no training pixel has the class c",
    ]


def test_codes_are_texts_and_back():
    for color in COLORS.tolist():
        code = color_code(*color)
        assert text(code) == (str(color[0]) if len({*color}) == 1 else str(color).replace(" ", ""))


def test_values_are_looked_up_like_a_dictionary():
    """Codes of all kinds, against the dictionary that the key stands for."""
    key = Key([[-5, 70000], "#c83c3c", [200, 255]], [3, "#3cc83c"])
    reading = reading_of(key, 3)
    of = {-5: 0, 70000: 0, color_code(200, 60, 60): 1, 200: 2, 255: 2, 3: 255,
          color_code(60, 200, 60): 255}  # fmt: skip
    codes = np.array([*of, *(code + 1 for code in of), 0, 254])
    assert reading.plain(codes).tolist() == [of.get(code, 254) for code in codes.tolist()]
    small = np.arange(256, dtype=np.uint8)
    assert reading.plain(small).tolist() == [of.get(code, 254) for code in range(256)]
    assert torch.equal(torch.from_numpy(reading.plain(small[None])[0]),
                       torch.from_numpy(reading.plain(small)))  # fmt: skip
