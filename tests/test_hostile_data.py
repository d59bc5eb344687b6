"""Pictures of every kind: what can be read is, by value; all else is named with its remedy."""

from __future__ import annotations

import json
import shutil
import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image

from seg_l1.data import folder
from seg_l1.errors import UserError
from tests.support.refusals import assert_refused, called
from tests.support.runs import TINY, table
from tests.support.standard_files import WRITERS

RNG = np.random.default_rng(0)
COLOUR = Image.fromarray(RNG.integers(0, 255, (20, 30, 3), dtype=np.uint8))
IDS = Image.fromarray(RNG.integers(0, 2, (20, 30), dtype=np.uint8))
KINDS = ("images", "masks")


def path_of(root, kind, suffix=".png"):
    return root / kind / f"004{suffix}"


def replaced(suffix=".png", **options):
    """Puts a picture of another kind in place of one."""

    def with_picture(picture):
        def damage(root, kind):
            path_of(root, kind).unlink()
            picture.save(path_of(root, kind, suffix), **options)

        return damage

    return with_picture


def filled(content):
    return lambda root, kind: path_of(root, kind).write_bytes(content)


def cut(share):
    def damage(root, kind):
        content = path_of(root, kind).read_bytes()
        path_of(root, kind).write_bytes(content[: int(share * len(content))])

    return damage


