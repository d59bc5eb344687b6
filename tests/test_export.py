"""`seg-l1 export`, and prediction with its file: as torch, and without torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from seg_l1 import load
from seg_l1.cli.main import main
from seg_l1.data.resample import resize_score, resize_scores
from seg_l1.deployment import onnx_file, pixel_network
from seg_l1.deployment.onnx_predictor import About, OnnxPredictor, load_onnx
from seg_l1.display.paint import palette
from seg_l1.errors import UserError
from seg_l1.training import export
from seg_l1.training.prediction import Predictor, load_predictor
from tests.support.runs import TINY, table
from tests.support.videos import frames_of, read_video, write_video

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made_once(tmp_path_factory) -> Path:
    """A folder with a run, its files in float32, and three pictures; no test may change it."""
    folder = tmp_path_factory.mktemp("exported")
    words = ["model.depth=1", "trainer.kkt_every=null", "trainer.threads=1", "trainer.epochs=3"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(export, "SECONDS", 0.0)
        assert main(["train", *TINY, *words, "hydra.run.dir=run"]) == 0
        assert main(["export", "run=run"]) == 0
        assert main(["export", "run=run", "output=classes", "file=classes.onnx"]) == 0
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    (folder / "images").mkdir()
    for index, size in enumerate([(48, 48), (77, 31), (20, 160)]):
        picture = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        picture.save(folder / "images" / f"{index}.png")
    return folder


@pytest.fixture
def made(made_once, tmp_path, monkeypatch) -> Path:
    """A copy of it as the current folder."""
    folder = Path(shutil.copytree(made_once, tmp_path / "made"))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(export, "SECONDS", 0.0)
    return folder


def pictures(folder: Path) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted((folder / "images").iterdir())]


def metadata(path: Path) -> dict:
    return {p.key: json.loads(p.value) for p in onnx.load(path).metadata_props}


def test_the_file_predicts_as_the_run_does(made):
    torch_one, onnx_one = load_predictor("run", device="cpu"), load_onnx("run/model.onnx")
    for picture in pictures(made):
        (ids, confidence), (expected, sure) = onnx_one(picture), torch_one(picture)
        assert ids.dtype == np.uint8
        assert ids.shape == expected.shape == (picture.height, picture.width)
        assert (ids != expected).mean() < 1e-3
        assert confidence == pytest.approx(sure, abs=1e-5)


def test_a_file_of_classes_predicts_the_same_classes_where_nothing_is_resized(made):
    torch_one, onnx_one = load_predictor("run", device="cpu"), load_onnx("classes.onnx")
    for picture in pictures(made):
        (ids, confidence), (expected, _) = onnx_one(picture), torch_one(picture)
        assert np.isnan(confidence)
        assert ids.shape == expected.shape
        share = (ids != expected).mean()
        assert share < (1e-3 if picture.size == (48, 48) else 0.2)


def test_the_metadata_say_all_that_a_program_needs(made):
    best = torch.load("run/checkpoints/best.pt", weights_only=True)
    about = metadata(made / "run/model.onnx")
    assert about["classes"] == best["classes"]
    assert about["colors"] == palette(best["classes"]).tolist()
    expected = ([48, 48], 3, "resize", "fp32", "scores", "run")
    keys = ("image_size", "channels", "fit", "precision", "output", "run")
    assert tuple(about[key] for key in keys) == expected
    assert about["check"]["changed"] == 0
    assert about["check"]["difference"] < 3e-5 * about["check"]["scale"]
    assert metadata(made / "classes.onnx")["output"] == "classes"


def test_pixels_go_in_as_they_are(made):
    """Normalization is in the file: against its definition, x/255 - mean over std."""
    saved = load_predictor("run", device="cpu")
    pixels = torch.randint(0, 256, (2, 3, 33, 50), dtype=torch.uint8)
    mean, std = (torch.tensor(v).double().view(-1, 1, 1) for v in (saved.mean, saved.std))
    with torch.no_grad():
        expected = saved.model.double()((pixels.double() / 255 - mean) / std)
    found = onnx_file.run(Path("run/model.onnx").read_bytes(), pixels)
    assert float((found - expected).abs().max()) < 3e-5 * float(expected.abs().max())
    ids = onnx_file.run(Path("classes.onnx").read_bytes(), pixels)
    assert (ids.dtype, ids.shape) == (torch.uint8, (2, 33, 50))
    assert float((ids != expected.argmax(1)).double().mean()) < 1e-3


def test_predict_needs_no_torch(made):
    write_video(Path("clip.mkv"), frames_of(3))
    code = """
