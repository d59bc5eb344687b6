from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from seg_l1.data import digits, files, folder
from seg_l1.data.augment import Augmentation
from seg_l1.data.batches import Batches
from seg_l1.data.split import TensorSplit, describe
from seg_l1.errors import UserError
from tests.support.standard_files import write_pairs


def small_digits(**more):
    return digits.load(num_train=6, num_val=4, num_test=4, **more)


def test_digits_are_the_same_every_time_and_another_seed_gives_others():
    first, again, other = small_digits(), small_digits(), small_digits(seed=1)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    for split in first.splits:
        assert torch.equal(first.splits[split].images, again.splits[split].images)


def test_no_digit_and_no_piece_of_photograph_is_in_two_splits():
    for length in (1797, 640, 427):
        parts = [set(digits.split_range(split, length)) for split in digits.SHARES]
        assert sum(map(len, parts)) == len(set.union(*parts)) == length


def test_scenes_are_made_of_the_digits_and_strips_of_their_split_only(monkeypatch):
    """Digits and photographs outside of the training part are painted over: nothing may change."""
    from sklearn import datasets

    before = digits.load(num_train=6, num_val=1, num_test=1).splits["train"]
    source, photos = datasets.load_digits(), datasets.load_sample_images()
    source.images[digits.split_range("train", 1797).stop :] = 16
    photos.images = [photo.copy() for photo in photos.images]
    for photo in photos.images:
        photo[:, digits.split_range("train", photo.shape[1]).stop :] = 0
    monkeypatch.setattr(datasets, "load_digits", lambda: source)
    monkeypatch.setattr(datasets, "load_sample_images", lambda: photos)
    after = digits.load(num_train=6, num_val=1, num_test=1).splits["train"]
    assert torch.equal(before.images, after.images)
    assert torch.equal(before.masks, after.masks)


def test_digits_stand_out_from_the_photograph_where_the_mask_says():
    data = small_digits()
    for split in data.splits.values():
        assert split.images.shape[1:] == (3, 48, 48)
        assert split.masks.max() <= 10
        for image, mask in zip(split.images, split.masks, strict=True):
            for label in mask.unique()[1:]:
                inside = image[:, mask == label].float()
                outside = image[:, mask == 0].float()
                assert (inside.mean(1) - outside.mean(1)).abs().max() > 5


@pytest.mark.parametrize(
    "wrong",
    [{"image_size": (12, 12)}, {"num_classes": 3}, {"digit_size": (14, 10)}],
    ids=str,
)
def test_digits_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError):
        small_digits(**wrong)


def test_describe_measures_the_training_split_only():
    images = torch.randint(0, 256, (3, 2, 4, 5), dtype=torch.uint8)
    masks = torch.tensor([0, 1, 1, 255, 1], dtype=torch.uint8).expand(3, 4, 5).clone()
    train = TensorSplit(images, masks, ["a", "b", "c"])
    data = describe(
        {"train": train, "val": TensorSplit(images + 1, masks, ["d"] * 3)}, ["x", "y"], []
    )
    scaled = images.double() / 255
    assert data.mean == pytest.approx(scaled.mean((0, 2, 3)).tolist())
    assert data.std == pytest.approx(scaled.std((0, 2, 3), correction=0).tolist())
    assert data.pixel_shares == pytest.approx([0.25, 0.75])
    assert data.unlabeled == pytest.approx(0.2)


def test_present_shares_count_the_training_images_that_show_a_class():
    """Pixels of a class over labeled pixels of the images with it (Eigen & Fergus 2015)."""
    masks = torch.tensor([[0, 0, 0, 1], [0, 255, 255, 255], [0, 0, 2, 255]], dtype=torch.uint8)
    train = TensorSplit(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), masks.view(3, 2, 2), ["a"] * 3)
    val = TensorSplit(train.images, torch.full((3, 2, 2), 3, dtype=torch.uint8), ["b"] * 3)
    data = describe({"train": train, "val": val}, ["w", "x", "y", "z"], [])
    assert data.present_shares == pytest.approx([6 / 8, 1 / 4, 1 / 3, 0])
    assert data.pixel_shares == pytest.approx([6 / 8, 1 / 8, 1 / 8, 0])


