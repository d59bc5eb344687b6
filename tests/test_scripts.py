from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from seg_l1.cli.main import main
from tests.support.runs import TINY


def evaluate(*words):
    """The exit code of `seg-l1 evaluate`."""
    return main(["evaluate", *words])


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluate_gives_the_scores_that_training_wrote(split, finished, capsys):
    path, _ = finished
    assert evaluate(f"run={path}", f"split={split}") == 0
    scores = json.loads(capsys.readouterr().out)
    summary = json.loads((path / "summary.json").read_text())
    written = {**summary["best"], **summary["test"]}
    for key in ("miou", "loss", "boundary_f1", "iou/background"):
        assert scores[f"{split}/{key}"] == pytest.approx(written[f"{split}/{key}"], rel=1e-6)
    assert scores["sparsity/exact"] == summary["best"]["sparsity/exact"]


@pytest.mark.slow
def test_evaluate_refuses_other_classes_and_files_that_the_splits_were_not_drawn_from(
    street, command, tmp_path, capsys
):
    words = [word for word in TINY if "dataset.num" not in word]
    folder = ["dataset=folder", f"dataset.root={street}"]
    assert command(*folder, *words, "hydra.run.dir=run")[0] == 0
    run = f"run={tmp_path / 'run'}"
    assert evaluate(run) == 0
    assert evaluate(run, "split=test") == 2
    assert "no test split" in (err := capsys.readouterr().err) and "test_fraction=0.2" in err
    grown = tmp_path / "grown"
    shutil.copytree(street, grown)
    for kind in ("images", "masks"):
        shutil.copy(grown / kind / "003.png", grown / kind / "a.png")
    assert evaluate(run, f"dataset.root={grown}") == 2
    assert "drawn from" in capsys.readouterr().err
    (street / "classes.txt").write_text("car\nroad\n")
    assert evaluate(run) == 2
    assert "its classes are car, road" in capsys.readouterr().err


@pytest.mark.slow
def test_evaluate_normalises_as_the_run_did(street, command, tmp_path, capsys):
    """Darker pictures are darker to the network, whatever their own mean."""
    for split in ("train", "val"):
        shutil.copytree(street, tmp_path / "data" / split)
    shutil.copy(street / "classes.txt", tmp_path / "data")
    words = [word for word in TINY if "dataset.num" not in word and "epochs" not in word]
    root = f"dataset.root={tmp_path / 'data'}"
    assert command("dataset=folder", root, *words, "trainer.epochs=8", "hydra.run.dir=run")[0] == 0
    assert evaluate(f"run={tmp_path / 'run'}", "split=test") == 2
    assert "add test/images and test/masks" in capsys.readouterr().err
    scores = []
    for factor in (1.0, 0.3):
        for path in (tmp_path / "data").rglob("images/*.png"):
            pixels = factor * np.array(Image.open(path))
            Image.fromarray(pixels.astype(np.uint8)).save(path)
        capsys.readouterr()
        assert evaluate(f"run={tmp_path / 'run'}") == 0
        scores.append(json.loads(capsys.readouterr().out)["val/loss"])
    assert scores[1] > scores[0] + 1e-3


@pytest.mark.slow
def test_a_run_on_pictures_of_their_own_sizes_is_evaluated(street, command, tmp_path, capsys):
    words = [word for word in TINY if "dataset.num" not in word]
    sizes = ["dataset.image_size=null", "augmentation=strong", "augmentation.crop=[16,16]"]
    folder = ["dataset=folder", f"dataset.root={street}", "hydra.run.dir=run"]
    assert command(*folder, *words, *sizes)[0] == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert evaluate(f"run={tmp_path / 'run'}") == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["val/miou"] == pytest.approx(summary["best"]["val/miou"])