import sys
from seg_l1 import load
from seg_l1.cli.main import main

assert main(["predict", "model=run/model.onnx", "input=images", "output=out"]) == 0
assert main(["predict", "model=run/model.onnx", "clip.mkv", "output=clip"]) == 0
assert not {"torch", "torchvision", "onnx", "onnxscript"} & {*sys.modules}
"""
    paths = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=paths)
    assert done.returncode == 0, done.stderr
    assert main(["predict", "run=run", "input=images", "output=torch", "device=cpu"]) == 0
    rows, expected = (table(Path(folder) / "shares.csv") for folder in ("out", "torch"))
    assert [row.pop("file") for row in rows] == [row.pop("file") for row in expected]
    for row, other in zip(rows, expected, strict=True):
        numbers = {key: float(value) for key, value in other.items()}
        assert {k: float(v) for k, v in row.items()} == pytest.approx(numbers, abs=2e-3)
    assert len(table(Path("clip/frames/clip.csv"))) == 3
    assert len(read_video(Path("clip/overlays/clip.mp4"))[1]) == 3
    assert Path("out/classes.csv").read_bytes() == Path("torch/classes.csv").read_bytes()


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions_are_smaller_and_compared(precision, made, capsys, monkeypatch):
    """The export in float32 is taken from its file, since it takes seconds."""
    content = Path("run/model.onnx").read_bytes()
    whole = onnx_file.OnnxNetwork(content, ("batch", "height", "width"))
    monkeypatch.setattr(onnx_file, "export", lambda *_, **__: whole)
    assert main(["export", "run=run", f"precision={precision}"]) == 0
    text = capsys.readouterr().out
    assert f"onnxruntime {precision}" in text
    assert "onnxruntime fp32" in text
    path = made / f"run/model_{precision}.onnx"
    about = metadata(path)
    assert about["precision"] == precision
    # a network that was hardly trained is undecided: its scores count, not its classes
    tolerance = {"fp16": 3e-3, "int8": 0.1}[precision]
    assert 0 < about["check"]["difference"] < tolerance * about["check"]["scale"]
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    weights = {i.data_type for i in onnx.load(path).graph.initializer if len(i.dims) == 4}
    if precision == "fp16":
        assert weights == {onnx.TensorProto.FLOAT16}
    else:
        assert weights == {onnx.TensorProto.INT8}
        assert "QuantizeLinear" in kinds
    ids, _ = load_onnx(path)(pictures(made)[0])
    assert ids.shape == (48, 48)


def test_a_file_that_differs_is_not_written(made, monkeypatch, capsys):
    content = Path("run/model.onnx").read_bytes()
    whole = onnx_file.OnnxNetwork(content, ("batch", "height", "width"))
    monkeypatch.setattr(onnx_file, "export", lambda *_, **__: whole)
    true = export.PixelNetwork.forward
    monkeypatch.setattr(export.PixelNetwork, "forward", lambda self, x: 1.01 * true(self, x))
    before = {*made.rglob("*")}
    assert main(["export", "run=run", "file=new.onnx"]) == 1
    assert "onnxruntime and torch differ" in capsys.readouterr().err
    assert {*made.rglob("*")} == before


REFUSED = {
    "": ["run: must be given"],
    "run=nope": ["nope", "outputs/runs"],
    "run=run format=tflite": ["format: got 'tflite'", "onnx"],
    "run=run precision=int4": ["precision: got 'int4'", "fp16"],
    "run=run output=class": ["Did you mean 'classes'?"],
    "run=run file=nowhere/a.onnx": ["there is no folder 'nowhere'"],
    "run=run file=images": ["'images' is a folder"],
    "run=run dataset.root=x": ["dataset.root", "leave it out"],
    "run=run flie=x": ["Did you mean 'file'?"],
}


@pytest.mark.parametrize("words", REFUSED)
def test_words_that_make_no_sense(words, made, capsys):
    before = {*made.rglob("*")}
    assert main(["export", *words.split()]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert all(part in err for part in REFUSED[words]), err
    assert {*made.rglob("*")} == before


def test_a_run_without_weights_and_a_missing_extra(made, monkeypatch, capsys):
    Path("run/checkpoints/best.pt").unlink()
    assert main(["export", "run=run"]) == 2
    assert "best.pt is missing" in capsys.readouterr().err
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None)
    assert main(["export", "run=run"]) == 2
    assert "pip install 'seg-l1[export]'" in capsys.readouterr().err


def test_a_file_that_cannot_be_written(made, monkeypatch, capsys):
    content = Path("run/model.onnx").read_bytes()
    whole = onnx_file.OnnxNetwork(content, ("batch", "height", "width"))
    monkeypatch.setattr(onnx_file, "export", lambda *_, **__: whole)
    assert main(["export", "run=run", "file=/proc/a.onnx"]) == 2
    assert "/proc/a.onnx: cannot be written" in capsys.readouterr().err


PREDICT = {
    "input=images output=o": ["run=", "model="],
    "run=run model=run/model.onnx input=images output=o": ["either"],
    "model=nope.onnx input=images output=o": ["there is no file 'nope.onnx'", "seg-l1 export"],
    "model=images/0.png input=images output=o": ["no ONNX file", "export the run again"],
    "model=plain.onnx input=images output=o": ["no ONNX file of seg-l1 export", "classes"],
    "model=run/model.onnx input=images output=o device=cuda": ["device", "leave it out"],
}


@pytest.mark.parametrize("words", PREDICT)
def test_models_that_predict_refuses(words, made, capsys):
    proto = onnx.load("run/model.onnx")
    del proto.metadata_props[:]
    onnx.save(proto, "plain.onnx")
    assert main(["predict", *words.split()]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert all(part in err for part in PREDICT[words]), err
    assert not Path("o").exists()


@pytest.mark.parametrize("size", [(30, 25), (9, 11), (4, 40)])
def test_scores_are_resized_as_torch_does(size):
    score = torch.randn(9, 11)
    expected = resize_scores(score[None, None], size)[0, 0].numpy()
    np.testing.assert_allclose(resize_score(score.numpy(), size), expected, atol=2e-6)


class Session:
    """In place of onnxruntime's: a function of the pixels."""

    def __init__(self, call, shape=("batch", 3, "height", "width")):
        self.call, self.shape, self.name = call, [*shape], "images"

    def get_inputs(self):
        return [self]

    def run(self, _, feed):
        return [self.call(feed["images"])]


