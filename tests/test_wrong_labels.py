"""Wrong labels: how many, which, where, and what stays as it is."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from seg_l1.config.compose import compose_plain
from seg_l1.config.identity import duplicates
from seg_l1.config.words import parse
from seg_l1.data import folder
from seg_l1.data.batches import Batches
from seg_l1.data.class_weights import class_weights
from seg_l1.data.split import SegmentationData, TensorSplit, describe
from seg_l1.data.wrong_labels import WrongLabels, with_wrong_labels
from seg_l1.display.terminal import data_text
from seg_l1.errors import UserError
from seg_l1.experiments import jobs
from seg_l1.experiments.path.folds import draw_folds, fold_data
from seg_l1.experiments.recipe import expanded
from seg_l1.training.data import load_data
from seg_l1.training.saved import evaluate_run
from tests.support.refusals import assert_refused
from tests.support.runs import TINY, runs, table
from tests.support.standard_files import WRITERS, write_pairs

K = 5
KINDS = pytest.mark.parametrize("by", ["region", "pixel"])


def drawn(count=400, size=(6, 7)) -> SegmentationData:
    """Masks of K classes and 255, and images that say which mask they belong to."""
    rng = np.random.default_rng(0)
    masks = rng.integers(0, K + 1, (count, *size), dtype=np.uint8)
    masks[masks == K] = 255
    images = np.arange(count, dtype=np.uint16).reshape(-1, 1, 1, 1)
    images = np.broadcast_to(images, (count, 1, *size)).astype(np.uint16)
    names = [f"{index}.png" for index in range(count)]
    train = TensorSplit(torch.from_numpy(images), torch.from_numpy(masks), names)
    val = TensorSplit(train.images[:9], train.masks[:9].clone(), names[:9])
    return describe({"train": train, "val": val}, [*"abcde"])


def pairs(split) -> list[tuple[np.ndarray, np.ndarray]]:
    """Image and mask of each pair, read one by one."""
    read = [split[[index]] for index in range(len(split))]
    return [(image[0].numpy(), mask[0].numpy()) for image, mask in read]


def digits(*words) -> SegmentationData:
    return load_data(compose_plain([*TINY, *words]))


def same(one, other) -> bool:
    return all(
        np.array_equal(a, b)
        for x, y in zip(pairs(one), pairs(other), strict=True)
        for a, b in zip(x, y, strict=True)
    )


@KINDS
@pytest.mark.parametrize("share", [0.1, 0.6, 1.0])
def test_every_labeled_pixel_is_equally_likely_wrong_and_every_other_class_equally_often(by, share):
    """Against the binomial distribution, within five standard errors of what is independent."""
    data = drawn()
    changed = with_wrong_labels(data, share=share, by=by, seed=3)
    before, after = data.splits["train"].masks, changed.splits["train"].masks
    assert torch.equal(after == 255, before == 255)
    assert torch.equal(changed.splits["train"].images, data.splits["train"].images)
    labeled = before != 255
    confusion = torch.zeros(K, K)
    confusion.index_put_(
        (before[labeled].long(), after[labeled].long()), torch.ones(()), accumulate=True
    )
    confusion /= confusion.sum(1, keepdim=True)
    expected = torch.full((K, K), share / (K - 1)).fill_diagonal_(1 - share)
    independent = len(before) if by == "region" else int(labeled.sum()) / K
    error = (expected * (1 - expected) / independent).sqrt()
    assert ((confusion - expected).abs() <= 5 * error + 1e-6).all()


def test_a_region_is_wrong_as_a_whole_and_pixels_one_by_one():
    data = drawn()
    before = data.splits["train"].masks
    several = {}
    for by in ("region", "pixel"):
        after = with_wrong_labels(data, share=0.5, by=by, seed=3).splits["train"].masks
        several[by] = [
            len(after[index][before[index] == label].unique())
            for index in range(len(before))
            for label in before[index].unique()
            if label != 255
        ]
    assert set(several["region"]) == {1}
    assert np.mean(np.array(several["pixel"]) > 1) > 0.9


@KINDS
def test_the_draw_depends_on_seed_and_image_alone(by):
    """Two images, and two seeds, do not have the same draws; one image always has the same."""
    data = drawn(200)
    masks = torch.zeros_like(data.splits["train"].masks)
    data.splits["train"] = replace(data.splits["train"], masks=masks)
    first, again, other = (
        with_wrong_labels(data, share=0.5, by=by, seed=seed).splits["train"].masks
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    neighbors = (first[1:] == first[:-1]).flatten(1).all(1).float().mean()
    assert neighbors < 0.5  # of regions a quarter is right in both


@KINDS
def test_what_is_wrong_with_a_small_share_is_wrong_with_a_larger_one(by):
    data = drawn()
    before = data.splits["train"].masks
    small, large = (
        with_wrong_labels(data, share=share, by=by, seed=0).splits["train"].masks
        for share in (0.1, 0.3)
    )
    assert torch.equal(small[small != before], large[small != before])
    assert (large != before).sum() > 2 * (small != before).sum()


@KINDS
def test_images_keep_their_labels_in_any_order_batch_and_subset(by, tmp_path):
    """In memory, from files, at their own sizes with padding, in workers, and cut by `limit`."""
    root = tmp_path / "street"
    for size, name in (((20, 30), "a"), ((26, 18), "b")):
        write_pairs(root / name, 7, size)
        for kind in ("images", "masks"):
            for file in sorted((root / name / kind).iterdir()):
                (root / "train" / kind).mkdir(parents=True, exist_ok=True)
                file.rename(root / "train" / kind / f"{name}{file.name}")
    words = ["dataset=folder", f"dataset.root={root}", "dataset.num_classes=2"]
    words += ["dataset.wrong_labels=0.4", f"dataset.wrong_labels_by={by}", "dataset.image_size="]
    for folder_of in ("a", "b"):
        for kind in ("images", "masks"):
            (root / folder_of / kind).rmdir()
        (root / folder_of).rmdir()
    for size in ("[16,24]", "null"):
        config = compose_plain([*words[:-1], words[-1] + size])
        held = load_data(config)
        config["dataset"]["memory_mib"] = 0
        read = load_data(config)
        train = read.splits["train"]
        assert isinstance(train, WrongLabels)
        assert isinstance(held.splits["train"], TensorSplit) == (size != "null")
        assert same(held.splits["train"], train)
        assert held.pixel_shares == read.pixel_shares
        assert held.notes == read.notes
        config["limit"]["train"] = 5
        assert same(load_data(config).splits["train"], train.subset(range(5)))
        order = [7, 1, 4, 9]
        one_by_one = [train[[index]][1][0] for index in order]
        for masks in (train[order][1], train.subset(order)[range(4)][1]):
            for whole, alone in zip(masks, one_by_one, strict=True):
                height, width = alone.shape
                assert torch.equal(whole[:height, :width], alone)
                assert (whole[height:] == 255).all() and (whole[:, width:] == 255).all()
        batches = [
            torch.cat([y.flatten() for _, y in Batches(read, "train", **options).epoch(2)])
            for options in (
                {"batch_size": 1, "workers": 0, "shuffle": True},
                {"batch_size": 1, "workers": 2, "shuffle": True},
            )
        ]
        assert torch.equal(*batches)


@pytest.mark.parametrize("name", ["digits", "mnist", "voc", "oxford_pet", "cityscapes", "folder"])
def test_every_data_set_has_them_in_its_training_split_alone(name, tmp_path):
    words = [f"dataset={name}", "dataset.image_size=[32,40]"]
    if name == "digits":
        words += [o for o in TINY if "dataset.num" in o]
    elif name == "folder":
        write_pairs(tmp_path, 12)
        words += [f"dataset.root={tmp_path}", "dataset.num_classes=2", "dataset.test_fraction=0.2"]
    else:
        WRITERS[name](tmp_path)
        words += [f"dataset.root={tmp_path}"]
    right, wrong = (
        load_data(compose_plain([*words, f"dataset.wrong_labels={share}"])) for share in (0, 0.5)
    )
    assert right.splits.keys() == wrong.splits.keys() == {"train", "val", "test"}
    assert not same(right.splits["train"], wrong.splits["train"])
    for split in ("val", "test"):
        assert same(right.splits[split], wrong.splits[split])
    kept = ("fingerprint", "mean", "std", "classes", "indices", "unlabeled", "resize_mode", "bits")
    assert all(getattr(right, key) == getattr(wrong, key) for key in kept)
    assert wrong.difference(right.fingerprint, right.classes) is None
    assert not any("wrong" in note for note in right.notes)


def test_images_keep_their_labels_when_others_are_drawn_for_validation(tmp_path):
    write_pairs(tmp_path, 12)
    found = []
    for share in (0.25, 0.5):
        words = ["dataset=folder", f"dataset.root={tmp_path}", "dataset.num_classes=2"]
        words += ["dataset.wrong_labels=0.5", f"dataset.val_fraction={share}"]
        train = load_data(compose_plain(words)).splits["train"]
        found.append({n: m.tobytes() for n, (_, m) in zip(train.names, pairs(train), strict=True)})
    both = found[0].keys() & found[1].keys()
    assert len(both) >= 3
    assert all(found[0][name] == found[1][name] for name in both)


@KINDS
def test_shares_and_class_weights_are_those_of_the_wrong_labels(by):
    data = drawn(50)
    data.splits["train"].masks[data.splits["train"].masks == 4] = 0
    data = describe(data.splits, data.classes, ["as before"])
    changed = with_wrong_labels(data, share=0.4, by=by, seed=0)
    masks = changed.splits["train"].masks
    again = describe(changed.splits, data.classes)
    assert changed.pixel_shares == again.pixel_shares != data.pixel_shares
    assert changed.present_shares == again.present_shares
    shares = [float((masks == k).sum() / (masks != 255).sum()) for k in range(K)]
    assert changed.pixel_shares == pytest.approx(shares)
    weights = class_weights("inverse", changed.pixel_shares, changed.present_shares)
    assert weights == pytest.approx([1 / (K * share) for share in shares])
    wrong = float((masks != data.splits["train"].masks).sum() / (masks != 255).sum())
    said = f"{100 * wrong:.1f} % of the labeled training pixels were given a wrong class"
    assert changed.notes == [
        "as before",
        f"{said} (dataset.wrong_labels=0.4 by {by})",
        "wrong labels alone have the class e",
    ]
    assert f"note: {said}" in data_text(changed)
    assert data.notes == ["as before"]


def test_a_class_that_wrong_labels_remove_is_named():
    data = drawn(1)
    masks = torch.zeros_like(data.splits["train"].masks)
    data = describe({"train": replace(data.splits["train"], masks=masks)}, ["a", "b"])
    changed = with_wrong_labels(data, share=1.0, by="region", seed=0)
    assert changed.notes[1:] == [
        "wrong labels alone have the class b",
        "wrong labels leave no pixel of a",
    ]


def test_folds_train_and_validate_on_the_wrong_labels():
    data = digits("dataset.num_train=20", "dataset.wrong_labels=0.5")
    train = data.splits["train"]
    (fold, *_) = draw_folds(data, 4, 1, seed=0)
    cut = fold_data(data, fold)
    kept = [index for index in range(20) if index not in fold]
    assert torch.equal(cut.splits["val"].masks, train.masks[fold])
    assert torch.equal(cut.splits["train"].masks, train.masks[kept])
    assert not torch.equal(train.masks, digits("dataset.num_train=20").splits["train"].masks)
    assert cut.notes == data.notes


def test_validation_on_the_training_images_is_on_what_is_trained():
    data = digits("dataset.wrong_labels=0.5", "limit.val_is_train=true", "limit.train=4")
    right = digits("limit.train=4")
    assert same(data.splits["val"], data.splits["train"])
    assert not same(data.splits["train"], right.splits["train"])
    assert torch.equal(data.splits["train"].images, right.splits["train"].images)


def test_one_class_has_no_other():
    data = replace(drawn(2), classes=["a"])
    with pytest.raises(UserError, match="there is one class only"):
        with_wrong_labels(data, share=0.1, by="pixel", seed=0)


def test_a_folder_without_training_images_is_scored(tmp_path):
    write_pairs(tmp_path, 3)
    data = folder.load(root=str(tmp_path), num_classes=2, to_score=True)
    assert with_wrong_labels(data, share=0.5, by="region", seed=0) is data


def test_without_wrong_labels_it_is_the_same_run_by_pixel_and_by_region():
    words = ["dataset.wrong_labels_by=pixel", "dataset.wrong_labels=0.1"]
    configs = [compose_plain(some) for some in ([], words[:1], words, words[1:])]
    assert duplicates(configs) == [None, 0, None, None]


def test_the_recipe_is_that_of_the_right_labels(tmp_path, capsys):
    write_pairs(tmp_path, 12, (96, 130))
    found = []
    for more in ([], ["dataset.wrong_labels=0.5", "dataset.wrong_labels_by=pixel"]):
        words = ["experiment=own", f"dataset.root={tmp_path}", "dataset.num_classes=2"]
        found.append([str(o.input_line) for o in expanded(*parse([*words, *more]))])
    assert len(found[0]) > 5 and found[0] == found[1][:-2]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "dataset.wrong_labels=1.5",
            "dataset.wrong_labels: got 1.5, expected a number from 0 to 1",
        ),
        ("dataset.wrong_labels=-0.1", "expected a number from 0 to 1"),
        ("dataset.wrong_labels=10%", "expected a number from 0 to 1"),
        ("dataset.wrong_labels=true", "expected a number from 0 to 1"),
        ("dataset.wrong_labels=null", "expected a number from 0 to 1"),
        ("dataset.wrong_labels_by=image", "expected one of region, pixel"),
        ("dataset.wrong_label=0.1", "dataset.wrong_labels"),
    ],
)
def test_wrong_words_are_refused(word, said, command, tmp_path):
    assert_refused(command(word), [said], tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_run_says_so_is_evaluated_and_resumed_but_not_with_another_share(
    command, tmp_path, monkeypatch
):
    monkeypatch.setattr(jobs, "_data", None)
    words = [*TINY, "dataset.wrong_labels=0.3", "dataset.class_weights=inverse"]
    code, out, _ = command(*words, "hydra.run.dir=run")
    assert code == 0
    assert "wrong class (dataset.wrong_labels=0.3 by region)" in out
    written = runs(tmp_path)[0] / "metrics.csv"
    scores = evaluate_run(tmp_path / "run", "val")
    best = max(table(written), key=lambda row: float(row["val/miou"]))
    for name in ("miou", "loss"):  # the loss has the class weights of the wrong labels
        assert scores[f"val/{name}"] == pytest.approx(float(best[f"val/{name}"]), rel=1e-5)
    for word in ("dataset.wrong_labels=0", "dataset.wrong_labels_by=pixel"):
        code, _, err = command("resume=run", "trainer.epochs=3", word)
        assert (code, err.count("\n")) == (2, 1)
        assert word.split("=")[0] in err
    code, out, _ = command("resume=run", "trainer.epochs=3", "dataset.wrong_labels=0.3")
    assert code == 0
    assert "dataset.wrong_labels=0.3 by region" in out


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_sweep_over_shares_trains_each_on_its_own_labels(command, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_data", None)
    words = ["-m", *TINY, "dataset.wrong_labels=0,0.5", "hydra.sweep.dir=sweep"]
    assert command(*words, "trainer.epochs=1")[0] == 0
    rows = [table(run / "metrics.csv")[0] for run in runs(tmp_path / "sweep")]
    assert rows[0]["train/loss"] != rows[1]["train/loss"]
    about = [json.loads((run / "environment.json").read_text()) for run in runs(tmp_path / "sweep")]
    assert about[0]["data_fingerprint"] == about[1]["data_fingerprint"]


def test_the_share_of_a_million_labels_is_that_which_was_asked_for():
    """Six standard deviations, so that a share that is wrong by a hundredth is seen."""
    masks = torch.zeros(1, 1000, 1000, dtype=torch.uint8)
    split = TensorSplit(torch.zeros(1, 3, 1, 1, dtype=torch.uint8), masks, ["0"])
    changed = WrongLabels(split, [0], 5, 0.3, "pixel", 0).changed(masks, [0])
    shares = torch.bincount(changed.flatten().long(), minlength=5) / 1e6
    assert shares[0] == pytest.approx(0.7, abs=0.0027)
    assert shares[1:].tolist() == pytest.approx([0.075] * 4, abs=0.0016)
