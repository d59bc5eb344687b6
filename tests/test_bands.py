"""Images of other bands than RGB and of 16 bits: read, refused, shown, trained on, predicted."""

from __future__ import annotations

import json
import shutil
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image, ImageOps

import seg_l1
from seg_l1.cli.main import main
from seg_l1.config.identity import PRESENTATION
from seg_l1.data import folder, tiff, to_png
from seg_l1.data.augment import Augmentation
from seg_l1.data.bands import Bands, open_image
from seg_l1.data.raster import TURNS, Raster
from seg_l1.errors import UserError
from tests.support.standard_files import write_masks
from tests.test_images import write_png16

tifffile = pytest.importorskip("tifffile")

SIZE = (16, 24)
FLAT = {"photometric": "minisblack", "planarconfig": "contig"}


def values(bands, dtype="uint16", size=SIZE):
    """Random values over the whole range of a type."""
    return np.random.default_rng(bands).integers(0, np.iinfo(dtype).max + 1, (*size, bands), dtype)


def first(pixels):
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


@pytest.fixture
def root(tmp_path):
    """Four masks of two classes, and no images."""
    write_masks(tmp_path, SIZE)
    return tmp_path


def fill(root, pixels, **options):
    for index in range(4):
        tifffile.imwrite(root / f"images/{index}.tif", pixels, **options)


def load(root, **options):
    return folder.load(root=str(root), num_classes=2, image_size=SIZE, **options)


WRITTEN = {
    "interleaved": (lambda x: x, FLAT),
    "planar": (first, {**FLAT, "planarconfig": "separate"}),
    "pages": (first, {"photometric": "minisblack"}),
    "rows as pages": (lambda x: x, {"photometric": "minisblack"}),
    "big endian": (lambda x: x, {**FLAT, "byteorder": ">"}),
    "BigTIFF": (lambda x: x, {**FLAT, "bigtiff": True}),
    "tiled": (lambda x: x, {**FLAT, "tile": (16, 16)}),
    "deflate": (lambda x: x, {**FLAT, "compression": "zlib"}),
    "LZW and predictor": (lambda x: x, {**FLAT, "compression": "lzw", "predictor": True}),
}


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("bands", [2, 4, 6])
@pytest.mark.parametrize("kind", WRITTEN)
def test_every_layout_of_a_tiff_is_the_same_image(kind, bands, dtype, tmp_path):
    if "compression" in WRITTEN[kind][1]:
        pytest.importorskip("imagecodecs")
    pixels = values(bands, dtype)
    arrange, options = WRITTEN[kind]
    tifffile.imwrite(tmp_path / "x.tif", arrange(pixels), **options)
    read = open_image(tmp_path / "x.tif", bands, pixels.itemsize * 8)
    assert read.pixels.dtype == pixels.dtype
    assert np.array_equal(read.pixels, pixels)


@pytest.mark.parametrize("memory_mib", [2048, 0])
def test_no_bit_is_lost_between_file_and_network(memory_mib, root):
    """The network sees (x - mean) / deviation of the stored values, by numpy in float64."""
    pixels = values(6)
    pixels[..., 5] = 40_000 + np.arange(pixels[..., 0].size).reshape(SIZE) % 200
    fill(root, pixels, **FLAT)
    data = load(root, channels=6, val_fraction=None, memory_mib=memory_mib)
    images, _ = data.splits["train"][[0, 1]]
    assert (data.bits, images.dtype) == (16, torch.int32)
    assert len(images.unique()) == len(np.unique(pixels))  # which torch has not for uint16
    assert np.array_equal(images[1].numpy(), first(pixels))
    batches = seg_l1.data.batches.Batches(data, "train", batch_size=4, workers=0)
    ((seen, _),) = batches.epoch()
    expected = (pixels - pixels.mean((0, 1))) / pixels.std((0, 1))
    np.testing.assert_allclose(seen[0].numpy(), first(expected), atol=2e-3)
    levels = np.unique(pixels[..., 5])
    assert len(seen[0, 5].unique()) == len(levels) == 200


