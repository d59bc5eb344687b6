"""Any combination of valid words is carried out, or refused in a line before the first step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seg_l1.config import limits
from seg_l1.config.compose import compose_plain
from seg_l1.config.folders import CONF, config_groups
from seg_l1.errors import UserError
from seg_l1.training.build import build
from seg_l1.training.data import load_data
from tests.support.runs import take_step


def options(group, without=()):
    names = {path.stem for path in (CONF / group).glob("*.yaml")}
    return st.sampled_from(sorted(n for n in names - {*without} if not n.startswith("_")))


NETWORKS = {
    "unet": ["width", "depth", "growth", "norm"],
    "flat_unet": ["width", "depth", "norm"],
    "segnet": ["width", "depth", "norm"],
    "seed_cnn": ["width", "hidden"],
}


def number(low, high):
    return st.floats(low, high, allow_subnormal=False)  # a run makes them 0


KEYS = {
    "model.width": st.integers(1, 6),
    "model.depth": st.integers(1, 4),
    "model.growth": number(1, 2),
    "model.norm": st.sampled_from(["batch", "group", "none"]),
    "model.hidden": st.integers(1, 20),
    "dataset.batch_size": st.integers(1, 5),
    "dataset.class_weights": st.sampled_from(["null", "inverse", "median"]),
    "optimizer.lr": number(1e-6, 1e-2),
    "optimizer.weight_decay": number(0, 0.1),
    "scheduler.warmup": number(0, 1),
    "scheduler.final": number(0, 1),
    "regularizer.alpha": number(0, 1e-2),
    "regularizer.lam": number(0, 10),
    "regularizer.l1_ratio": number(0, 1),
    "regularizer.knot": number(1e-3, 10),
    "regularizer.epsilon": number(1e-3, 10),
    "regularizer.depth": st.integers(2, 5),
    "regularizer.dropout": number(0, 0.9),
    "regularizer.drop_connect": number(0, 0.9),
    "regularizer.cost": st.sampled_from(["none", "multiply_adds", "parameters"]),
    "regularizer.cost_power": number(0, 2),
    "regularizer.solver": st.sampled_from(
        ["proximal", "subgradient", "factorized", "dual_averaging"]
    ),
    "regularizer.schedule": st.sampled_from(["constant", "linear", "cosine", "decay"]),
    "regularizer.schedule_epochs": st.integers(0, 1),
    "trainer.accumulate": st.integers(1, 3),
    "trainer.clip_norm": st.one_of(st.just("null"), number(1e-3, 10)),
    "trainer.clip_value": st.one_of(st.just("null"), number(1e-3, 10)),
    "trainer.precision": st.sampled_from(["fp32", "bf16"]),
    "trainer.channels_last": st.booleans(),
    "trainer.tile": st.sampled_from(["null", "[64,64]"]),
    "limit.train": st.one_of(st.just("null"), st.integers(1, 8)),
}


@st.composite
def typed_words(draw):
    """Overrides of which each alone is valid."""
    network = draw(st.sampled_from(sorted(NETWORKS)))
    words = [f"model={network}"]
    for group in ("loss", "optimizer", "scheduler", "regularizer", "augmentation"):
        words.append(f"{group}={draw(options(group))}")
    chosen = draw(st.sets(st.sampled_from(sorted(KEYS)), max_size=10))
    own = {f"model.{name}" for name in NETWORKS[network]}
    kept = sorted(key for key in chosen if not key.startswith("model.") or key in own)
    return words + [f"{key}={str(draw(KEYS[key])).lower()}" for key in kept]


SCENES = [
    "dataset.num_train=8", "dataset.num_val=4", "dataset.num_test=4", "dataset.image_size=[24,32]",
    "dataset.digit_size=[8,10]", "dataset.digits_per_scene=[1,3]", "trainer.epochs=2",
]  # fmt: skip


def takes_a_step(words):
    """Whether the configuration is carried out; what is refused must be refused in a line."""
    config = compose_plain([*SCENES, "model.width=4", *words])
    try:
        limits.check(config)
        loop = build(config, load_data(config)).loop
    except UserError as error:
        assert "\n" not in str(error)
        assert str(error).split(".")[0] in {*config_groups(), "loss (Dice)"}
        return False
    before = [p.detach().clone() for p in loop.model.parameters()]
    take_step(loop)
    after = list(loop.model.parameters())
    assert all(torch.isfinite(p).all() for p in after)
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    row, _ = loop.evaluate(loop.val)
    assert 0 <= row["pixel_accuracy"] <= 1
    return True


@pytest.mark.slow
def test_everything_that_composes_takes_a_step():
    """What cannot be carried out together is refused before the first step; most can be."""
    carried_out = []

    @settings(
        max_examples=60,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(words=typed_words())
    def attempt(words):
        carried_out.append(takes_a_step(words))

    attempt()
    assert len(carried_out) >= 60
    assert sum(carried_out) >= len(carried_out) / 2
