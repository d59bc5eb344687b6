"""Splits are drawn by a seed, in whole groups, stratified by the classes of the images."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold

from seg_l1.data.partition import draw, partition
from seg_l1.errors import UserError

SHARES = {"train": 0.7, "val": 0.2, "test": 0.1}


def listing(sizes):
    """Names of groups of these sizes, "<group>_<number>.png", in a folder."""
    return [f"images/{g}_{i}.png" for g, size in enumerate(sizes) for i in range(size)]


def nothing(names):
    return np.zeros((len(names), 0), dtype=bool)


@pytest.mark.parametrize("stratify", [False, True])
@pytest.mark.parametrize("pattern", [None, r"^\d+"])
def test_every_position_is_in_one_part_and_the_seed_decides(pattern, stratify):
    names = listing([3] * 20)
    presence = np.random.default_rng(0).random((60, 4)) < 0.3
    options = {"group_pattern": pattern, "stratify": stratify}
    parts = partition(names, presence, SHARES, seed=1, **options)
    assert list(parts) == list(SHARES)
    assert sorted(itertools.chain(*parts.values())) == list(range(60))
    assert all(positions == sorted(positions) for positions in parts.values())
    assert parts == partition(names, presence, SHARES, seed=1, **options)
    assert parts != partition(names, presence, SHARES, seed=2, **options)


@pytest.mark.parametrize("count", [1, 2, 7, 12, 60, 101])
@pytest.mark.parametrize(
    "shares", [SHARES, {"train": 0.9, "val": 0.1}, dict.fromkeys(range(5), 1)], ids=str
)
def test_sizes_are_the_shares_up_to_one_image(count, shares):
    names = [f"{index}.png" for index in range(count)]
    for seed in range(3):
        parts = partition(names, nothing(names), shares, seed=seed)
        for part, share in shares.items():
            assert abs(len(parts[part]) - count * share / sum(shares.values())) < 1
        if count >= len(shares):
            assert all(parts.values())


def test_every_image_is_drawn_for_validation_equally_often():
    names = [f"{index}.png" for index in range(20)]
    drawn = np.zeros(20)
    for seed in range(400):
        drawn[partition(names, nothing(names), {"train": 3, "val": 1}, seed=seed)["val"]] += 1
    assert abs(drawn - 100).max() < 5 * np.sqrt(400 * 0.25 * 0.75)


@pytest.mark.parametrize("shares", [(0.8, 0.2), (1, 1, 1)], ids=str)
def test_groups_are_never_cut_and_come_as_close_to_the_shares_as_they_can(shares):
    """Against all ways to deal the groups out that leave no part empty."""
    rng = np.random.default_rng(0)
    for seed in range(25):
        sizes = rng.integers(1, 12, rng.integers(3, 7))
        names = listing(sizes)
        wanted = np.array(shares) / sum(shares) * len(names)
        parts = partition(
            names, nothing(names), dict(enumerate(shares)), seed=seed, group_pattern=r"^(\d+)_"
        )
        groups = [{names[i].split("_")[0] for i in positions} for positions in parts.values()]
        assert sum(map(len, groups)) == len(sizes)
        best = min(
            np.abs(np.bincount(ways, sizes, len(shares)) - wanted).sum()
            for ways in itertools.product(range(len(shares)), repeat=len(sizes))
            if set(ways) == set(range(len(shares)))
        )
        assert np.abs([len(parts[k]) for k in parts] - wanted).sum() == pytest.approx(best)


def test_with_one_class_per_image_folds_hold_what_scikit_learn_gives_them():
    labels = np.repeat([0, 1, 2], [50, 23, 7])
    names = [f"{index}.png" for index in range(len(labels))]
    parts = partition(
        names, np.eye(3, dtype=bool)[labels], dict.fromkeys(range(5), 1), seed=0, stratify=True
    )
    ours = [np.bincount(labels[parts[fold]], minlength=3) for fold in range(5)]
    folds = StratifiedKFold(5, shuffle=True, random_state=0).split(labels, labels)
    theirs = [np.bincount(labels[test], minlength=3) for _, test in folds]
    for label in range(3):
        assert sorted(c[label] for c in ours) == sorted(c[label] for c in theirs)


@pytest.mark.parametrize("pattern", [None, r"^(\d+)_"])
def test_stratified_parts_get_their_share_of_every_class(pattern):
    """Against draws without strata: images off the share of a class, the worst class of each."""
    rng = np.random.default_rng(0)
    names = listing([3] * 50)
    presence = rng.random((150, 6)) < [0.9, 0.5, 0.3, 0.15, 0.08, 0.05]
    off = {True: [], False: []}
    for stratify, seed in itertools.product(off, range(10)):
        val = partition(
            names,
            presence,
            {"train": 0.8, "val": 0.2},
            seed=seed,
            group_pattern=pattern,
            stratify=stratify,
        )["val"]
        off[stratify].append(np.abs(presence[val].sum(0) - 0.2 * presence.sum(0)).max())
        assert abs(len(val) - 30) <= 3
        if pattern:
            assert len(val) == 3 * len({names[index].split("_")[0] for index in val})
    assert max(off[True]) <= 2
    assert np.mean(off[True]) < 0.5 * np.mean(off[False])


@pytest.mark.parametrize(
    ("pattern", "together"),
    [
        (r"^([a-z]+)_", [{0, 1, 2}, {3, 4}]),
        (r"_(\d+)\.", [{0, 3}, {1, 4}, {2}]),
        (r"(?:^)[a-z]", [{0, 1, 2}, {3, 4}]),
        (r"(ulm|bonn)_(\d)", [{0, 1, 2}, {3, 4}]),
    ],
)
def test_the_group_is_the_first_capture_group_or_the_match_in_the_file_name(pattern, together):
    names = ["b/ulm_1.png", "a/ulm_2.png", "a/ulm_3.png", "b/bonn_1.png", "c/bonn_2.png"]
    for seed in range(6):
        shares = {"x": 1, "y": 1}
        parts = partition(names, nothing(names), shares, seed=seed, group_pattern=pattern)
        for group in together:
            assert any(group <= set(positions) for positions in parts.values())
        assert all(parts.values())


@pytest.mark.parametrize(
    ("pattern", "words"),
    [("(", "is no regular expression"), ("^x", "'y_1.png' (1 of 2"), ("x|(z)", "(2 of 2")],
)
def test_patterns_that_find_no_group_are_refused(pattern, words):
    names = ["images/x_1.png", "images/y_1.png"]
    with pytest.raises(UserError, match=r"dataset\.group_pattern: ") as caught:
        partition(names, nothing(names), {"train": 1}, seed=0, group_pattern=pattern)
    assert words in str(caught.value)


def test_draw_leaves_out_a_test_split_that_nobody_asked_for():
    names = listing([10])
    parts = draw(names, nothing(names), {"val": 0.3, "test": 0.0}, seed=0)
    assert {part: len(positions) for part, positions in parts.items()} == {"train": 7, "val": 3}
    parts = draw(names, nothing(names), {"val": 0.3, "test": 0.2}, seed=0)
    assert [len(parts[part]) for part in ("train", "val", "test")] == [5, 3, 2]


@pytest.mark.parametrize(
    ("fractions", "pattern", "words"),
    [
        ({"val": 0.0}, None, "dataset.val_fraction=0: leaves the split 'val' empty (10 images)"),
        ({"val": 1.0}, None, "dataset.val_fraction=1: leaves nothing"),
        ({"val": 0.5, "test": 0.5}, None, "dataset.val_fraction=0.5 and dataset.test_fraction=0.5"),
        ({"val": 0.1}, r"^\d*", "dataset.val_fraction=0.1: leaves the split 'val' empty (10 images"
                                " in 1 group)"),
        ({"val": 0.7}, r"png", "dataset.val_fraction=0.7: leaves the split 'train' empty"),
        ({"val": 0.2, "test": 0.1}, r"^\d", "dataset.test_fraction=0.1: leaves the split 'test'"),
    ],
)  # fmt: skip
def test_an_empty_split_is_refused_by_the_name_of_its_key(fractions, pattern, words):
    names = listing([10] if pattern == r"^\d*" else [5, 5])
    with pytest.raises(UserError) as caught:
        draw(names, nothing(names), fractions, seed=0, group_pattern=pattern)
    assert words in str(caught.value)
