from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from seg_l1.config.compose import compose_plain
from seg_l1.metrics import shrinkage
from seg_l1.models.unet import UNet
from seg_l1.scope import scope
from tests.support.runs import TINY, runs, table

CASES = {
    "": (["GroupL1 with alpha=5e-05"], []),
    "regularizer=none": ([], []),
    "regularizer.alpha=0": ([], []),
    "regularizer=none optimizer=adamw optimizer.weight_decay=0.01": (
        ["weight_decay=0.01"], ["no penalty, but the optimizer decays"]),
    "optimizer=adamw optimizer.weight_decay=0.01": (
        ["L1", "weight_decay=0.01"], ["two penalties at once.*decoupled"]),
    "optimizer=sgd optimizer.weight_decay=0.01": (
        ["L1", "weight_decay=0.01"], ["two penalties at once.*L2"]),
    **{
        f"optimizer={name} ++optimizer.decoupled_weight_decay=true optimizer.weight_decay=0.01": (
            ["L1", "weight_decay=0.01"], ["two penalties at once.*decoupled.*no alpha"])
        for name in ("adam", "nadam", "radam")
    },
    "optimizer=nadam optimizer.weight_decay=0.01": (
        ["L1", "weight_decay=0.01"], ["two penalties at once.*L2"]),
    "optimizer=rmsprop optimizer._target_=mine.Steps optimizer.weight_decay=0.01": (
        ["L1", "weight_decay=0.01"], ["two penalties at once.*in the way of Steps"]),
    "regularizer=dropout": (["dropout of 10 %"], []),
    "regularizer=drop_connect": (["drop_connect of 10 %"], []),
    "regularizer.dropout=0.2": (["L1", "dropout of 20 %"], ["random dropping at once"]),
    "regularizer=l2 regularizer.mode=decoupled": (["L2.*decoupled"], ["no explicit objective"]),
    "trainer.early_stopping=3": (["L1", "early stopping after 3"], []),
    "trainer.clip_norm=1": (["L1", "clip_norm=1"], []),
    "trainer.clip_value=0.1": (["L1", "clip_value=0.1"], ["alpha counts for more"]),
}  # fmt: skip


def matches(found, expected):
    import re

    return len(found) == len(expected) and all(
        re.search(words, text) for words, text in zip(expected, found, strict=True)
    )


@pytest.mark.parametrize("typed", CASES)
def test_every_source_of_shrinkage_is_listed_and_mixes_are_pointed_out(typed):
    config = compose_plain(typed.split())
    sources, notes = CASES[typed]
    assert matches(shrinkage.sources(config), sources)
    assert matches(shrinkage.notes(config, [], set()), notes)


def test_layers_that_feed_a_norm_layer_are_found():
    net = UNet(3, 4, width=4, depth=1)
    fed = shrinkage.scale_invariant_layers(net, torch.randn(1, 3, 8, 8))
    assert fed == {f"{block}.{i}" for block in ("down.0", "down.1", "merge.0") for i in (0, 3)}
    assert (
        shrinkage.scale_invariant_layers(UNet(3, 4, width=4, norm="none"), torch.randn(1, 3, 8, 8))
        == set()
    )


def test_those_layers_have_no_scale_and_the_others_have_one():
    """By definition: doubled weights change nothing of the output in training mode."""
    net = UNet(3, 4, width=4, depth=1)
    images = torch.randn(4, 3, 8, 8)
    fed = shrinkage.scale_invariant_layers(net, images[:1])
    before = net(images)
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            with torch.no_grad():
                module.weight.mul_(2)
                changed = float((net(images) - before).abs().max())
                module.weight.div_(2)
            assert (changed < 1e-2) == (name in fed), name


def test_scales_of_norm_layers_get_a_note():
    config = compose_plain(["regularizer=norm_scale_l1"])
    net = UNet(3, 4, width=4, depth=1)
    from seg_l1.scope import Rule

    rules = [Rule(r["name"], tuple(r.get("types", ())), r["penalize"])
             for r in config["regularizer"]["scope"]]  # fmt: skip
    tensors = scope(net, rules)
    assert {e.name for e in tensors if e.penalized} == {
        f"{block}.{i}.weight" for block in ("down.0", "down.1", "merge.0") for i in (1, 4)
    }
    (note,) = shrinkage.notes(
        config, tensors, shrinkage.scale_invariant_layers(net, torch.randn(1, 3, 8, 8))
    )
    assert "6 of 6 penalized tensors are scales of norm layers" in note


def test_a_run_records_ledger_and_certificate(command, tmp_path):
    code, out, _ = command(
        *TINY, "trainer.epochs=4", "trainer.kkt_every=2", "trainer.clip_norm=0.01",
        "regularizer=l1", "regularizer.alpha=1e-3",
    )  # fmt: skip
    assert code == 0
    (path,) = runs(tmp_path)
    rows = table(path / "metrics.csv")
    assert [row["kkt/zeros"] != "nan" for row in rows] == [False, True, False, True]
    summary = json.loads((path / "summary.json").read_text())
    assert summary["shrinkage"] == [
        "L1 with alpha=0.001", "clipping of gradients at clip_norm=0.01 in 100 % of the steps"
    ]  # fmt: skip
    assert any("followed by a normalization layer" in note for note in summary["notes"])
    assert summary["certificate"]["epoch"] == 4
    for name in ("kkt/zeros", "kkt/support", "kkt/mapping"):
        assert summary["certificate"][name] == pytest.approx(float(rows[-1][name]))
    assert 0 < summary["certificate"]["kkt/zeros"] <= 1
    assert "optimality condition, epoch 4" in out
    assert "followed by a normalization layer" in out
    assert "regularization: L1 with alpha=0.001, and clipping" in out
