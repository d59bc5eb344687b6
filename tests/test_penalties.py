"""Penalties: values, optimality, and that class, YAML and row of the table belong together."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest
import torch
from omegaconf import OmegaConf

from seg_l1 import penalties
from seg_l1.config.folders import CONF
from tests.support.penalties import ALL, FIRST, TABLE


def test_every_class_and_every_option_has_a_row():
    options = {p.stem for p in (CONF / "regularizer").glob("*.yaml") if p.stem[0] != "_"}
    assert options == {*TABLE, "cost_group_l1"}
    config = OmegaConf.load(CONF / "regularizer" / "cost_group_l1.yaml")
    assert config.penalty._target_ == "seg_l1.penalties.GroupL1"  # which has a row
    classes = {
        kind
        for _, kind in inspect.getmembers(penalties, inspect.isclass)
        if kind.__module__ == penalties.__name__
        and hasattr(kind, "value")
        and kind is not penalties.Penalty
    }
    assert classes == {type(penalty) for penalty in ALL}
    for option, penalty in FIRST.items():
        config = OmegaConf.load(CONF / "regularizer" / f"{option}.yaml")
        target = f"{type(penalty).__module__}.{type(penalty).__name__}"
        assert (config.name, config.penalty._target_) == (option, target)
        named = {key: config[key] for key in config.penalty if key != "_target_"}
        assert named == {entry.name: entry.default for entry in fields(penalty)}


@pytest.mark.parametrize("option", TABLE)
def test_value_has_the_constants_of_the_readme(option):
    expected, (penalty, *_) = TABLE[option]
    assert float(penalty.value(torch.tensor([-3.0, 0.0, 4.0]))) == pytest.approx(expected, 1e-6)


def test_a_group_counts_the_root_of_its_size():
    w = torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert float(penalties.GroupL1().value(w)) == 2 * 5
    assert float(penalties.SparseGroupL1(0.25).value(w)) == 0.25 * 7 + 0.75 * 10


@pytest.mark.parametrize("option", TABLE)
def test_the_derivative_of_the_value_is_finite_at_zero(option):
    w = torch.zeros(3, 4, requires_grad=True)
    value = FIRST[option].value(w)
    assert value.requires_grad != isinstance(FIRST[option], penalties.Zero)
    if value.requires_grad:
        value.backward()
        assert (w.grad == 0).all()


@pytest.mark.parametrize("option", TABLE)
@pytest.mark.parametrize("shape", [(6,), (4, 5), (3, 2, 2, 2)])
def test_distance_is_zero_where_the_prox_stays(option, shape):
    """w = prox(w − g, 1) says the same as −g ∈ ∂R(w); elsewhere the distance is positive."""
    penalty = FIRST[option]
    if not hasattr(penalty, "prox"):
        pytest.skip("has no prox")
    strength = 0.3
    z = torch.randn(shape, dtype=torch.float64) * torch.logspace(
        -1.5, 1, shape[0], dtype=torch.float64
    ).reshape(-1, *[1] * (len(shape) - 1))
    w = penalty.prox(z, strength)
    assert float(penalty.distance(w, w - z, strength).max()) <= 1e-12
    off = penalty.distance(w, w - z + 1e-3, strength)
    assert float(off.max()) > 1e-4


def test_distance_against_the_derivative_of_the_value_on_the_support():
    """An oracle that shares no line with `distance`: autograd of the value."""
    for penalty in ALL:
        w = torch.randn(4, 5, dtype=torch.float64)
        g = torch.randn(4, 5, dtype=torch.float64)
        leaf = w.clone().requires_grad_()
        value = 0.3 * penalty.value(leaf)
        pull = torch.autograd.grad(value, leaf)[0] if value.requires_grad else 0 * w
        expected = (g + pull).abs()
        found = penalty.distance(w, g, 0.3)
        if found.shape != w.shape:
            expected = expected.norm(dim=1)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("option", TABLE)
def test_value_of_half_precision_does_not_overflow(option):
    penalty = FIRST[option]
    w = torch.full((2_000_000,), 0.5, dtype=torch.float16)
    value = penalty.value(w)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, penalty.value(w.double()).float(), rtol=1e-3, atol=0)


def test_l1_has_no_pull_at_zero():
    w = torch.tensor([-2.0, 0.0, 2.0], requires_grad=True)
    penalties.L1().value(w).backward()
    assert w.grad.tolist() == [-1.0, 0.0, 1.0]


NAN = float("nan")
WRONG = {
    "l1_ratio": [(kind, x) for kind in (penalties.ElasticNet, penalties.SparseGroupL1)
                 for x in (-0.1, 1.1, NAN)],
    "knot": [(penalties.MCP, x) for x in (0.0, -1.0, NAN)],
    "epsilon": [(penalties.ReweightedL1, x) for x in (0.0, -1.0, NAN)],
    "depth": [(penalties.Bridge, x) for x in (1, 0, NAN)],
    "mode": [(penalties.L2, "adam")],
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_number_that_makes_no_penalty_is_refused(name):
    for kind, value in WRONG[name]:
        with pytest.raises(ValueError, match=name):
            kind(value)
