"""Prediction of pictures: names, values, sizes, and what cannot be read."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from seg_l1.cli.main import main
from seg_l1.config.compose import compose_plain
from seg_l1.data import folder, to_png
from seg_l1.deployment.inputs import output_names
from seg_l1.errors import UserError
from seg_l1.training import prediction
from seg_l1.training.data import load_data
from seg_l1.training.prediction import Predictor, _upsampled_argmax, load_predictor
from seg_l1.training.saved import evaluate_run
from tests.support.runs import TINY, table
from tests.support.standard_files import write_pairs


def predict(words):
    """The exit code of `seg-l1 predict`."""
    return main(["predict", *words])


def brightness(image_size=None, tile=None):
    """A predictor that calls pixels above 127 class 1: two 1x1 scores, ±(brightness − 0.5)."""
    net = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        net.weight[0], net.weight[1] = -20 / 3, 20 / 3
        net.bias.zero_()
    statistics = ([0.5] * 3, [1.0] * 3)
    return Predictor(net, ["dark", "light"], *statistics, image_size, tile, 0.25, nullcontext())


@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_class_ids_have_the_size_of_the_picture(tile):
    pixels = np.random.default_rng(0).integers(0, 2, (5, 7)).repeat(20, 0).repeat(13, 1)
    picture = Image.fromarray((50 + 150 * pixels).astype(np.uint8)).convert("RGB")
    ids, confidence = brightness(tile=tile)(picture)
    assert ids.dtype == np.uint8
    assert (ids == pixels).all()
    assert 0.99 < confidence <= 1
    resized, _ = brightness(image_size=(50, 50), tile=tile)(picture)
    assert resized.shape == (100, 91)
    assert (resized == pixels).mean() > 0.9


def test_upsampled_argmax_is_the_argmax_of_the_upsampled_scores():
    logits = torch.randn(1, 7, 9, 11)
    whole = nn.functional.interpolate(logits, (30, 25), mode="bilinear").argmax(1)[0]
    assert torch.equal(_upsampled_argmax(logits, (30, 25)).long(), whole)


@pytest.fixture(scope="module")
def on_street(tmp_path_factory):
    """A folder with the run `run` on the pictures of `street`."""
    folder = tmp_path_factory.mktemp("trained")
    write_pairs(folder / "street", 12)
    (folder / "street/classes.txt").write_text("road\ncar\n")
    words = [w for w in TINY if "dataset.num" not in w]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        root = f"dataset.root={folder / 'street'}"
        assert main(["train", "dataset=folder", root, *words, "hydra.run.dir=run"]) == 0
    return folder


@pytest.fixture
def trained(on_street, tmp_path, monkeypatch):
    """A copy of the run."""
    shutil.copytree(on_street / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


def test_predictions_of_the_validation_images_have_the_scores_of_training(
    trained, tmp_path, capsys
):
    """At the size of training, the masks that are written have the mIoU that was reported."""
    from seg_l1.metrics.segmentation import ConfusionMatrix, scores
    from seg_l1.runs.checkpoints import load

    config = load(trained / "checkpoints/best.pt")["config"]
    val = load_data(config).splits["val"]
    images, masks = val[range(len(val))]
    (tmp_path / "in").mkdir()
    for name, image in zip(val.names, images, strict=True):
        pixels = image.permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(tmp_path / "in" / Path(name).name)
    out = tmp_path / "out"
    assert predict([f"run={trained}", f"input={tmp_path / 'in'}", f"output={out}"]) == 0
    matrix = ConfusionMatrix(2)
    for name, mask in zip(val.names, masks, strict=True):
        ids = np.array(Image.open(out / "masks" / Path(name).name))
        matrix.update(torch.from_numpy(ids)[None].long(), mask[None].long())
    written = evaluate_run(trained, "val")
    assert scores(matrix.counts)["miou"] == pytest.approx(written["val/miou"])


def test_names_folders_sizes_and_shares_are_kept(trained, tmp_path, capsys):
    source, out = tmp_path / "in", tmp_path / "out"
    write_pairs(source / "a", 2, size=(33, 47))
    Image.new("L", (20, 10)).save(source / "grey.png")
    Image.new("RGB", (20, 10)).save(source / "grey.jpg")
    (source / "broken.png").write_bytes(b"no picture")
    (source / "notes.txt").write_text("not a picture")
    assert predict([f"run={trained}", f"input={source}", f"output={out}"]) == 1
    captured = capsys.readouterr()
    assert "broken.png: cannot be read" in captured.err
    assert "6 of 7 images" in captured.out
    names = [f"a/{kind}/00{index}.png" for kind in ("images", "masks") for index in (0, 1)]
    names += ["grey.png", "grey_jpg.png"]
    for kind in ("masks", "overlays"):
        found = sorted(p.relative_to(out / kind).as_posix() for p in (out / kind).rglob("*.png"))
        assert found == names
    assert np.array(Image.open(out / "masks" / names[0])).shape == (33, 47)
    rows = table(out / "shares.csv")
    assert [row["file"] for row in rows][-2:] == ["grey.jpg", "grey.png"]
    for row, name in zip(rows, [*names[:4], names[5], names[4]], strict=True):
        ids = np.array(Image.open(out / "masks" / name))
        assert float(row["car"]) == pytest.approx((ids == 1).mean(), abs=1e-6)
        assert float(row["road"]) + float(row["car"]) == pytest.approx(1, abs=1e-5)
    assert [row["class"] for row in table(out / "classes.csv")] == ["road", "car"]


def test_no_output_has_two_suffixes_and_none_takes_the_place_of_another():
    names = ["a.jpg", "a.png", "A.png", "a_jpg.tif", "b.PNG", "c.d.png", "x/a.jpg", "x/a.jpeg"]
    named = output_names([Path(name) for name in names])
    assert [name.as_posix() for name in named] == [
        "a_jpg.png", "a.png", "A_png.png", "a_jpg_tif.png", "b.png", "c.d.png", "x/a.png",
        "x/a_jpeg.png"]  # fmt: skip


def test_files_of_other_formats_are_named_with_the_remedy(trained, tmp_path, capsys):
    source = tmp_path / "in"
    source.mkdir()
    np.save(source / "a.npy", np.arange(600).reshape(20, 30))
    (source / "notes.txt").touch()
    words = [f"run={trained}", f"input={source}", f"output={tmp_path / 'out'}"]
    assert predict(words) == 1
    assert "a.npy: cannot be read as an image (it is NumPy)" in (err := capsys.readouterr().err)
    assert f"python -m seg_l1.data.to_png {source}" in err
    assert to_png.main([str(source), "--range", "0", "600"]) == 0
    assert predict(words) == 0
    assert (tmp_path / "out/masks/a.png").is_file()


def test_a_folder_that_moved_has_the_same_scores(trained, on_street, tmp_path):
    shutil.copytree(on_street / "street", tmp_path / "moved")
    assert evaluate_run(trained, root=str(tmp_path / "moved")) == evaluate_run(trained)


@pytest.mark.parametrize("regularizer", ["cost_group_l1", "channel_l1"])
def test_a_run_whose_penalty_asks_for_an_image_scores_new_ones(regularizer, tmp_path):
    write_pairs(tmp_path / "mine", 12, size=(24, 32))
    write_pairs(tmp_path / "new/test", 5, size=(24, 32))
    words = ["dataset=folder", f"dataset.root={tmp_path / 'mine'}", "dataset.num_classes=2"]
    words += ["dataset.image_size=[16,32]", f"regularizer={regularizer}", "model.width=4"]
    words += ["dataset.batch_size=4", "trainer.epochs=1", "device=cpu"]
    assert main(["train", *words, f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    assert "test/miou" in evaluate_run(tmp_path / "run", root=str(tmp_path / "new"))


@pytest.mark.parametrize("layout", [".", "test", "images/test"])
def test_new_images_are_scored_as_test(layout, trained, tmp_path):
    write_pairs(tmp_path / "new/made", 5)
    for kind in ("images", "masks"):
        target = tmp_path / "new" / (f"{kind}/test" if "/" in layout else f"{layout}/{kind}")
        target.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "new/made" / kind).rename(target)
        for path in list(target.iterdir()):
            path.rename(path.with_name(f"new{path.name}"))
    (tmp_path / "new/made").rmdir()
    scores = evaluate_run(trained, root=str(tmp_path / "new"))
    assert 0 <= scores["test/miou"] <= 1
    data = folder.load(root=str(tmp_path / "new"), num_classes=2, to_score=True)
    assert {name: len(split) for name, split in data.splits.items()} == {"test": 5}
    with pytest.raises(UserError, match=r"split: there is no 'val', only test"):
        evaluate_run(trained, "val", root=str(tmp_path / "new"))


def test_images_that_may_be_of_the_training_are_refused_until_they_are_called_test(
    trained, on_street, tmp_path
):
    """Seven of the twelve; and twelve others of the same names."""
    write_pairs(tmp_path / "some", 12, size=(25, 35))
    with pytest.raises(UserError, match="splits were drawn from") as caught:
        (tmp_path / "some/classes.txt").write_text("road\ncar\n")
        evaluate_run(trained, root=str(tmp_path / "some"))
    assert "<folder>/test/images and <folder>/test/masks" in str(caught.value)
    for kind in ("images", "masks"):
        for number in range(5):
            (tmp_path / "some" / kind / f"{number:03d}.png").unlink()
    with pytest.raises(UserError, match=r"of 7 images have the names") as caught:
        evaluate_run(trained, root=str(tmp_path / "some"))
    for kind in ("images", "masks"):
        target = tmp_path / "some/test" / kind
        assert str(target) in str(caught.value)
        target.parent.mkdir(exist_ok=True)
        (tmp_path / "some" / kind).rename(target)
    assert "test/miou" in evaluate_run(trained, root=str(tmp_path / "some"))


def test_one_pair_is_enough_to_overfit(tmp_path):
    write_pairs(tmp_path, 1)
    words = [w for w in TINY if "dataset.num" not in w and "limit" not in w]
    small = ["dataset=folder", f"dataset.root={tmp_path}", "dataset.num_classes=2"]
    data = load_data(compose_plain([*words, *small, "debug=overfit"]))
    assert data.splits["val"].names == data.splits["train"].names == ["images/000.png"]
    with pytest.raises(UserError, match="'val' empty"):
        load_data(compose_plain([*words, *small]))


def test_one_file_is_predicted_in_tiles(trained, tmp_path, capsys):
    Image.new("RGB", (200, 90)).save(tmp_path / "one.png")
    words = [f"run={trained}", f"input={tmp_path / 'one.png'}", f"output={tmp_path / 'out'}"]
    assert predict([*words, "tile=64"]) == 0
    assert np.array(Image.open(tmp_path / "out/masks/one.png")).shape == (90, 200)


def test_masks_that_no_prediction_wrote_are_not_written_over(trained, tmp_path, capsys):
    """A folder of pictures beside the masks that people drew."""
    write_pairs(tmp_path / "mine", 2)
    before = (tmp_path / "mine/masks/000.png").read_bytes()
    words = [f"run={trained}", f"output={tmp_path / 'mine'}"]
    for source in ("mine/images", "mine/masks/000.png"):
        assert predict([*words, f"input={tmp_path / source}"]) == 2
        assert "was not written by predict" in capsys.readouterr().err
    assert (tmp_path / "mine/masks/000.png").read_bytes() == before
    out = f"output={tmp_path / 'out'}"
    for _ in range(2):  # its own output it may replace
        assert predict([f"run={trained}", out, f"input={tmp_path / 'mine/images'}"]) == 0


def test_what_training_padded_is_padded_here():
    predictor = brightness(image_size=(12, 12))
    predictor.resize_mode = "pad"
    pixels = np.random.default_rng(0).integers(0, 2, (8, 10)).astype(np.uint8)
    ids, _ = predictor(Image.fromarray(50 + 150 * pixels).convert("RGB"))
    assert (ids == pixels).all()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["I;16", "F"])
def test_a_picture_of_more_than_8_bits_is_refused_not_clipped(mode, trained, tmp_path, capsys):
    Image.new(mode, (20, 20)).save(tmp_path / "deep.tiff")
    words = [f"run={trained}", f"input={tmp_path / 'deep.tiff'}", f"output={tmp_path / 'out'}"]
    assert predict(words) == 1
    assert f"mode {mode}" in capsys.readouterr().err


def test_weights_that_the_run_started_from_are_not_fetched_again(finished, monkeypatch):
    path, _ = finished
    fetches, build_model = [], prediction.build_model

    def build(*arguments, pretrained=True):
        fetches.append(pretrained)
        return build_model(*arguments, pretrained=pretrained)

    monkeypatch.setattr(prediction, "build_model", build)
    predictor = load_predictor(path)
    assert fetches == [False]
    assert not predictor.model.training
    assert predictor.image_size == (48, 48)