def flipped(root, kind):
    content = bytearray(path_of(root, kind).read_bytes())
    content[len(content) // 2] ^= 255
    path_of(root, kind).write_bytes(content)


def linked(target):
    def damage(root, kind):
        path_of(root, kind).unlink()
        path_of(root, kind).symlink_to(target)

    return damage


def as_folder(root, kind):
    path_of(root, kind).unlink()
    path_of(root, kind).mkdir()


def renamed(name):
    return lambda root, kind: path_of(root, kind).rename(root / kind / name)


def twice(root, kind):
    shutil.copy(path_of(root, kind), path_of(root, kind, ".bmp"))


def lonely(root, kind):
    path_of(root, kind).unlink()


def frames(picture):
    return {"save_all": True, "append_images": [picture.point(lambda value: 1 - value)]}


HEADER = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
UNREADABLE = ["004.png: cannot be read", "Replace it"]

# what becomes of an image or of a mask -> words of the message
BAD_FILES = {
    "zero bytes": (filled(b""), [*UNREADABLE, "it is empty"]),
    "a text": (filled(b"hello"), [*UNREADABLE, "it is no picture"]),
    "SVG": (filled(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), UNREADABLE),
    "PostScript, which would start a program": (
        filled(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 20\n"),
        [*UNREADABLE, "no picture"]),
    "a signature alone": (filled(HEADER[:8]), UNREADABLE),
    "a header of 2^31 pixels squared": (
        filled(HEADER + b"\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x00\x00\x00\x00" + bytes(4)),
        UNREADABLE),
    "half of it": (cut(0.5), [*UNREADABLE, "truncated"]),
    "a tenth of it": (cut(0.1), UNREADABLE),
    "a byte that flipped": (flipped, UNREADABLE),
    "a link to itself": (linked("004.png"), [*UNREADABLE, "symbolic links"]),
    "a link to nowhere": (linked("nowhere.png"), [*UNREADABLE, "No such file"]),
    "a folder": (as_folder, [*UNREADABLE, "directory"]),
    "16 bits": (
        replaced()(Image.fromarray(np.ones((20, 30), np.uint16))),
        ["004.png: cannot be read", "expected 8 bits", "to_png"]),
    "32 bits": (
        replaced(".tif")(Image.fromarray(np.ones((20, 30), np.int32))), ["004.tif", "8 bits"]),
    "floats": (
        replaced(".tif")(Image.fromarray(np.ones((20, 30), np.float32))), ["004.tif", "8 bits"]),
    "GIF with two frames": (
        replaced(format="GIF", **frames(IDS))(IDS), [*UNREADABLE, "2 pictures, expected one"]),
    "PNG with two frames": (replaced(**frames(IDS))(IDS), [*UNREADABLE, "2 pictures"]),
    "TIFF with two pages": (replaced(".tif", **frames(IDS))(IDS), ["004.tif", "2 pictures"]),
    "a suffix that is not read": (
        renamed("004.xyz"), ["004.xyz", "is left out", ".png"]),
    "a format that is not read": (
        renamed("004.psd"), ["004.psd: is Photoshop", "Export it as PNG"]),
    "a format that can be converted": (
        renamed("004.dcm"), ["004.dcm: is DICOM", "seg_l1.data.to_png street/"]),
    "1x1": (replaced()(Image.new("L", (1, 1))), ["004.png", "1x1", "30x20", "same size"]),
    "20000x10": (replaced()(Image.new("L", (20_000, 10))), ["20000x10", "same size"]),
    "two of a name": (twice, ["004.png", "004.bmp", "keep one"]),
    "one of two": (lonely, ["'004'", "Names must agree"]),
    "another name": (renamed("x.png"), ["'004'", "Names must agree"]),
}  # fmt: skip

BAD_MASKS = {
    "CMYK": (replaced(".tif")(COLOUR.convert("CMYK")), ["004.tif", "mode CMYK", "RGB PNG"]),
    "RGB": (replaced()(COLOUR), ["004.png", "dataset.unlabeled_values=others"]),
    "RGBA": (replaced()(COLOUR.convert("RGBA")), ["004.png", "dataset.unlabeled_values=others"]),
    "fractions": (
        replaced(".tif")(Image.fromarray(np.full((20, 30), 0.5, np.float32))), ["fractions"]),
    "JPEG": (replaced(".jpg")(IDS), ["004.jpg", "JPEG changes class ids", "PNG"]),
    "colours for ids": (replaced()(COLOUR.convert("P")), ["004.png", "value", "expected 0 to 1"]),
    "values beyond": (replaced()(IDS.point(lambda x: 3 * x)), ["value 3", "expected 0 to 1"]),
    "1 bit, of which 1 is 255": (
        replaced()(IDS.point(lambda x: 254 * x)), ["value 254", "255 for not labeled"]),
}  # fmt: skip

DEEP = ("16 bits", "32 bits", "floats")
"""What no image may be; as a mask it holds class ids."""

CASES = {
    (name, kind): case
    for name, case in BAD_FILES.items()
    for kind in KINDS
    if kind == "images" or name not in DEEP
}
CASES |= {(name, "masks"): case for name, case in BAD_MASKS.items()}
SMALL = ["dataset=folder", "dataset.root=street", "dataset.image_size=[16,24]", "model.width=4"]


@pytest.mark.parametrize("case", CASES, ids=" in ".join)
def test_a_picture_that_is_none_is_named(case, street, command, tmp_path):
    damage, words = CASES[case]
    damage(street, case[1])
    assert_refused(command(*SMALL), words, tmp_path)


def test_a_picture_that_is_none_ends_the_command(street, command, tmp_path):
    path_of(street, "images").write_bytes(b"")
    assert_refused(command(*SMALL), [*UNREADABLE, "it is empty"], tmp_path)


def all_but(count):
    def damage(root):
        for path in [*root.glob("*/*.png")]:
            if int(path.stem) >= count:
                path.unlink()

    return damage


def listed(text):
    return lambda root: (root / "classes.txt").write_bytes(text)


def masks_are(make):
    def damage(root):
        shutil.rmtree(root / "masks")
        make(root / "masks")

    return damage


def each_mask(change):
    def damage(root):
        for path in root.glob("masks/*"):
            Image.fromarray(change(np.array(Image.open(path)))).save(path)

    return damage


# what becomes of the folder -> what is typed beside it, words of the message
BAD_FOLDERS = {
    "one pair": (all_but(1), [], ["dataset.val_fraction=0.2", "'val' empty"]),
    "one picture of two": (
        lambda root: (all_but(2)(root), (root / "masks/001.png").unlink()), [], ["'001'", "agree"]),
    "no pair": (all_but(0), [], ["street", "no images", "Fill"]),
    "masks is a file": (masks_are(lambda p: p.touch()), [], ["masks", "missing"]),
    "masks leads to itself": (masks_are(lambda p: p.symlink_to("masks")), [], ["masks", "missing"]),
    "neither folder": (
        lambda root: (shutil.rmtree(root / "masks"), shutil.rmtree(root / "images")), [],
        ["street", "images/ and masks/"]),
    "root is a file": (lambda root: None, ["dataset.root=street/classes.txt"], ["no folder"]),
    "root leads to itself": (
        lambda root: (root / "x").symlink_to("x"), ["dataset.root=street/x"], ["no folder"]),
    "grey masks": (
        each_mask(lambda mask: 255 * mask), [], ["masks", "dataset.mask_values=[0,255]"]),
    "nothing labeled": (each_mask(lambda mask: 0 * mask + 255), [], ["masks", "255"]),
    "a class twice": (listed(b"car\ncar\n"), [], ["classes.txt", "twice"]),
    "no class": (listed(b"\n \n"), [], ["classes.txt", "0 classes", "1 to 254"]),
    "300 classes": (
        listed(b"\n".join(b"%d" % i for i in range(300))), [], ["classes.txt", "1 to 254"]),
    "a class with a NUL": (listed(b"a\0b\nc"), [], ["classes.txt", "is no name"]),
    "a class of 3000 letters": (listed(b"x" * 3000 + b"\ny"), [], ["classes.txt", "100 letters"]),
    "classes in Latin-1": (listed(b"stra\xdfe\ncar"), [], ["classes.txt", "UTF-8"]),
    "classes are a folder": (
        lambda root: ((root / "classes.txt").unlink(), (root / "classes.txt").mkdir()), [],
        ["classes.txt", "num_classes"]),
    "another number of classes": (
        lambda root: None, ["dataset.num_classes=3"], ["classes.txt", "num_classes=3"]),
    "a value for two classes": (
        lambda root: None, ["dataset.mask_values=[0,0]"], ["dataset.mask_values", "twice"]),
    "too many values": (
        lambda root: None, ["dataset.mask_values=[0,1,2]"], ["dataset.mask_values", "3 values"]),
    "no values": (lambda root: None, ["dataset.mask_values=[]"], ["mask_values", "0 values"]),
    "a value that is none": (
        lambda root: None, ["dataset.mask_values=[0,road]"], ["mask_values", "an id, a color"]),
    "a value above all ids": (
        lambda root: None, ["dataset.mask_values=[0,4294967296]"], ["mask_values", "an id"]),
    "all is validation": (
        lambda root: None, ["dataset.val_fraction=1"], ["val_fraction", "nothing to train"]),
    "no validation": (
        lambda root: None, ["dataset.val_fraction=0"], ["val_fraction", "'val' empty"]),
    "no regular expression": (
        lambda root: None, ["dataset.group_pattern=("], ["dataset.group_pattern", "'('"]),
    "no group": (
        lambda root: None, ["dataset.group_pattern=zzz"], ["dataset.group_pattern", "000.png"]),
    "own sizes in a batch": (
        lambda root: None, ["dataset.image_size=null"], ["augmentation.crop=[H,W]"]),
    "three class weights": (
        lambda root: None, ["dataset.class_weights=[1,2,3]"], ["dataset.class_weights: 3 numbers"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_a_folder_that_is_none_is_named(case, street, command, tmp_path):
    damage, typed, words = BAD_FOLDERS[case]
    damage(street)
    assert_refused(command(*SMALL, *typed), words, tmp_path)


def test_a_picture_of_billions_of_pixels_is_not_unpacked(street, monkeypatch):
    monkeypatch.setattr("seg_l1.data.images.MOST_PIXELS", 599)
    with pytest.raises(UserError, match="more than 599 pixels"):
        folder.load(root=str(street))


def read(root, **options):
    """The pair that was changed, as it is trained on: (H, W, C) and (H, W)."""
    data = folder.load(root=str(root), image_size=options.pop("image_size", None), **options)
    for split in data.splits.values():
        for index, name in enumerate(split.names):
            if unicodedata.normalize("NFC", name).startswith(("images/004", "images/é")):
                image, mask = split[[index]]
                return image[0].permute(1, 2, 0).numpy(), mask[0].numpy()
    raise AssertionError("the pair is not there")


def palette(ids):
    coloured = ids.copy()
    coloured.putpalette([10, 20, 30, 200, 100, 50])
    return coloured


@pytest.mark.parametrize(
    "picture",
    [
        IDS,
        palette(IDS),
        IDS.point(lambda value: 255 * value).convert("1"),
        IDS.convert("RGB"),
    ],
    ids=["grey", "palette", "1 bit", "RGB"],
)
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".PNG"])
def test_masks_of_all_kinds_hold_the_same_ids(picture, suffix, street):
    replaced(suffix, format={".bmp": "BMP", ".tif": "TIFF"}.get(suffix, "PNG"))(picture)(
        street, "masks"
    )
    assert np.array_equal(read(street)[1], np.array(IDS))


@pytest.mark.parametrize("kind", ["LA", "RGBA", "uint16", "int16", "int32", "float32"])
def test_masks_of_other_depths_hold_the_same_ids(kind, street):
    picture = IDS.convert(kind) if "A" in kind else Image.fromarray(np.array(IDS).astype(kind))
    replaced(".tif")(picture)(street, "masks")
    assert np.array_equal(read(street)[1], np.array(IDS))


def test_a_palette_with_a_transparent_colour_holds_ids(street):
    replaced(transparency=0)(palette(IDS))(street, "masks")
    assert np.array_equal(read(street)[1], np.array(IDS))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "P", "L", "LA", "1"])
def test_images_of_all_kinds_are_read_in_colour(mode, street):
    """As Pillow converts them; alpha is left out, not laid over black."""
    picture = COLOUR.convert(mode)
    if "A" in mode:
        picture.putalpha(Image.new("L", picture.size, 7))
    replaced(".tif" if mode == "CMYK" else ".png")(picture)(street, "images")
    expected = np.array(COLOUR.convert(mode.replace("A", "")).convert("RGB"))
    assert np.array_equal(read(street)[0], expected)
    grey = np.array(picture.convert("L"))[..., None]
    assert np.array_equal(read(street, channels=1)[0], grey)


def test_a_single_gif_named_png_is_read(street):
    replaced(format="GIF")(palette(IDS))(street, "masks")
    assert np.array_equal(read(street)[1], np.array(IDS))


def oriented(picture, orientation):
    """Options of `save` with which a picture is shown turned; that way it must be read."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return {"exif": exif}


TURN = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}
"""EXIF orientation -> what a viewer shows of the rows that are stored."""


@pytest.mark.parametrize("orientation", TURN)
def test_image_and_mask_are_turned_upright_alike(orientation, street):
    """Each by its own note: a mask that was drawn on the upright image has none."""
    turn = TURN[orientation]
    replaced(**oriented(COLOUR, orientation))(COLOUR)(street, "images")
    upright = Image.fromarray(np.ascontiguousarray(turn(np.array(IDS))))
    for mask, note in ((IDS, oriented(IDS, orientation)), (upright, {})):
        replaced(**note)(mask)(street, "masks")
        image, ids = read(street)
        assert np.array_equal(image, turn(np.array(COLOUR)))
        assert np.array_equal(ids, turn(np.array(IDS)))


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_that_lies_otherwise_than_its_image_is_refused(
    orientation, street, command, tmp_path
):
    replaced(**oriented(COLOUR, orientation))(COLOUR)(street, "images")
    words = ["masks", "004.png", "20x30", "EXIF orientation", "same size"]
    assert_refused(command(*SMALL), words, tmp_path)


@pytest.mark.parametrize("size", [(1, 1), (20_000, 10), (3, 2000)])
def test_pictures_of_odd_sizes_are_resized(size, street):
    """A constant picture stays one, whatever its size; the mask keeps its two halves."""
    width, height = size
    mask = np.zeros((height, width), np.uint8)
    mask[:, (width + 1) // 2 :] = 1
    replaced()(Image.new("RGB", size, (9, 8, 7)))(street, "images")
    replaced()(Image.fromarray(mask))(street, "masks")
    image, ids = read(street, image_size=(16, 24))
    assert (image == (9, 8, 7)).all()
    halves = np.arange(24) >= 12 if width > 1 else np.zeros(24)
    if width != 3:
        assert np.array_equal(ids, np.broadcast_to(halves, (16, 24)))


NAMES = ["a b (1), [x] = 100 %", "日本 😀", "-rf", "a\nb", "'\"", "x" * 200, "[red]", "${x}", "..a"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_pictures_may_have_any_name(name, street):
    expected = read(street)
    for kind in KINDS:
        renamed(f"é{name}.png")(street, kind)
    for got, wanted in zip(read(street), expected, strict=True):
        assert np.array_equal(got, wanted)


def test_an_accent_may_be_a_letter_of_its_own(street):
    """macOS writes é as two letters, other systems as one."""
    expected = read(street)
    renamed(unicodedata.normalize("NFC", "é.png"))(street, "images")
    renamed(unicodedata.normalize("NFD", "é.png"))(street, "masks")
    for got, wanted in zip(read(street), expected, strict=True):
        assert np.array_equal(got, wanted)


def test_what_systems_leave_in_folders_is_no_picture(street):
    before = folder.load(root=str(street)).fingerprint
    for kind in KINDS:
        (street / kind / "._004.png").write_bytes(b"\x00\x05\x16\x07")
        (street / kind / "Thumbs.db").write_bytes(b"x")
        (street / kind / ".DS_Store").write_bytes(b"x")
    (street / "classes.txt").write_bytes(b"\xef\xbb\xbfroad\r\ncar\r\n")
    data = folder.load(root=str(street))
    assert data.fingerprint == before
    assert data.classes == ["road", "car"]


def test_names_of_bytes_and_classes_of_signs_train(street, command, tmp_path):
    for kind in KINDS:
        renamed("\udcff.png")(street, kind)
    (street / "classes.txt").write_text("[/red] $\\frac$\n日本 :smile:\n", "utf-8")
    words = [word for word in TINY if "dataset.num" not in word and "epochs" not in word]
    code, out, err = command(*SMALL, *words, "trainer.epochs=1", "hydra.run.dir=run")
    assert (code, err) == (0, "")
    assert "[/red] $\\frac$" in out
    assert "日本 :smile:" in out
    assert [row["class"] for row in table(tmp_path / "run/per_class.csv")] == [
        "[/red] $\\frac$", "日本 :smile:"]  # fmt: skip
    saved = json.loads((tmp_path / "run/splits.json").read_text())
    assert any("images/\udcff.png" in names for names in saved["names"].values())


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 1), (20_000, 10)])
def test_pictures_of_odd_sizes_train(size, street, command, tmp_path):
    for kind in KINDS:
        replaced()(Image.new("L", size))(street, kind)
    own = ["dataset.image_size=null", "dataset.batch_size=1", "trainer.epochs=1"]
    code, _, err = command(*SMALL, *own, "trainer.pictures=2")
    assert (code, err) == (0, "")


def test_a_root_with_blanks_and_brackets_needs_no_quotes(street, command, tmp_path):
    root = street.rename(tmp_path / "my images (é), [1]")
    for path in root.glob("masks/*"):
        path.unlink()
    typed = ["dataset=folder", f"dataset.root={root.name}"]
    assert_refused(command(*typed), [f"{root.name}/masks", "Names must agree"], tmp_path)


def test_pictures_to_predict_are_named_too(street, command, tmp_path, capsys):
    """What is no picture is left out; names and turned pictures are kept."""
    words = [word for word in TINY if "dataset.num" not in word]
    assert command(*SMALL, *words, "trainer.epochs=1", "hydra.run.dir=run")[0] == 0
    source = tmp_path / "in"
    source.mkdir()
    COLOUR.save(source / "é b.jpg", **oriented(COLOUR, 6))
    (source / "text.png").write_text("hello")
    (source / "._text.png").write_bytes(b"x")
    IDS.save(source / "two.png", **frames(IDS))
    (source / "loop.png").symlink_to("loop.png")
    code, out, err = called("predict", ["run=run", "input=in", "output=out"], capsys)
    assert code == 1
    assert "1 of 3 images predicted" in out
    assert "text.png: cannot be read" in err
    assert "two.png: cannot be read as an image (it holds 2 pictures" in err
    with Image.open(tmp_path / "out/masks/é b.png") as mask:
        assert mask.size == (20, 30)
    assert [row["file"] for row in table(tmp_path / "out/shares.csv")] == ["é b.jpg"]


def test_a_missing_file_of_a_standard_set_is_not_called_damaged(command, tmp_path):
    WRITERS["voc"](tmp_path / "voc")
    path = sorted((tmp_path / "voc/VOCdevkit/VOC2012/SegmentationClass").iterdir())[0]
    path.unlink()
    result = command("dataset=voc", "dataset.root=voc", "dataset.image_size=[32,32]")
    assert_refused(result, [f"{path.name} is missing", "Unpack", "dataset.download=true"], tmp_path)
    assert "amaged" not in result[2]


def test_pairs_on_disk_are_those_in_memory_whatever_their_kind(street):
    replaced(".tif")(COLOUR.convert("CMYK"))(street, "images")
    replaced(**oriented(IDS, 3))(palette(IDS))(street, "masks")
    held, read_late = (
        folder.load(root=str(street), image_size=(16, 24), memory_mib=mib) for mib in (2048, 0)
    )
    for split in held.splits:
        whole = range(len(held.splits[split]))
        for a, b in zip(held.splits[split][whole], read_late.splits[split][whole], strict=True):
            assert torch.equal(a, b)