def test_padding_counts_in_no_statistic(tmp_path):
    for split in ("train", "val"):
        write_pairs(tmp_path / split, 1, (10, 12))
        write_pairs(tmp_path / split / "more", 1, (16, 9))
        for kind in ("images", "masks"):
            (tmp_path / split / "more" / kind / "000.png").rename(
                tmp_path / split / kind / "001.png"
            )
    data = folder.load(root=str(tmp_path), num_classes=2, image_size=None)
    files = sorted((tmp_path / "train" / "images").iterdir())
    pixels = np.concatenate([np.array(Image.open(path)).reshape(-1, 3) for path in files]) / 255
    assert data.mean == pytest.approx(pixels.mean(0).tolist())
    assert data.std == pytest.approx(pixels.std(0).tolist())
    assert data.unlabeled == 0
    assert data.splits["train"].image_size is None
    assert data.splits["train"][[0, 1]][0].shape == (2, 3, 16, 12)
    assert data.splits["train"][[1]][0].shape == (1, 3, 16, 9)


def test_a_subset_holds_the_pairs_that_it_was_asked_for():
    split = small_digits().splits["train"]
    part = split.subset([4, 1])
    assert part.names == [split.names[4], split.names[1]]
    assert part.image_size == split.image_size == (48, 48)
    assert torch.equal(part.images, split.images[[4, 1]])
    assert torch.equal(part.masks, split.masks[[4, 1]])


def test_batches_are_normalised_and_cover_every_image_once():
    data = small_digits()
    batches = Batches(data, "train", batch_size=4, shuffle=True, seed=1)
    assert len(batches) == 1
    whole = Batches(data, "train", batch_size=4)
    images = torch.cat([x for x, _ in whole.epoch()])
    assert len(images) == 6
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        images.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_a_function_of_seed_epoch_and_position(workers):
    data = digits.load(num_train=12, num_val=2, num_test=2)

    def batches(seed):
        return Batches(
            data,
            "train",
            batch_size=2,
            shuffle=True,
            augment=Augmentation(),
            seed=seed,
            workers=workers,
        )

    whole = list(batches(0).epoch(3))
    torch.rand(5)
    rest = list(batches(0).epoch(3, start=2))
    assert len(whole) == 6
    for (x, y), (x_again, y_again) in zip(whole[2:], rest, strict=True):
        assert torch.equal(x, x_again)
        assert torch.equal(y, y_again)
    assert not torch.equal(whole[0][0], next(batches(0).epoch(4))[0])
    assert not torch.equal(whole[0][0], next(batches(1).epoch(3))[0])


def test_folder_without_splits_is_cut_by_the_seed_without_overlap(street):
    data = folder.load(root=str(street), image_size=(16, 24), val_fraction=0.25, test_fraction=0.25)
    sizes = {name: len(split) for name, split in data.splits.items()}
    assert sizes == {"train": 6, "val": 3, "test": 3}
    names = [name for split in data.splits.values() for name in split.names]
    assert len(set(names)) == 12
    assert data.classes == ["road", "car"]
    images, masks = data.splits["train"][[0, 1]]
    assert images.shape == (2, 3, 16, 24)
    assert set(masks.unique().tolist()) == {0, 1}


def test_folder_remembers_what_was_drawn_and_the_seed_decides(street):
    listing = sorted(path.name for path in (street / "images").iterdir())
    data = folder.load(root=str(street), image_size=(16, 24))
    for split, held in data.splits.items():
        assert held.names == [f"images/{listing[i]}" for i in data.indices[split]]
    again = folder.load(root=str(street), image_size=None)
    other = folder.load(root=str(street), image_size=(16, 24), seed=1)
    assert data.indices == again.indices != other.indices
    assert set(data.indices) == {"train", "val"}