def test_the_fingerprint_is_that_of_the_values_as_they_are_stored(root):
    """Runs of versions whose splits gave images as uint16 go on."""
    fill(root, values(4), **FLAT)
    data = load(root, channels=4, val_fraction=None)
    digest = sha256("\n".join(n for s in data.splits.values() for n in s.names).encode())
    for split in data.splits.values():
        assert split.images.dtype == torch.uint16
        digest.update(split.images.numpy().tobytes() + split.masks.numpy().tobytes())
    assert data.fingerprint == digest.hexdigest()[:16]


def test_workers_pass_16_bits_on(root):
    fill(root, values(4), **FLAT)
    data = load(root, channels=4, val_fraction=None, memory_mib=0)
    found = [
        next(seg_l1.data.batches.Batches(data, "train", batch_size=4, workers=n).epoch())[0]
        for n in (0, 1)
    ]
    assert torch.equal(*found)


def test_images_of_their_own_sizes_are_padded(root):
    for index in range(4):
        size = (16 + index, 24)
        tifffile.imwrite(root / f"images/{index}.tif", values(5, size=size), **FLAT)
        Image.new("L", size[::-1], 1).save(root / f"masks/{index}.png")
    data = folder.load(
        root=str(root), num_classes=2, image_size=None, channels=5, val_fraction=None
    )
    images, masks = data.splits["train"][range(4)]
    assert images.shape == (4, 5, 19, 24)
    assert not images.float()[0, :, 16:].any()
    assert (masks[0, 16:] == 255).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_resizing_is_that_of_torch_in_every_band(dtype):
    """torch's antialiased bilinear resize in float64; Pillow rounds 8 bits twice."""
    pixels = values(4, dtype, (40, 60))
    got = Raster(pixels).resized((16, 24)).pixels
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(first(pixels).astype(np.float64))[None],
        size=(16, 24), mode="bilinear", antialias=True,
    )[0]  # fmt: skip
    assert got.dtype == pixels.dtype
    assert np.abs(first(got) - expected.numpy()).max() <= 1.01


@pytest.mark.parametrize("orientation", [1, *TURNS, 9])
def test_images_are_turned_as_pillow_turns_them(orientation, tmp_path):
    pixels = values(4, "uint8")
    picture = Image.fromarray(pixels)
    picture.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(picture))
    assert np.array_equal(Raster(pixels).turned(orientation).pixels, expected)
    tag = (274, 3, 1, orientation, True)
    tifffile.imwrite(tmp_path / "x.tif", pixels, extratags=[tag], **FLAT)
    assert np.array_equal(open_image(tmp_path / "x.tif", 4, 8).pixels, expected)
    assert np.array_equal(open_image(tmp_path / "x.tif", 4, 8, upright=False).pixels, pixels)


def test_pngs_with_alpha_have_four_bands_where_these_are_asked_for(root):
    pixels = values(4, "uint8")
    for index in range(4):
        Image.fromarray(pixels).save(root / f"images/{index}.png")
    data = load(root, channels=4, val_fraction=None)
    assert np.array_equal(data.splits["train"][[0]][0][0].numpy(), first(pixels))
    assert load(root, val_fraction=None).notes == [
        "4 of 4 images have an alpha band, which is dropped"
    ]
    deep = values(4)
    for index in range(4):
        write_png16(deep, root / f"images/{index}.png")
    data = load(root, channels=4, val_fraction=None)
    assert np.array_equal(data.splits["train"][[0]][0][0].numpy(), first(deep))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_gray_images_of_16_bits_are_read_as_one_band(suffix, root):
    pixels = values(1)[..., 0]
    for index in range(4):
        Image.fromarray(pixels).save(root / f"images/{index}.{suffix}")
    data = load(root, channels=1, val_fraction=None)
    assert np.array_equal(data.splits["train"][[0]][0][0, 0].numpy(), pixels)


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_another_number_of_bands_names_the_key_that_reads_them(channels, dtype, root):
    fill(root, values(6, dtype), **FLAT)
    with pytest.raises(UserError, match=f"has 6 bands of {8 * np.dtype(dtype).itemsize}") as caught:
        load(root, channels=channels)
    assert "Give dataset.channels=6" in str(caught.value)
    assert "to_png" not in str(caught.value)  # six bands are no PNG
    load(root, channels=6)


