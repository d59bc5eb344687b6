"""`limit`: which images of a data set are used."""

from __future__ import annotations

import pytest
import torch

from seg_l1.config.compose import compose_plain
from seg_l1.data.split import SegmentationData
from seg_l1.training.data import data_key, load_data

SMALL = ["dataset.num_train=40", "dataset.num_val=6", "dataset.num_test=5"]


def limited(*words: str) -> SegmentationData:
    return load_data(compose_plain([*SMALL, *words]))


def test_without_a_seed_the_first_images_are_used():
    data = limited("limit.train=7", "limit.val=2")
    assert data.splits["train"].names == [f"train_{index:04d}" for index in range(7)]
    assert [len(data.splits[name]) for name in ("val", "test")] == [2, 2]


def test_a_seed_draws_training_images_alone():
    everything, data = limited(), limited("limit.train=7", "limit.seed=0")
    train, names = data.splits["train"], everything.splits["train"].names
    assert len(set(train.names)) == 7 and train.names == sorted(train.names) != names[:7]
    positions = [names.index(name) for name in train.names]
    images, masks = everything.splits["train"][positions]
    assert torch.equal(train[range(7)][0], images) and torch.equal(train[range(7)][1], masks)
    for name in ("val", "test"):
        assert data.splits[name].names == everything.splits[name].names
    assert data.fingerprint == everything.fingerprint


def test_images_for_a_smaller_limit_are_among_those_for_a_larger_one():
    few, many = (
        set(limited(f"limit.train={count}", "limit.seed=3").splits["train"].names)
        for count in (5, 20)
    )
    assert few < many
    assert few != set(limited("limit.train=5", "limit.seed=4").splits["train"].names)


@pytest.mark.parametrize("seed", ["null", "5"])
def test_a_limit_beyond_the_data_keeps_them_all_in_their_order(seed):
    words = ["limit.train=1000", f"limit.seed={seed}"]
    assert limited(*words).splits["train"].names == limited().splits["train"].names


def test_groups_follow_their_images():
    data = limited("dataset.parts=4", "limit.train=9", "limit.seed=1")
    positions = [int(name.removeprefix("train_")) for name in data.splits["train"].names]
    assert data.groups == [f"part {position % 4}" for position in positions]


def test_other_draws_are_other_data():
    keys = {
        data_key(compose_plain(["limit.train=7", f"limit.seed={seed}"]))
        for seed in ("null", "0", "1")
    }
    assert len(keys) == 3


def test_runs_of_versions_without_the_seed_read_the_same_images():
    config = compose_plain([*SMALL, "limit.train=7"])
    del config["limit"]["seed"]
    assert load_data(config).splits["train"].names == limited("limit.train=7").splits["train"].names