@pytest.mark.parametrize("tile", [None, [64, 64]])
@pytest.mark.parametrize(
    ("fit", "size"), [("resize", None), ("resize", [50, 50]), ("pad", [90, 90])]
)
def test_sizes_and_tiles_are_those_of_torch(fit, size, tile):
    """A network of one 5x5 convolution in both."""
    net = torch.nn.Conv2d(3, 4, 5, padding=2).eval()
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (70, 133, 3), np.uint8))
    measures, classes = ([0.5] * 3, [0.25] * 3), list("abcd")
    sides = size and (size[0], size[1])
    torch_one = Predictor(net, classes, *measures, sides, tile, 0.25, nullcontext(), fit)
    about = About(classes, palette(classes).tolist(), 3, size, fit, tile, 0.25, "scores")
    pixels = pixel_network.PixelNetwork(net, *measures, output="scores")
    session = Session(lambda images: pixels(torch.from_numpy(images)).detach().numpy())
    ids, confidence = OnnxPredictor(session, about)(picture)
    expected, sure = torch_one(picture)
    assert ids.shape == expected.shape == (70, 133)
    assert (ids != expected).mean() < 1e-3
    assert confidence == pytest.approx(sure, abs=1e-5)


def test_a_file_of_one_size_refuses_others():
    about = About(["a"], [[0, 0, 0]], 3, [32, 32], "pad", None, 0.25, "scores")
    session = Session(lambda images: np.zeros((1, 1, 32, 32)), ("batch", 3, 32, 32))
    with pytest.raises(UserError, match=r"images of 32x32 .* got 32x40"):
        OnnxPredictor(session, about)(Image.new("RGB", (40, 20)))


def test_load_takes_runs_and_files_alike(made):
    """Two lines of Python give what `seg-l1 predict` gives, of a run and of its ONNX file."""
    network, file = load("run"), load("run/model.onnx")
    predictor = load_predictor("run")
    assert network.classes == file.classes == predictor.classes
    images = sorted((made / "images").iterdir())
    for path, picture in zip(images, pictures(made), strict=True):
        ids = network(path)
        assert (ids == predictor(picture)[0]).all()
        assert (ids == file(path)).mean() > 0.999
        ours, theirs = network(path, scores=True), file(path, scores=True)
        assert ours.shape == theirs.shape == (len(network.classes), *ids.shape)
        assert np.allclose(ours, theirs, atol=1e-3)
    classes_alone = load("classes.onnx")
    assert (classes_alone(images[0]) == file(images[0])).all()
    with pytest.raises(UserError, match="gives classes alone"):
        classes_alone(images[0], scores=True)
