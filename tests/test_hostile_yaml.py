"""YAML files of one's own: what is wrong in them is named, what is right works."""

from __future__ import annotations

import pytest
import yaml

from tests.support.refusals import assert_refused
from tests.support.runs import TINY

NUMBER, WHOLE = "a number", "a whole number"
GLOBAL = "# @package _global_\n"
DEEP = "{a: " * 300 + "1" + "}" * 300

# content of experiment/mine.yaml -> words of the message
YAML = {
    "trainer: [\n": ["mine.yaml", "line 3"],
    "trainer:\n\tepochs: 1\n": ["mine.yaml", "line 3", "\\t"],
    "a: &a\n  b: *a\n": ["mine.yaml", "refers to itself"],
    f"a: {DEEP}\n": ["mine.yaml", "nested too deeply"],
    "trainer:\n  epochs: 1\n  epochs: 2\n": ["mine.yaml", "duplicate key epochs"],
    "seed: 1\nseed: 2\n": ["mine.yaml", "duplicate key seed"],
    "a: *b\n": ["mine.yaml", "alias"],
    "? [1, 2]\n: 3\n": ["mine.yaml", "key"],
    "null: 3\n": ["mine.yaml", "key"],
    "a: \udcff": ["mine.yaml", "utf-8"],
    "seed: !!python/object/apply:os.mkdir ['owned']\n": ["mine.yaml", "os.mkdir"],
    "seed: !nope 3\n": ["mine.yaml", "!nope"],
    "defaults:\n  - nope\n": ["experiment/mine", "experiment/nope"],
    "defaults:\n  - override /model: nope\n": ["model/nope"],
    "defaults:\n  - mine\n": ["defaults list", "refers to itself"],
    "defaults: 5\n": ["experiment/mine", "must be a list"],
    "trainer:\n  epochs: ${trainer.epochs}\n": ["trainer.epochs", "Recursive"],
    "trainer:\n  epochs: ${nope}\n": ["trainer.epochs", "'nope'", "give that key a value"],
    "trainer:\n  epohcs: 3\n": ["trainer.epohcs", "Did you mean 'trainer.epochs'?"],
    "trainer:\n  1: 3\n": ["trainer.1", "nothing reads"],
    "trainr:\n  epochs: 3\n": ["trainr", "Did you mean 'trainer'?"],
    "sede: 3\n": ["sede", "Did you mean 'seed'?"],
    "regularizer:\n  alhpa: 3\n": ["regularizer.alhpa", "Did you mean 'regularizer.alpha'?"],
    "trainer: 5\n": ["trainer: got 5", "keys"],
    "trainer: null\n": ["trainer: got None", "keys"],
    "model: unet\n": ["model: got 'unet'", "keys"],
    "regularizer:\n  penalty: 5\n": ["regularizer.penalty", "_target_"],
    "regularizer:\n  scope: 5\n": ["regularizer.scope", "a list of rules"],
    "regularizer:\n  alpha: {a: 1}\n": ["regularizer.alpha", NUMBER],
    "seed: 2026-01-01\n": ["seed", WHOLE],
    "seed: .nan\n": ["seed", WHOLE],
    "model:\n  widht: 3\n": ["model (UNet)", "widht"],
    "dataset:\n  imagesize: [48, 48]\n": ["dataset (load)", "imagesize"],
    "model:\n  _target_: os.system\n": ["model._target_", "os.system"],
}


def write_own(folder, files):
    for name, text in files.items():
        path = folder / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8", errors="surrogateescape")


@pytest.mark.slow
@pytest.mark.parametrize("text", YAML, ids=lambda text: ascii(text)[1:50])
def test_a_yaml_of_ones_own_that_is_wrong_is_named(text, command, tmp_path):
    write_own(tmp_path, {"experiment/mine.yaml": GLOBAL + text})
    typed = ["--config-dir", "own", "experiment=mine", "dataset.num_train=4", "dataset.num_val=4"]
    assert_refused(command(*typed), YAML[text], tmp_path)


# files -> what is typed, words of the message
OWN_OPTIONS = {
    "no package": (
        {"experiment/mine.yaml": "seed: 3\n"}, "experiment=mine", ["experiment", "@package"]),
    "other suffix": (
        {"experiment/mine.yml": "seed: 3\n"}, "experiment=mine", ["no option 'mine'"]),
    "a trainer without keys": (
        {"trainer/fast.yaml": "epochs: 1\n"}, "trainer=fast", ["trainer.", "missing", "defaults"]),
    "a model without target": (
        {"model/mine.yaml": "width: 4\n"}, "model=mine", ["model", "_target_"]),
    "a model with a wrong value": (
        {"model/mine.yaml": "_target_: seg_l1.models.unet.UNet\ndepth: x\n"}, "model=mine",
        ["model.depth", WHOLE]),
    "a dataset without keys": (
        {"dataset/mine.yaml": "_target_: seg_l1.data.digits.load\n"}, "dataset=mine",
        ["dataset.class_weights", "give that key a value"]),
    "a regularizer without keys": (
        {"regularizer/mine.yaml": "penalty: {_target_: seg_l1.penalties.L1}\n"},
        "regularizer=mine", ["regularizer.dropout", "give that key a value"]),
    "a group that there is not": (
        {"unknown/a.yaml": "x: 1\n"}, "unknown=a", ["unknown"]),
    "two files that name each other": (
        {"experiment/mine.yaml": "defaults: [other]\n",
         "experiment/other.yaml": "defaults: [mine]\n"}, "experiment=mine", ["refers to itself"]),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", OWN_OPTIONS)
def test_options_of_ones_own_that_are_wrong_are_named(case, command, tmp_path):
    files, typed, words = OWN_OPTIONS[case]
    write_own(tmp_path, files)
    assert_refused(command("--config-dir", "own", typed), words, tmp_path)


@pytest.mark.parametrize("kind", ["loop", "folder"])
def test_a_yaml_that_is_no_file_is_named(kind, command, tmp_path):
    path = tmp_path / "own" / "experiment" / "mine.yaml"
    path.parent.mkdir(parents=True)
    if kind == "loop":
        path.symlink_to(path.name)
    else:
        path.mkdir()
    result = command("--config-dir", "own", "experiment=mine")
    assert_refused(result, ["mine.yaml", "symbolic" if kind == "loop" else "directory"], tmp_path)


def test_yaml_of_ones_own_works(command, tmp_path):
    """Own names for interpolations, an option that builds on another, an empty file."""
    files = {
        "experiment/mine.yaml": GLOBAL + "base_rate: 0.02\noptimizer:\n  lr: ${base_rate}\n",
        "trainer/fast.yaml": "defaults: [default, _self_]\nepochs: 1\n",
        "debug/nothing.yaml": "",
    }
    write_own(tmp_path, files)
    tiny = [word for word in TINY if "epochs" not in word]
    typed = ["--config-dir", "own", "experiment=mine", "trainer=fast", "debug=nothing"]
    code, _, err = command(*typed, *tiny, "hydra.run.dir=run")
    assert (code, err) == (0, "")
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["optimizer"]["lr"] == 0.02
    assert config["trainer"]["epochs"] == 1