def test_images_that_differ_from_the_others_are_named(root):
    fill(root, values(4), **FLAT)
    tifffile.imwrite(root / "images/1.tif", values(6), **FLAT)
    tifffile.imwrite(root / "images/2.tif", values(4, "uint8"), **FLAT)
    with pytest.raises(UserError, match="2 bad files") as caught:
        load(root, channels=4)
    assert len(caught.value.details) == 2
    for line, name, found in zip(
        caught.value.details, ("1.tif", "2.tif"), ("6 bands of 16", "4 bands of 8"), strict=True
    ):
        assert f"{name}: has {found} bits, expected 4 bands of 16 bits" in line
    with pytest.raises(UserError, match=r"images differ \(2 have 4 bands of 16 bits"):
        load(root, channels=3)


def broken(path):
    path.write_bytes(path.read_bytes()[:-200])


def two_images(path):
    with tifffile.TiffWriter(path) as writer:
        for size in ((16, 24), (18, 20)):
            writer.write(values(4, size=size), **FLAT)


BAD = {
    "cut off": (broken, "cannot be read as an image"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as an image"),
    "only a head": (lambda path: path.write_bytes(b"II*\0"), "cannot be read as an image"),
    "two images": (two_images, "holds 2 pictures"),
    "volume": (
        lambda path: tifffile.imwrite(path, np.zeros((5, *SIZE, 4), np.uint16), **FLAT),
        r"has the shape \(5, 16, 24, 4\)"),
    "floats": (
        lambda path: tifffile.imwrite(path, np.zeros((*SIZE, 4), np.float32), **FLAT),
        r"values are float32, expected uint8 or uint16.*'python -m seg_l1.data.to_png"),
    "negative": (
        lambda path: tifffile.imwrite(path, np.full((*SIZE, 4), -3, np.int16), **FLAT),
        r"int16 from -3 to 0, expected 0 to 65535"),
    "text": (lambda path: path.write_text("no image"), "cannot be read as an image"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_files_that_cannot_be_read_are_named(kind, root):
    fill(root, values(4), **FLAT)
    damage, message = BAD[kind]
    damage(root / "images/2.tif")
    with pytest.raises(UserError, match=f"images/2.tif: .*{message}"):
        load(root, channels=4)


def test_signed_whole_numbers_that_fit_are_read(root):
    pixels = values(4).astype(np.int32)
    fill(root, pixels, **FLAT)
    data = load(root, channels=4, val_fraction=None)
    assert np.array_equal(data.splits["train"][[0]][0][0].numpy(), first(pixels))


def test_overviews_are_no_second_image(tmp_path):
    pixels = values(6)
    with tifffile.TiffWriter(tmp_path / "x.tif") as writer:
        writer.write(pixels, **FLAT)
        writer.write(pixels[::2, ::2], subfiletype=1, **FLAT)
    assert np.array_equal(open_image(tmp_path / "x.tif", 6, 16).pixels, pixels)


@pytest.mark.parametrize("missing", ["tifffile", "imagecodecs"])
def test_a_missing_package_is_named(missing, root, monkeypatch):
    fill(root, values(4), **FLAT)

    class Series(list):
        def asarray(self):
            raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    if missing == "tifffile":
        monkeypatch.setitem(sys.modules, "tifffile", None)
    else:
        monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", Series.asarray)
    with pytest.raises(UserError, match=rf"needs {missing}: pip install 'seg-l1\[tiff\]'"):
        load(root, channels=4)


def test_floats_of_several_bands_become_16_bits(root, capsys):
    pixels = values(6).astype(np.float32) / 65535
    fill(root, pixels, **FLAT)
    with pytest.raises(UserError, match="as TIFF with 16 bits"):
        load(root, channels=6)
    assert to_png.main([str(root / "images"), "--range", "0", "1"]) == 0
    assert "values from 0 to 1 became 0 to 255 (65535 in TIFFs)" in capsys.readouterr().out
    data = load(root, channels=6, val_fraction=None)
    assert np.array_equal(data.splits["train"][[0]][0][0].numpy(), first(values(6)))
    assert to_png.main([str(root / "images")]) == 0
    assert capsys.readouterr().out.startswith("0 files written")


def test_what_is_shown():
    pixels = values(6, "uint8")
    assert np.array_equal(Bands(6).paint(pixels), pixels[..., :3])
    assert np.array_equal(Bands(6, show=[4, 2, 6]).paint(pixels), pixels[..., [3, 1, 5]])
    assert np.array_equal(Bands(2).paint(pixels[..., :2]), pixels[..., [0, 0, 0]])
    deep = np.array([[[1000, 7, 3000], [2000, 7, 9000], [3000, 7, 2000]]], np.uint16)
    shown = Bands.of({}, [2000 / 255, 7 / 255, 3000 / 255], [250 / 255, 0.001, 500 / 255], 16)
    np.testing.assert_allclose(shown.limits[0], [1500, 2500])
    assert shown.paint(deep)[0, :, 0].tolist() == [0, 128, 255]
    assert shown.paint(deep)[0, :, 2].tolist() == [128, 255, 0]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("bands", [1, 3, 4, 6])
def test_augmentation_changes_all_bands_alike(bands, dtype):
    """Each band is a multiple of the first, and stays so where nothing is cut off."""
    masks = torch.zeros(8, 40, 48, dtype=torch.uint8)
    masks[:, 5:20, 10:30] = 1
    top = 20 if dtype == "uint8" else 5000
    first_band = (top + masks.numpy().astype(int) * top)[:, None]
    images = torch.from_numpy((first_band * np.arange(1, bands + 1)[:, None, None]).astype(dtype))
    options = {"flip": 0.5, "shift": 0.2, "colour": 0.2, "hue": 0.1 if bands != 3 else 0.0}
    changed, moved = Augmentation(**options, scale=(0.8, 1.2), chunks=None)(images, masks)
    assert changed.dtype == (torch.uint8 if dtype == "uint8" else torch.float32)
    assert type(changed) is torch.Tensor and changed.shape == images.shape
    known = moved != 255
    inside = changed.float()[:, 0][known]
    border = float(inside.median())
    assert ((inside > 1.4 * border) == (moved[known] == 1)).float().mean() > 0.95
    assert len(changed.flatten(1).float().mean(1).unique()) == 8
    moving = Augmentation(**{**options, "colour": 0.0, "hue": 0.0}, chunks=None)
    changed, moved = moving(images, masks)
    outside = changed.float().permute(1, 0, 2, 3)[:, moved == 255]
    darkest = images.float().amin((0, 2, 3)) if dtype == "uint16" else torch.zeros(bands)
    assert outside.numel()
    assert torch.allclose(outside, darkest[:, None], rtol=1e-3)
    plain = Augmentation(flip=0.0, shift=0.0, scale=(1, 1), colour=0.0)(images, masks)[0]
    assert torch.allclose(plain.float(), images.float(), atol=0.01)


def fourth(root, count, dtype="uint16", bands=4, seed=0):
    """Writes scenes whose class shows in a low byte of the fourth band alone."""
    rng = np.random.default_rng(seed)
    base, step = (20_000, 60) if dtype == "uint16" else (100, 60)
    for place in ("images", "masks"):
        (root / place).mkdir(parents=True)
    (root / "classes.txt").write_text("ground\nwater\n")
    for index in range(count):
        mask = np.zeros(SIZE, np.uint8)
        top, left = rng.integers(0, 8, 2)
        mask[top : top + 8, left : left + 14] = 1
        pixels = rng.integers(base, base + 100, (*SIZE, bands))
        pixels[..., 3] = base + step * mask.astype(int) + rng.integers(0, 5, SIZE)
        planar = index % 2 == 1
        tifffile.imwrite(
            root / f"images/{index}.tif",
            first(pixels.astype(dtype)) if planar else pixels.astype(dtype),
            **{**FLAT, "planarconfig": "separate" if planar else "contig"},
        )
        Image.fromarray(mask).save(root / f"masks/{index}.png")
    return root


WORDS = [
    "dataset=folder", "dataset.image_size=[16,24]", "model.width=8", "model.depth=1",
    "dataset.batch_size=4", "trainer.epochs=20", "optimizer.lr=0.02", "regularizer=none",
    "trainer.threads=1", "augmentation.flip=0.5", "augmentation.colour=0.0", "augmentation.shift=0",
]  # fmt: skip
WORDS.insert(3, "augmentation=light")


@pytest.fixture(scope="module", params=["4 bands of 8 bits", "6 bands of 16 bits"])
def made_once(request, tmp_path_factory):
    """A folder with data, a run on it, its ONNX file, and new images."""
    bands, dtype = int(request.param[0]), "uint8" if "8" in request.param else "uint16"
    place = tmp_path_factory.mktemp("bands")
    fourth(place / "data", 12, dtype, bands)
    fourth(place / "new", 3, dtype, bands, seed=1)
    keys = [f"dataset.channels={bands}", "dataset.show=[4,2,1]", "dataset.root=data"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["train", *WORDS, *keys, "hydra.run.dir=run"]) == 0
    return place


@pytest.fixture
def made(made_once, tmp_path, monkeypatch):
    place = Path(shutil.copytree(made_once, tmp_path / "made"))
    monkeypatch.chdir(place)
    return place


def miou(predicted, place):
    """Of class ids in PNG files beside the masks, by the definition."""
    names = sorted(path.name for path in (place / "masks").iterdir())
    ids, truth = (
        np.stack([np.asarray(Image.open(folder / name)) for name in names])
        for folder in (predicted, place / "masks")
    )
    both = [((ids == k) & (truth == k)).sum() / ((ids == k) | (truth == k)).sum() for k in (0, 1)]
    return np.mean(both)


@pytest.mark.slow
def test_a_class_that_the_fourth_band_shows_is_learned_and_predicted(made, capsys):
    summary = json.loads((made / "run/summary.json").read_text())
    assert summary["best"]["val/miou"] > 0.9
    assert main(["predict", "run=run", "input=new/images", "output=out"]) == 0
    assert miou(made / "out/masks", made / "new") > 0.9
    shown = np.asarray(Image.open(made / "out/overlays/0.png"))
    assert shown.shape == (*SIZE, 3)
    gray = np.asarray(Image.open(made / "out/masks/0.png")) == 0
    assert shown[gray].std() > 5  # stretched: of the range of 16 bits it would be one level
    capsys.readouterr()
    Path("new").rename("scored")
    Path("new/test").mkdir(parents=True)
    for kind in ("images", "masks", "classes.txt"):
        Path("scored", kind).rename(Path("new", "" if "." in kind else "test", kind))
    assert main(["evaluate", "run=run", "dataset.root=new"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["test/miou"] == pytest.approx(miou(made / "out/masks", made / "new/test"))


@pytest.mark.slow
def test_arrays_tensors_and_files_of_a_run_and_its_onnx_file_are_the_same(made, capsys):
    pytest.importorskip("onnxruntime")
    assert main(["export", "run=run"]) == 0
    path = "new/images/1.tif"
    torch_one, onnx_one = seg_l1.load("run"), seg_l1.load("run/model.onnx")
    bands, bits = torch_one._predictor.bands.channels, torch_one._predictor.bands.bits
    assert onnx_one._predictor.bands == torch_one._predictor.bands
    pixels = open_image(Path(path), bands, bits).pixels
    kinds = [path, pixels, torch.from_numpy(first(pixels))]
    expected = torch_one(path, scores=True)
    for network in (torch_one, onnx_one):
        for image in kinds:
            np.testing.assert_allclose(network(image, scores=True), expected, atol=1e-4)
        assert network(np.stack([pixels] * 2)).shape == (2, *SIZE)
    for wrong in (pixels[..., :3], pixels.astype(np.uint16 if bits == 8 else np.uint8)):
        with pytest.raises(ValueError, match="expected"):
            torch_one(wrong)
    for name, other in (("a.tif", values(bands + 1)), ("b.tif", pixels.astype(np.float32))):
        tifffile.imwrite(name, other, **FLAT)
        for network in (torch_one, onnx_one):
            with pytest.raises(UserError, match=f"{name}: .*expected"):
                network(name)
    words = ["predict", "model=run/model.onnx", "input=new/images", "output=onnx"]
    assert main(words) == main(["predict", "run=run", "input=new/images", "output=torch"]) == 0
    for kind in ("masks", "overlays"):
        for name in ("0.png", "1.png", "2.png"):
            assert np.array_equal(
                *(np.asarray(Image.open(made / of / kind / name)) for of in ("onnx", "torch"))
            )


@pytest.mark.slow
def test_float16_keeps_the_bits_of_images(made):
    """Near the end of 16 bits, where float16 has one value for 32."""
    pytest.importorskip("onnxruntime")
    if torch.load("run/checkpoints/best.pt", weights_only=True)["bits"] == 8:
        pytest.skip("8 bits fit into float16")
    for path in Path("data/images").iterdir():
        pixels = open_image(path, 6, 16).pixels
        tifffile.imwrite(path, pixels + np.uint16(45_000), **FLAT)
    words = [word for word in WORDS if not word.startswith("augmentation")]
    keys = ["dataset.channels=6", "dataset.root=data", "hydra.run.dir=high"]
    assert main(["train", *words, *keys]) == 0
    assert main(["export", "run=high", "precision=fp16", "file=half.onnx"]) == 0
    exact, half = seg_l1.load("high"), seg_l1.load("half.onnx")
    path = "data/images/0.tif"
    np.testing.assert_allclose(half(path, scores=True), exact(path, scores=True), atol=0.02)


@pytest.mark.slow
def test_a_run_goes_on_with_other_bands_shown_and_without_the_key(made, capsys):
    config = OmegaConf.load("run/config.yaml")
    del config.dataset.show
    OmegaConf.save(config, "run/config.yaml")
    assert main(["evaluate", "run=run", "split=val"]) == 0
    assert main(["train", "resume=run", "trainer.epochs=21", "dataset.show=[1,1,1]"]) == 0
    assert OmegaConf.load("run/config.yaml").dataset.show == [1, 1, 1]
    assert "dataset.show" in PRESENTATION  # and so no setting of its own in reports
    capsys.readouterr()
    assert main(["train", "resume=run", "trainer.epochs=22", "dataset.show=[9,1,1]"]) == 2
    assert "expected three numbers from 1 to" in capsys.readouterr().err


@pytest.mark.slow
def test_images_of_other_bits_are_not_scored(made, capsys):
    bands = len(torch.load("run/checkpoints/best.pt", weights_only=True)["mean"])
    other = fourth(made / "other/test", 2, "uint8" if bands == 6 else "uint16", bands).parent
    shutil.move(other / "test/classes.txt", other)
    assert main(["evaluate", "run=run", "dataset.root=other"]) == 2
    assert "bits per band, those of the run" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("model", ["smp", "lraspp_mobilenet_v3_large"])
def test_encoders_made_for_rgb_take_other_bands(model, made):
    if model == "smp":
        pytest.importorskip("segmentation_models_pytorch")
    bands = len(torch.load("run/checkpoints/best.pt", weights_only=True)["mean"])
    words = [word for word in WORDS if not word.startswith(("model", "trainer.epochs"))]
    keys = [f"dataset.channels={bands}", "dataset.root=data", f"model={model}", "trainer.epochs=1"]
    assert main(["train", *words, *keys, "hydra.run.dir=other"]) == 0
    assert seg_l1.load("other")("new/images/0.tif").shape == SIZE


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dataset.channels=0"], "at least 1"),
        (["dataset.show=[1,2]"], "a list of 3"),
        (["dataset.show=[0,1,2]"], "at least 1"),
        (["dataset.show=[1,2,4]"], "expected three numbers from 1 to 3"),
        (["dataset.channels=6", "dataset.show=[7,1,1]"], "from 1 to 6"),
    ],
)
def test_bands_that_no_image_can_have_are_refused_at_once(words, message, command):
    code, _, err = command("dataset=folder", "dataset.root=nowhere", *words)
    assert code == 2
    assert message in err


def test_a_layout_is_read_from_the_header(tmp_path):
    tifffile.imwrite(tmp_path / "x.tif", first(values(6)), photometric="minisblack")
    assert tiff.layout_of(tmp_path / "x.tif", 6).of_pages
    assert tiff.layout_of(tmp_path / "x.tif", 4).bands == 6
