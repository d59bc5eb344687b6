"""`experiment=own`: settings that follow from the images, as overrides that anybody could type."""

from __future__ import annotations

import shlex
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from seg_l1.cli.main import main
from seg_l1.config.compose import compose_plain
from seg_l1.config.words import parse
from seg_l1.data.batches import Batches
from seg_l1.errors import UserError
from seg_l1.experiments.recipe import Fingerprint, expanded, fingerprint, recipe
from seg_l1.experiments.space import with_recipe
from seg_l1.runs.directory import RunDirectory
from seg_l1.training.build import build
from seg_l1.training.data import load_data
from seg_l1.training.facts import few_steps
from tests.support.runs import TINY


def write(root, count=12, size=(96, 130), width=4):
    """Images with a vertical bar of `width` pixels; their masks."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for index in range(count):
        mask = np.zeros(size, np.uint8)
        left = int(rng.integers(5, size[1] - width - 5))
        mask[:, left : left + width] = 1
        pixels = rng.integers(0, 60, (*size, 3)) + 150 * mask[..., None]
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"images/{index}.png")
        Image.fromarray(mask).save(root / f"masks/{index}.png")
    (root / "classes.txt").write_text("ground\nbar\n")
    return root


def words_of(found, **options):
    return dict(each.word.split("=") for each in recipe(found, **options))


def facts(images=40, height=400, width=600, shares=(0.9, 0.1), thickness=5.0):
    return Fingerprint(images, height, width, shares, "bar", thickness)


def typed(*words):
    return expanded(*parse(words))


def lines(overrides):
    return [str(override.input_line) for override in overrides]


def test_the_facts_are_those_of_the_images(tmp_path):
    root = write(tmp_path / "mine")
    words = ["experiment=own", f"dataset.root={root}", "dataset.val_fraction=0.25"]
    found = fingerprint(load_data(compose_plain(words)))
    assert (found.images, found.height, found.width, found.rarest) == (9, 96, 130, "bar")
    assert found.shares == pytest.approx((126 / 130, 4 / 130))
    assert found.thickness == pytest.approx(4 * 1.5)  # distances 1, 2, 2, 1


@pytest.mark.parametrize("images", [3, 7, 30, 100, 999, 20_000])
@pytest.mark.parametrize("size", [(20, 33), (96, 130), (400, 600), (3000, 4000)])
def test_there_are_at_least_2000_steps_of_crops_within_the_images(images, size):
    found = facts(images, *size)
    words = {key: eval(value) for key, value in words_of(found).items()}
    crop, batch = words["augmentation.crop"], words["dataset.batch_size"]
    steps = images * words["dataset.repeats"] // min(batch, images)
    assert steps * words["trainer.epochs"] >= 2000
    assert words["trainer.epochs"] >= 10
    assert all(0 < part <= whole for part, whole in zip(crop, size, strict=True))
    assert all(side % 32 == 0 for side in crop) or min(size) < 32
    assert 2 <= batch <= 16


def test_large_images_of_large_things_shrink_and_thin_things_stay():
    large = facts(height=3000, width=4000, thickness=300.0)
    assert words_of(large)["dataset.image_size"] == "[512,672]"
    assert "dataset.image_size" not in words_of(large, resizable=False)
    thin = facts(height=3000, width=4000, thickness=6.0)
    assert "dataset.image_size" not in words_of(thin)


def test_the_weights_of_rare_classes_keep_the_mean_pixel():
    shares = (0.94, 0.05, 0.01, 0.0)
    weights = eval(words_of(facts(shares=shares))["dataset.class_weights"])
    assert sum(w * s for w, s in zip(weights, shares, strict=True)) == pytest.approx(1, abs=0.01)
    assert weights[2] / weights[1] == pytest.approx(5**0.5, rel=0.01)
    assert weights[3] == 0
    assert "dataset.class_weights" not in words_of(facts(shares=(0.6, 0.4)))


def test_what_was_typed_counts_and_its_place_is_the_last(tmp_path, capsys):
    root = write(tmp_path / "mine")
    words = ["experiment=own", f"dataset.root={root}", "trainer.epochs=3", "regularizer=l1"]
    found = lines(typed(*words))
    assert [word for word in found if word in words] == words
    assert "trainer.epochs=20" not in found
    shown = capsys.readouterr().out
    added = [word for word in found if word not in words]
    assert added and all(word in shown for word in added)
    config = compose_plain(found)
    assert config["augmentation"]["crop"] == [96, 128]
    assert (config["trainer"]["epochs"], config["regularizer"]["name"]) == (3, "l1")
    assert config["dataset"]["image_size"] is None
    light = lines(typed(*words[:2], "augmentation=light"))
    assert not any(word.startswith("augmentation.") for word in light)


def test_the_words_that_are_recorded_give_the_same_run(tmp_path):
    """Nothing is added to them, for any sizes."""
    for index, size in enumerate([(40, 50), (96, 130), (700, 900)]):
        root = write(tmp_path / f"mine{index}", 5, size, width=size[1] // 4)
        found = lines(typed("experiment=own", f"dataset.root={root}"))
        assert lines(typed(*found)) == found


def test_other_experiments_are_left_alone():
    for words in (["regularizer=l1"], ["experiment=none"], ["experiment=camvid,none"]):
        assert lines(typed(*words)) == words


def test_a_sweep_over_experiments_is_refused_and_one_over_strengths_is_not(tmp_path):
    root = write(tmp_path / "mine")
    with pytest.raises(UserError, match="experiment: own depends on the data"):
        typed("-m", "experiment=own,none", f"dataset.root={root}")
    found = lines(
        typed("-m", "experiment=own", f"dataset.root={root}", "regularizer.alpha=1e-5,1e-4")
    )
    assert "regularizer.alpha=1e-5,1e-4" in found
    assert any(word.startswith("dataset.repeats=") for word in found)


def test_a_search_takes_the_settings_of_the_images(tmp_path):
    root = write(tmp_path / "mine")
    words = {"experiment": "own", "dataset.root": str(root), "trials": "3"}
    found = with_recipe({**words, "trainer.epochs": "int(2,4)"})
    assert found["trainer.epochs"] == "int(2,4)"
    assert found["augmentation.crop"] == "[96,128]"
    assert with_recipe({"regularizer": "l1"}) == {"regularizer": "l1"}


def test_an_epoch_shows_every_image_equally_often():
    data = load_data(compose_plain(TINY))
    names = {image.sum().item(): place for place, image in enumerate(data.splits["train"].images)}
    train = Batches(data, "train", batch_size=4, shuffle=True, repeats=3)
    assert len(train) == 3 * len(names) // 4
    seen = Counter()
    for images, _ in train.epoch(1):
        pixels = (images * torch.tensor(data.std).view(3, 1, 1) * 255).round()
        pixels += torch.tensor(data.mean).view(3, 1, 1) * 255
        seen.update(int(image.round().sum()) for image in pixels)
    assert set(seen.values()) == {3}
    assert set(seen) == {int(total) for total in names}


def test_repeats_are_steps_of_the_loop():
    config = compose_plain([*TINY, "dataset.repeats=5"])
    data = load_data(config)
    once = build(compose_plain(TINY), data).loop
    often = build(config, data).loop
    assert often.steps_per_epoch == 5 * once.steps_per_epoch


def test_few_steps_are_named_with_what_to_type():
    config = compose_plain(["dataset=folder", "dataset.root=my images"])
    (note,) = few_steps(config, 160)
    assert "160 optimizer steps" in note and "experiment=own 'dataset.root=my images'" in note
    assert few_steps(config, 1000) == few_steps(compose_plain([]), 5) == []


@pytest.mark.slow
def test_a_training_with_a_recipe_finds_thin_bars(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine")
    words = ["dataset.root=mine", "trainer.epochs=1", "model.width=4", "dataset.repeats=20"]
    assert main(["train", "experiment=own", *words, "hydra.run.dir=run"]) == 0
    run = RunDirectory(tmp_path / "run")
    assert run.read_summary().best["val/miou"] > 0.6  # 0.48 without a single bar
    recorded = run.read_overrides()
    assert "augmentation.crop=[96,128]" in recorded
    shown = capsys.readouterr().out.partition("\nnext:\n")[2].splitlines()[:2]
    short = ["experiment=own", *words]
    assert shlex.split(shown[0]) == ["seg-l1", "train", *short, "regularizer=none"]
    assert shlex.split(shown[1])[2 : 4 + len(words)] == ["-m", *short]
    assert lines(typed(*short)) == recorded
    write(tmp_path / "more", 90, size=(300, 400))
    again = [word.replace("=mine", "=more") for word in recorded]
    assert {*again} <= {*lines(typed(*again))}  # of other images, none of the words changes
