"""Image files: what is read, what is refused, and that each remedy works when it is followed."""

from __future__ import annotations

import re
import shlex
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from seg_l1.data import folder, images, to_png
from seg_l1.errors import UserError
from tests.support.standard_files import write_masks

SIZE = (16, 24)
LEVELS = np.arange(16 * 24).reshape(SIZE) * 10
"""A ramp of 12 bits: 384 values from 0 to 3830."""


def load(root, **options):
    return folder.load(root=str(root), num_classes=2, image_size=SIZE, **options)


def pixels(root, **options):
    """The first image of the data set, (H, W, C)."""
    data = load(root, val_fraction=None, **options)
    index = data.splits["train"].names.index(min(data.splits["train"].names))
    return data.splits["train"][[index]][0][0].permute(1, 2, 0).numpy()


@pytest.fixture
def root(tmp_path):
    """Four masks, and no images."""
    write_masks(tmp_path, SIZE)
    return tmp_path


def write_png16(values, path):
    """A PNG of 16 bits: gray, gray and alpha, RGB or RGBA, by the number of channels."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(rows), b"IEND": b""}
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in chunks.items():
            check = struct.pack(">I", zlib.crc32(kind + data))
            file.write(struct.pack(">I", len(data)) + kind + data + check)


def tiff_of(values):
    """The bytes of an uncompressed TIFF of 16-bit RGB, which Pillow cannot write."""
    height, width, channels = values.shape
    data = values.astype("<u2").tobytes()
    tags = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 8 + len(data)), (259, 3, 1, 1),
        (262, 3, 1, 2), (273, 4, 1, 8), (277, 3, 1, channels), (278, 3, 1, height),
        (279, 4, 1, len(data)),
    ]  # fmt: skip
    directory = struct.pack("<H", len(tags))
    directory += b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    bits = struct.pack("<HHH", 16, 16, 16)
    return b"II*\0" + struct.pack("<I", 8 + len(data) + len(bits)) + data + bits + directory


def rgb16():
    return np.stack([LEVELS, LEVELS[::-1], LEVELS // 2], -1)


DEEP = {
    "gray PNG": ("png", lambda path: write_png16(LEVELS[..., None], path)),
    "RGBA PNG": ("png", lambda path: write_png16(rgb16()[..., [0, 1, 2, 0]], path)),
    "gray TIFF": ("tif", lambda path: Image.fromarray(LEVELS.astype(np.uint16)).save(path)),
    "float TIFF": ("tif", lambda path: Image.fromarray(LEVELS.astype(np.float32)).save(path)),
    "PGM": ("pgm", lambda path: path.write_bytes(
        b"P5 # a comment 1 2\n24 16\n4095\n" + LEVELS.astype(">u2").tobytes())),
    "PPM": ("ppm", lambda path: path.write_bytes(
        b"P6\n24 16\n4095\n" + rgb16().astype(">u2").tobytes())),
    "npy": ("npy", lambda path: np.save(path, LEVELS)),
    "npy with the channels first": ("npy", lambda path: np.save(path, rgb16().transpose(2, 0, 1))),
}  # fmt: skip


def follow(message, capsys):
    """Types the command of a message, without a new process; returns what it prints."""
    command = shlex.split(re.search(r"'(python -m .*?)' saves", message)[1])
    assert command[:3] == ["python", "-m", "seg_l1.data.to_png"]
    assert to_png.main(command[3:]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("kind", DEEP)
def test_more_than_8_bits_are_refused_and_the_remedy_keeps_256_levels(kind, root, capsys):
    suffix, write = DEEP[kind]
    for index in range(4):
        write(root / f"images/{index}.{suffix}")
    with pytest.raises(UserError, match=r"expected 8 bits|is NumPy") as caught:
        load(root)
    assert "files written" in follow(str(caught.value), capsys)
    image = pixels(root).astype(int)
    low, high = np.percentile(rgb16() if image[..., 0].sum() != image[..., 2].sum() else LEVELS,
                              [0.1, 99.9])  # fmt: skip
    expected = ((LEVELS - low) / (high - low) * 255).clip(0, 255)
    assert np.abs(image[..., 0] - expected).max() <= 2
    assert len(np.unique(image)) > 200
    assert len(list((root / "images").glob("*.original"))) == 4
    assert load(root).notes in ([], ["4 of 4 images have an alpha band, which is dropped"])


def test_color_pngs_of_16_bits_are_read_as_they_are_or_converted(root, capsys):
    for index in range(4):
        write_png16(rgb16(), root / f"images/{index}.png")
    assert np.array_equal(pixels(root), rgb16())
    assert to_png.main([str(root / "images")]) == 0
    assert pixels(root).dtype == np.uint8
    assert len(np.unique(pixels(root))) > 200


@pytest.mark.parametrize("channels", [3, 4])
def test_all_16_bits_of_a_png_are_read(channels, tmp_path):
    values = np.random.default_rng(0).integers(0, 2**16, (5, 7, channels))
    write_png16(values, tmp_path / "x.png")
    assert np.array_equal(to_png.read(tmp_path / "x.png")[0], values)


def test_16_bit_tiff_of_three_bands_needs_tifffile_or_can_be_converted(root, capsys, monkeypatch):
    for index in range(4):
        (root / f"images/{index}.tif").write_bytes(tiff_of(rgb16()))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "tifffile", None)
        with pytest.raises(UserError, match=r"16 bits per channel.*'seg-l1\[tiff\]'") as caught:
            load(root)
    pytest.importorskip("tifffile")
    assert np.array_equal(pixels(root), rgb16())
    follow(str(caught.value), capsys)
    assert pixels(root).dtype == np.uint8
    assert len(np.unique(pixels(root))) > 200


def test_a_missing_package_is_named(root, monkeypatch, capsys):
    (root / "images/0.dcm").touch()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert to_png.main([str(root / "images")]) == 2
    assert "type 'pip install pydicom'" in capsys.readouterr().err
    assert (root / "images/0.dcm").exists()


@pytest.mark.slow
def test_the_command_runs_and_new_images_are_scaled_alike(root, tmp_path):
    np.save(root / "images/0.npy", LEVELS)
    command = [sys.executable, "-m", "seg_l1.data.to_png", str(root / "images")]
    done = subprocess.run(
        [*command, "--range", "0", "4095"], capture_output=True, text=True, check=True
    )
    assert "--range 0 4095" in done.stdout
    with Image.open(root / "images/0.png") as picture:
        assert np.abs(np.array(picture) - LEVELS / 4095 * 255).max() <= 0.5


@pytest.mark.parametrize("kind", ["npy", "tif", "pages"])
def test_masks_keep_their_ids_and_volumes_become_pairs(kind, root, capsys):
    volume = np.random.default_rng(0).integers(0, 2, (5, *SIZE))
    for path in [*(root / "masks").iterdir()]:
        path.unlink()
    for place in ("images", "masks"):
        values = volume if place == "masks" else volume * 1000 + LEVELS
        if kind == "npy":
            np.save(root / place / "scan.npy", values)
            continue
        pages = [Image.fromarray(page.astype(np.uint16)) for page in values]
        if kind == "pages":
            pages[0].save(root / place / "scan.tif", save_all=True, append_images=pages[1:])
        else:
            for index, page in enumerate(pages):
                page.save(root / place / f"scan_{index:03d}.tif")
    for place, option in (("images", []), ("masks", ["--masks"])):
        assert to_png.main([str(root / place), *option]) == 0
    data = load(root, val_fraction=None)
    assert len(data.splits["train"]) == 5
    for index, page in enumerate(volume):
        assert np.array_equal(data.splits["train"][[index]][1][0].numpy(), page)


def test_masks_that_are_no_ids_are_not_cut_down(root, capsys):
    np.save(root / "masks/0.npy", np.full(SIZE, 0.5))
    (root / "masks/0.png").unlink()
    assert to_png.main([str(root / "masks"), "--masks"]) == 2
    assert "whole numbers from 0 to 255" in capsys.readouterr().err
    assert (root / "masks/0.npy").exists()


@pytest.mark.parametrize(
    ("name", "format_"),
    [("0.dcm", "DICOM"), ("0.nii", "NIfTI"), ("0.nii.gz", "NIfTI"), ("0.mha", "MetaImage"),
     ("0.heic", "HEIF"), ("0.NPY", "NumPy")],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["images", "masks"])
def test_formats_that_cannot_be_read_are_named(kind, name, format_, root):
    for index in range(4):
        Image.new("RGB", SIZE[::-1]).save(root / f"images/{index}.png")
    (root / kind / "0.png").rename(root / kind / name)
    with pytest.raises(UserError, match=f"is {format_}, which cannot be read") as caught:
        load(root)
    assert ("--masks" in str(caught.value)) == (kind == "masks" and format_ != "HEIF")
    (root / kind / name).rename(root / kind / "0.png")
    load(root)


def rgb8():
    return np.random.default_rng(1).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


@pytest.mark.parametrize(("kind", "tag"), [("overview", 1), ("transparency mask", 4), (None, 0)])
def test_the_first_page_is_read_where_the_others_are_overviews(kind, tag, root, capsys):
    for index in range(4):
        second = Image.fromarray(rgb8()[::2, ::2])
        second.encoderinfo = {"tiffinfo": {254: tag}}
        Image.fromarray(rgb8()).save(
            root / f"images/{index}.tif", save_all=True, append_images=[second]
        )
    if kind:
        assert np.array_equal(pixels(root), rgb8())
    else:
        with pytest.raises(UserError, match=r"2 pictures \(pages\)") as caught:
            load(root)
        follow(str(caught.value), capsys)
        assert (root / "images/0_001.png").exists()


def save_all(root, picture, suffix=".png"):
    for index in range(4):
        picture.save(root / f"images/{index}{suffix}")


@pytest.mark.parametrize(
    ("mode", "fill", "suffix", "note"),
    [
        ("RGBA", 255, ".png", None),
        ("RGBA", 128, ".png", "4 of 4 images have an alpha band, which is dropped"),
        ("LA", 7, ".png", "4 of 4 images have an alpha band, which is dropped"),
        ("RGBX", 9, ".tif", "4 bands, of which those after the third are dropped"),
        ("CMYK", 3, ".tif", "CMYK, converted to RGB"),
        ("RGB", 0, ".png", None),
    ],
)
def test_bands_that_are_dropped_are_told(mode, fill, suffix, note, root):
    bands = [*Image.fromarray(rgb8()).split()]
    filler = Image.new("L", SIZE[::-1], fill)
    last = [] if mode == "RGB" else [filler]
    picture = Image.merge(mode, [*bands[: 1 if mode == "LA" else 3], *last])
    save_all(root, picture, suffix)
    notes = load(root).notes
    assert len(notes) == (note is not None)
    assert note is None or note in notes[0]


def test_lab_is_converted_for_one_channel_as_for_three(root):
    save_all(root, Image.fromarray(rgb8()).convert("LAB"), ".tif")
    color, gray = pixels(root), pixels(root, channels=1)[..., 0]
    expected = np.array(Image.fromarray(color).convert("L"))
    assert np.array_equal(gray, expected)


@pytest.mark.parametrize("suffix", [".ppm", ".gif"])
def test_other_formats_are_read(suffix, root):
    picture = Image.fromarray(rgb8() if suffix == ".ppm" else rgb8()[..., 0])
    save_all(root, picture, suffix)
    assert np.array_equal(pixels(root), np.array(picture.convert("RGB")))


def test_masks_in_pgm_hold_ids_whatever_their_largest_value(root):
    save_all(root, Image.fromarray(rgb8()))
    for path in list((root / "masks").iterdir()):
        ids = np.array(Image.open(path))
        path.with_suffix(".pgm").write_bytes(b"P5\n24 16\n1\n" + ids.tobytes())
        path.unlink()
    data = load(root)
    assert data.pixel_shares[1] > 0.2
    assert data.unlabeled == 0


def test_a_tiff_of_bands_that_pillow_does_not_know_is_no_mystery(root):
    content = tiff_of(rgb16()).replace(struct.pack("<HHII", 262, 3, 1, 2),
                                       struct.pack("<HHII", 262, 3, 1, 1))  # fmt: skip
    for index in range(4):
        (root / f"images/{index}.tif").write_bytes(content)
    with pytest.raises(UserError, match=r"TIFF of this kind .* expected 1 or 3 of 8 bits"):
        images.open_picture(root / "images/0.tif")