def test_folder_keeps_groups_together_and_can_be_stratified(street):
    for stem in ("002", "007", "009"):  # a class that one image of each split can show
        mask = np.array(Image.open(street / "masks" / f"{stem}.png"))
        Image.fromarray(2 * mask).save(street / "masks" / f"{stem}.png")
    (street / "classes.txt").write_text("road\ncar\nbus\n")
    for seed in range(5):
        options = {"root": str(street), "seed": seed, "val_fraction": 1 / 3}
        strata = folder.load(stratify=True, test_fraction=1 / 3, **options)
        for split in strata.splits.values():
            assert (split.masks == 2).flatten(1).any(1).sum() == 1
        grouped = folder.load(group_pattern=r"^0(\d)", **options)
        tens = {name: {n[-7:-5] for n in held.names} for name, held in grouped.splits.items()}
        assert tens == {"train": {"00"}, "val": {"01"}}


def test_options_that_do_nothing_to_split_folders_are_remarked(tmp_path):
    for split in ("train", "val"):
        write_pairs(tmp_path / split, 2, (10, 12))
    data = folder.load(root=str(tmp_path), num_classes=2, stratify=True)
    assert data.indices == {}
    assert "affect folds only" in data.notes[0]


def test_folder_reads_what_was_written(tmp_path):
    for split in ("train", "val"):
        write_pairs(tmp_path / split, 2, (10, 12))
    data = folder.load(root=str(tmp_path), num_classes=2, image_size=(10, 12))
    for split in ("train", "val"):
        for index in range(2):
            image = np.array(Image.open(tmp_path / split / "images" / f"{index:03d}.png"))
            mask = np.array(Image.open(tmp_path / split / "masks" / f"{index:03d}.png"))
            got_image, got_mask = data.splits[split][[index]]
            assert np.array_equal(got_image[0].permute(1, 2, 0).numpy(), image)
            assert np.array_equal(got_mask[0].numpy(), mask)


def test_a_folder_too_large_for_memory_gives_the_same_batches(street):
    held = folder.load(root=str(street), image_size=(16, 24))
    read = folder.load(root=str(street), image_size=(16, 24), memory_mib=0)
    assert isinstance(held.splits["train"], TensorSplit)
    assert isinstance(read.splits["train"], files.FileSplit)
    assert held.fingerprint == read.fingerprint
    options = {"batch_size": 3, "shuffle": True, "seed": 2}
    pairs = zip(
        Batches(held, "train", **options).epoch(1),
        Batches(read, "train", workers=2, **options).epoch(1),
        strict=True,
    )
    for (x, y), (x_read, y_read) in pairs:
        assert torch.equal(x, x_read)
        assert torch.equal(y, y_read)


def test_mask_values_name_the_classes_of_0_255_masks(street):
    for path in (street / "masks").iterdir():
        Image.fromarray(np.array(Image.open(path)) * 255).save(path)
    with pytest.raises(UserError, match=r"mask_values=\[0,255\]"):
        folder.load(root=str(street))
    data = folder.load(root=str(street), mask_values=[0, 255], image_size=(16, 24))
    assert data.pixel_shares[1] > 0.05
    assert data.unlabeled == 0


def test_palette_masks_hold_class_ids(street):
    before = folder.load(root=str(street)).fingerprint
    for path in (street / "masks").iterdir():
        picture = Image.fromarray(np.array(Image.open(path)), mode=None).convert("L")
        picture.putpalette([0, 0, 0, 200, 100, 50])
        picture.save(path)
    assert folder.load(root=str(street)).fingerprint == before


def test_every_bad_file_is_named(street):
    (street / "images" / "003.png").write_bytes(b"no picture")
    Image.fromarray(np.full((20, 30), 7, np.uint8)).save(street / "masks" / "005.png")
    Image.fromarray(np.zeros((9, 30), np.uint8)).save(street / "masks" / "008.png")
    with pytest.raises(UserError) as caught:
        folder.load(root=str(street))
    text = "\n".join(caught.value.details)
    assert "images/003.png" in text.replace("\\", "/")
    assert "005.png: holds the value 7; expected 0 to 1" in text
    assert "008.png: is 30x9 pixels" in text
    assert len(caught.value.details) == 3


def test_a_class_without_pixels_is_remarked(street):
    (street / "classes.txt").write_text("road\ncar\nunicorn\n")
    assert folder.load(root=str(street)).notes == ["no training pixel has the class unicorn"]
