"""The table of penalties: class, YAML and row here belong together."""

from __future__ import annotations

import inspect

import pytest
import torch
from omegaconf import OmegaConf

from seg_l1 import penalties
from seg_l1.overrides import CONF

# option in conf/regularizer, an object, and R by hand for w = (-3, 0, 4)
TABLE = {
    "none": (penalties.Zero(), 0.0),
    "l1": (penalties.L1(), 7.0),
    "l2": (penalties.L2(), 12.5),
    "elastic_net": (penalties.ElasticNet(0.25), 0.25 * 7.0 + 0.75 * 12.5),
}


def test_every_class_and_every_option_has_a_row():
    options = {p.stem for p in (CONF / "regularizer").glob("*.yaml") if p.stem[0] != "_"}
    assert options == set(TABLE)
    classes = {
        kind
        for _, kind in inspect.getmembers(penalties, inspect.isclass)
        if kind.__module__ == penalties.__name__ and kind is not penalties.Penalty
    }
    assert classes == {type(penalty) for penalty, _ in TABLE.values()}
    for option, (penalty, _) in TABLE.items():
        target = OmegaConf.load(CONF / "regularizer" / f"{option}.yaml").penalty._target_
        assert target == f"{type(penalty).__module__}.{type(penalty).__name__}"


@pytest.mark.parametrize("option", TABLE)
def test_value_has_the_constants_of_the_readme(option):
    penalty, expected = TABLE[option]
    assert float(penalty.value(torch.tensor([-3.0, 0.0, 4.0]))) == expected


@pytest.mark.parametrize("option", TABLE)
def test_value_of_half_precision_does_not_overflow(option):
    penalty, _ = TABLE[option]
    w = torch.full((2_000_000,), 0.5, dtype=torch.float16)
    value = penalty.value(w)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, penalty.value(w.double()).float(), rtol=1e-4, atol=0)


def test_l1_has_no_pull_at_zero():
    w = torch.tensor([-2.0, 0.0, 2.0], requires_grad=True)
    penalties.L1().value(w).backward()
    assert w.grad.tolist() == [-1.0, 0.0, 1.0]


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_elastic_net_refuses_a_ratio_outside_of_0_to_1(ratio):
    with pytest.raises(ValueError, match="l1_ratio"):
        penalties.ElasticNet(ratio)
