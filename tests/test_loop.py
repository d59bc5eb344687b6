from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from seg_l1.config.compose import compose_plain
from seg_l1.data.split import TensorSplit
from seg_l1.errors import UserError
from seg_l1.models.tiles import tiled
from seg_l1.runs import checkpoints
from seg_l1.training.build import build
from seg_l1.training.data import load_data
from seg_l1.training.facts import first_summary
from seg_l1.training.loop import Diverged, Stopped
from seg_l1.training.settings import Settings
from tests.support.runs import TINY, same_bits, take_step


def experiment(*overrides, data=None):
    config = compose_plain([*TINY, *overrides])
    checkpoints.seed_everything(config["seed"])
    return build(config, data or load_data(config))


@pytest.fixture(scope="module")
def data():
    return load_data(compose_plain(TINY))


VARIANTS = {
    "proximal, adam": [],
    "subgradient, sgd": ["regularizer.solver=subgradient", "optimizer=sgd"],
    "accumulation, augmentation": ["trainer.accumulate=2", "augmentation=light"],
    "bf16, clipping": ["trainer.precision=bf16", "trainer.clip_norm=0.5"],
    "factors": ["regularizer=l1", "regularizer.solver=factorized"],
    "dual averaging, clipping": ["regularizer.solver=dual_averaging", "trainer.clip_norm=0.5"],
    "groups": ["regularizer=group_l1", "regularizer.alpha=1e-3"],
    "channels": ["regularizer=channel_l1", "regularizer.alpha=1e-3", "optimizer=adamw"],
    "tiny steps": ["regularizer.alpha=1e-9", "optimizer=sgd", "optimizer.lr=1e-4"],
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_loop_that_is_stopped_again_and_again_ends_with_the_same_bits(variant, data, tmp_path):
    """Within an epoch, twice within the same, and at the end of one."""
    whole = experiment(*VARIANTS[variant], data=data).loop
    rows = list(whole.rows())

    some, path = [], tmp_path / "last.pt"
    for stop_at in (2, 3, 4, None):
        part = experiment(*VARIANTS[variant], data=data).loop
        torch.rand(3)
        if path.exists():
            part.load_state_dict(checkpoints.load(path))
        with pytest.raises(Stopped) if stop_at else nullcontext():
            for row in part.rows(should_stop=lambda part=part, at=stop_at: part.step == at):
                some.append(row)
        checkpoints.save(path, part.state_dict())

    assert same_bits(whole.state_dict(), part.state_dict())
    timeless = [
        [{k: v for k, v in row.items() if not k.startswith("time/")} for row in each]
        for each in (rows, some)
    ]
    assert str(timeless[0]) == str(timeless[1])


def test_a_row_has_the_columns_of_the_contract(data):
    row = next(experiment(data=data).loop.rows())
    contract = """epoch, step, lr, lam, train/loss, train/data_loss, train/penalty, train/miou,
        val/loss, val/miou, val/dice, val/boundary_f1, val/pixel_accuracy, gap/miou,
        sparsity/exact, sparsity/groups, norm/l1, norm/l2, time/epoch_s, time/images_per_s"""
    assert {name.strip() for name in contract.split(",")} <= row.keys()
    assert {f"val/iou/{name}" for name in data.classes} <= row.keys()
    assert row["train/loss"] == pytest.approx(row["train/data_loss"] + row["train/penalty"])
    assert row["gap/miou"] == pytest.approx(row["train/miou"] - row["val/miou"])


@pytest.mark.slow
def test_strong_l1_gives_exact_zeros_and_the_subgradient_none(data):
    strong = ["regularizer.alpha=1e-2", "trainer.epochs=1"]
    *_, row = experiment(*strong, data=data).loop.rows()
    assert row["sparsity/exact"] > 0.5
    *_, row = experiment(*strong, "regularizer.solver=subgradient", data=data).loop.rows()
    assert row["sparsity/exact"] == 0


def test_accumulated_micro_batches_make_the_step_of_one_large_batch(data):
    """Without batch norm, 2 x 4 images are 8 images, penalty and all."""
    common = ["model.norm=none", "trainer.epochs=1", "optimizer=sgd", "optimizer.lr=0.01",
              "regularizer.alpha=1e-3"]  # fmt: skip
    for solver in ("proximal", "subgradient"):
        options = [*common, f"regularizer.solver={solver}"]
        large = experiment(*options, "dataset.batch_size=8", data=data).loop
        small = experiment(*options, "trainer.accumulate=2", data=data).loop
        for loop in (large, small):
            list(loop.rows())
        assert large.step == small.step == 2
        for one, other in zip(large.model.parameters(), small.model.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_a_loss_that_is_no_number_stops_the_loop(data):
    loop = experiment("optimizer=sgd", "optimizer.lr=1e20", "model.norm=none", data=data).loop
    with pytest.raises(Diverged, match="epoch 1"):
        list(loop.rows())


@pytest.mark.parametrize("stop", [False, True])
def test_a_bad_last_update_of_an_epoch_is_seen_before_anything_is_saved(stop, data):
    loop = experiment(data=data).loop
    right = loop.optimizer.step

    def step(*arguments):
        if loop.step == loop.steps_per_epoch - 1:
            next(loop.model.parameters()).grad[0] = float("inf")
        return right(*arguments)

    loop.optimizer.step = step
    with pytest.raises(Diverged, match="epoch 1"):
        next(loop.rows(should_stop=lambda: stop and loop.step == loop.steps_per_epoch))
    assert loop.epoch == 0


def test_accumulation_weighs_micro_batches_by_their_labelled_pixels(data):
    half = data.splits["train"]
    masks = half.masks.clone()
    masks[:, :20] = 255
    masks[::3] = torch.where(torch.rand(masks[::3].shape) < 0.9, 255, masks[::3])
    sparse = replace(
        data, splits={**data.splits, "train": TensorSplit(half.images, masks, half.names)}
    )
    options = ["model.norm=none", "trainer.epochs=1", "optimizer=sgd", "optimizer.lr=0.01"]
    large = experiment(*options, "dataset.batch_size=8", data=sparse).loop
    small = experiment(*options, "trainer.accumulate=4", "dataset.batch_size=2", data=sparse).loop
    rows = [next(loop.rows()) for loop in (large, small)]
    assert rows[0]["train/data_loss"] == pytest.approx(rows[1]["train/data_loss"], rel=1e-5)
    for one, other in zip(large.model.parameters(), small.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_the_penalty_is_not_divided_by_the_scale_of_mixed_precision(data):
    """The subgradient enters after unscaling: a huge loss scale must not change the step."""
    options = ["regularizer.solver=subgradient", "regularizer.alpha=0.1", "optimizer=sgd",
               "model.norm=none"]  # fmt: skip
    loops = [experiment(*options, data=data).loop for _ in range(2)]
    loops[1].scaler = torch.amp.GradScaler("cpu", init_scale=65536.0, enabled=True)
    for loop in loops:
        take_step(loop)
    assert loops[1].scaler.get_scale() == 65536
    for one, other in zip(*(loop.model.parameters() for loop in loops), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_early_stopping_waits_for_its_patience(data):
    loop = experiment(
        "trainer.early_stopping=2", "trainer.epochs=30", "optimizer.lr=1e-12",
        "regularizer.alpha=0", "scheduler=constant", "model.norm=none", data=data,
    ).loop  # fmt: skip
    rows = list(loop.rows())
    assert loop.best_epoch == 1
    assert len(rows) == 3


def test_the_penalty_waits_for_its_schedule(data):
    options = ["regularizer.alpha=1e-2", "regularizer.schedule=linear",
               "regularizer.schedule_start=1", "regularizer.schedule_epochs=0.5"]  # fmt: skip
    first, second = experiment(*options, data=data).loop.rows()
    assert first["lam"] == 0
    assert first["sparsity/exact"] == 0
    assert second["lam"] == 1
    assert second["sparsity/exact"] > 0


def test_a_step_that_the_scaler_skips_skips_the_prox(data):
    loop = experiment(
        "trainer.precision=fp16", "regularizer=l1", "regularizer.alpha=1", data=data
    ).loop
    steps = []
    loop.solver.after_step = lambda: steps.append(loop.solver.strength)

    class Scaler(torch.amp.GradScaler):
        """Finds an infinite gradient at its first step."""

        found = iter([True, False])

        def _maybe_opt_step(self, optimizer, state, *words, **named):
            return None if next(self.found) else optimizer.step()

    loop.scaler = Scaler("cpu", init_scale=1.0)
    loop.autocast = torch.autocast("cpu", enabled=False)
    take_step(loop)
    assert steps == []
    take_step(loop)
    assert steps == [1.0]


@pytest.mark.slow
def test_a_compiled_network_takes_the_same_steps(data):
    """Inductor fuses and reorders sums, so the bits differ; the run does not."""
    rows = {}
    for compiled in ("false", "true"):
        words = ["model.depth=1", "trainer.kkt_every=1", f"trainer.compile={compiled}"]
        loop = experiment(*words, data=data).loop
        rows[compiled] = list(loop.rows())
        assert "down.0.0.weight" in loop.state_dict()["model"]
    for one, other in zip(rows["false"], rows["true"], strict=True):
        for key in ("train/data_loss", "train/penalty", "val/loss", "sparsity/exact"):
            assert one[key] == pytest.approx(other[key], rel=0.02, abs=0.01)


@pytest.mark.slow
def test_images_of_their_own_sizes_are_trained_on_in_windows(street):
    """Pictures of two sizes, whole ones evaluated, in tiles too."""
    from tests.support.standard_files import write_pairs

    write_pairs(street.parent / "other", 4, size=(150, 200))
    for kind in ("images", "masks"):
        for path in (street.parent / "other" / kind).iterdir():
            path.rename(street / kind / f"large_{path.name}")
    words = [
        "dataset=folder",
        f"dataset.root={street}",
        "dataset.image_size=null",
        "augmentation=strong",
        "augmentation.crop=[16,24]",
        "trainer.epochs=1",
    ]
    tiny = [word for word in TINY if "dataset.num" not in word and "epochs" not in word]
    for tile in (None, [64, 64]):
        config = compose_plain(
            [*tiny, *words, f"trainer.tile={tile or 'null'}", "trainer.tile_overlap=0"]
        )
        loop = build(config, load_data(config)).loop
        (row,) = loop.rows()
        expected, losses, sizes = torch.zeros(2, 2, dtype=torch.long), [], set()
        for images, masks in loop.val.epoch():
            with torch.no_grad():
                logits = tiled(loop.model, images, tile, 0.0)
            pairs = 2 * masks.flatten() + logits.argmax(1).flatten()
            expected += torch.bincount(pairs, minlength=4).reshape(2, 2)
            losses.append(cross_entropy(logits, masks, reduction="none").flatten())
            sizes.add(tuple(masks.shape[1:]))
        assert sizes == {(20, 30), (150, 200)}
        union = expected.sum(0) + expected.sum(1) - expected.diagonal()
        assert row["val/miou"] == pytest.approx(float((expected.diagonal() / union).mean()))
        assert row["val/loss"] == pytest.approx(float(torch.cat(losses).mean()), rel=1e-6)
    config = compose_plain([*tiny, *words[:3]])
    with pytest.raises(UserError, match="crop"):
        build(config, load_data(config))


def test_an_error_in_the_certificate_is_the_one_that_is_told(command, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("seg_l1.training.loop.gradients", fail)
    code, _, err = command(*TINY, "trainer.kkt_every=1", "hydra.run.dir=run")
    assert code == 1
    assert "out of memory" in err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "out of memory" in summary["error"]


def test_a_run_whose_validation_has_no_label_still_ends(data):
    unlabeled = replace(data, splits={**data.splits, "val": TensorSplit(
        data.splits["val"].images, torch.full_like(data.splits["val"].masks, 255),
        data.splits["val"].names)})  # fmt: skip
    loop = experiment(data=unlabeled).loop
    rows = list(loop.rows())
    assert loop.best_epoch == 1
    assert all(row["val/miou"] != row["val/miou"] for row in rows)


def test_windows_of_small_images_beside_large_ones_hold_no_padding(street):
    from tests.support.standard_files import write_pairs

    write_pairs(street.parent / "other", 4, size=(200, 300))
    for kind in ("images", "masks"):
        for path in (street.parent / "other" / kind).iterdir():
            path.rename(street / kind / f"large_{path.name}")
    words = ["dataset=folder", f"dataset.root={street}", "dataset.image_size=null"]
    words += ["augmentation=strong", "augmentation.crop=[16,24]", "augmentation.scale=[1,1]"]
    tiny = [word for word in TINY if "dataset.num" not in word]
    config = compose_plain([*tiny, *words])
    loop = build(config, load_data(config)).loop
    for epoch in range(5):
        for _, masks in loop.train.epoch(epoch):
            assert (masks != 255).all()
    assert {images.shape[2:] for images, _ in loop.fixed} == {(16, 24)}


@pytest.mark.parametrize(
    ("capabilities", "enabled"),
    [({"avx2": True}, False), ({"avx512_bf16": True}, True), ({"amx_bf16": False}, False)],
)
def test_bf16_is_taken_by_itself_where_there_are_instructions_for_it(
    capabilities, enabled, data, monkeypatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    with Settings(precision="auto").autocast(torch.device("cpu")):
        assert torch.is_autocast_enabled("cpu") == enabled
        assert not enabled or torch.get_autocast_dtype("cpu") == torch.bfloat16
    for precision, warned in (("bf16", not enabled), ("auto", False), ("fp32", False)):
        config = compose_plain([*TINY, f"trainer.precision={precision}"])
        notes = first_summary(build(config, data)).notes
        assert any("trainer.precision=fp32" in note for note in notes) == warned
