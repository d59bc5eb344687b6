"""Every option under conf/ is composed, built, and takes a step."""

from __future__ import annotations

from functools import cache

import pytest

from seg_l1.cli.train import help_text
from seg_l1.config import limits
from seg_l1.config.compose import compose_plain
from seg_l1.config.folders import CONF
from seg_l1.config.hyperparameters import hyperparameters, options
from seg_l1.config.identity import flatten
from seg_l1.training.build import build
from seg_l1.training.data import load_data
from tests.support.runs import TINY, take_step
from tests.support.standard_files import WRITERS

OPTIONS = sorted(
    f"{path.parent.name}={path.stem}" for path in CONF.glob("*/*.yaml") if path.stem[0] != "_"
)
LARGE = ("model=deeplabv3_resnet50", "model=fcn_resnet50", "model=smp")
WITHOUT_DIGITS = [o for o in TINY if "dataset.num" not in o]


def compose_option(option, street):
    if option in ("dataset=folder", "dataset=camvid", "experiment=camvid", "experiment=own"):
        return compose_plain([*WITHOUT_DIGITS, option, f"dataset.root={street}"])
    group, name = option.split("=")
    if group == "dataset" and name in WRITERS:
        WRITERS[name](street.parent / name)
        small = ["dataset.image_size=[32,40]", f"dataset.root={street.parent / name}"]
        return compose_plain([*WITHOUT_DIGITS, *small, option])
    tiny = [o for o in TINY if group != "model" or _has_key(option, o)]
    return compose_plain([*tiny, f"{group}='{name}'"])


def _has_key(option, override):
    key = override.split("=")[0]
    return not key.startswith("model.") or key in _keys(option)


@cache
def _keys(option):
    return {key for key, _ in flatten(compose_plain([option]))}


@pytest.mark.slow
@pytest.mark.parametrize(
    "option",
    [pytest.param(o, marks=pytest.mark.slow) if o in LARGE else o for o in OPTIONS],
)
def test_option_is_built_and_takes_a_step(option, street):
    config = compose_option(option, street)
    limits.check(config)
    loop = build(config, load_data(config)).loop
    before = [p.detach().clone() for p in loop.model.parameters()]
    take_step(loop)
    after = list(loop.model.parameters())
    assert any((a != b).any() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("option", OPTIONS)
def test_option_has_a_line_in_the_help(option):
    group, name = option.split("=")
    section = help_text().split(f"\n{group}=\n")[1].split("\n\n")[0]
    line = next(line for line in section.splitlines() if line.lstrip(" *").startswith(f"{name} "))
    assert len(line.lstrip(" *")[len(name) :].strip()) >= 4


@pytest.mark.parametrize("option", OPTIONS)
def test_every_value_has_a_limit(option, street):
    config = compose_option(option, street)
    regularizer = config["regularizer"]
    declared = {key for penalty in options(CONF) for key in penalty.defaults}
    assert hyperparameters(regularizer) == declared  # the classes of the penalties limit these
    unlimited = {"regularizer.scope", *(f"regularizer.{key}" for key in declared)}
    unlimited |= {f"regularizer.penalty.{key}" for key in regularizer["penalty"]}
    for key, _ in flatten(config):
        assert key in limits.LIMITS or key in unlimited or key.endswith("_target_"), key


def test_every_regularizer_has_the_same_keys():
    keys = {
        option: set(compose_plain([option])["regularizer"]) - {"penalty"}
        for option in OPTIONS
        if option.startswith("regularizer=")
    }
    assert len(set(map(frozenset, keys.values()))) == 1


def test_no_optimizer_decays_weights_unless_asked():
    optimizers = [option for option in OPTIONS if option.startswith("optimizer=")]
    decays = [compose_plain([option])["optimizer"]["weight_decay"] for option in optimizers]
    assert decays and not any(decays)
