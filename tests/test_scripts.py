from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


def script(name):
    return runpy.run_path(str(SCRIPTS / f"{name}.py"))["main"]


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluate_gives_the_scores_that_training_wrote(split, finished, capsys):
    path, _ = finished
    assert script("evaluate")([f"run={path}", f"split={split}"]) == 0
    scores = json.loads(capsys.readouterr().out)
    summary = json.loads((path / "summary.json").read_text())
    written = {**summary["best"], **summary["test"]}
    for key in ("miou", "loss", "boundary_f1", "iou/background"):
        assert scores[f"{split}/{key}"] == pytest.approx(written[f"{split}/{key}"], rel=1e-6)
    assert scores["sparsity/exact"] == summary["best"]["sparsity/exact"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ([], "run: must be given"),
        (["run=nowhere"], "nowhere"),
        (["runn=x"], "Did you mean 'run'?"),
    ],
)
def test_evaluate_says_what_is_wrong(typed, words, capsys):
    assert script("evaluate")(typed) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1


def test_evaluate_names_the_splits(finished, capsys):
    path, _ = finished
    assert script("evaluate")([f"run={path}", "split=tset"]) == 2
    assert "train, val, test" in capsys.readouterr().err
