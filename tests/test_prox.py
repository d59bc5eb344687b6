"""Each prox against its definition: no move along a coordinate or a ray lowers the objective."""

from __future__ import annotations

import pytest
import torch

from seg_l1 import penalties, prox
from tests.support.penalties import SHRINKING, WITH_PROX

MOVES = torch.logspace(-7, 0.5, 40, dtype=torch.float64)


def lowest_neighbour(penalty, w, step, u) -> float:
    """How far below u's objective the best neighbour lies, relative to the objective; ≤ 0 is right.

    Neighbours differ in one coordinate, or lie on the ray (1 + h)·u, of all groups or of one. A
    step per coordinate belongs to the distance: argmin Σ (x − w)²/(2·step) + R(x).
    """
    scalar = not isinstance(step, torch.Tensor)
    weights = torch.ones_like(w) if scalar else 1 / step.clamp_min(1e-12)

    def objective(x):
        squares = 0.5 * (weights * (x - w).square()).flatten(-w.ndim).sum(-1)
        values = torch.vmap(penalty.value)(x)
        return squares + (step if scalar else 1.0) * values

    moves = torch.cat([MOVES, -MOVES])
    flat = u.flatten()
    tried = [flat + h * unit for h in moves for unit in torch.eye(len(flat), dtype=w.dtype)]
    tried += [(1 + h) * flat for h in moves]
    if w.ndim > 1:
        rows = torch.eye(len(w), dtype=w.dtype).repeat_interleave(w[0].numel(), 1)
        tried += [flat + h * flat * row for h in moves for row in rows]
    tried = torch.stack(tried).reshape(-1, *w.shape)
    here = objective(u[None])
    return float((here - objective(tried)).max() / here.clamp_min(1e-300))


def drawn(shape):
    """Weights over four orders of magnitude, from one group (axis 0) to the next."""
    sizes = torch.logspace(-3, 1, shape[0], dtype=torch.float64)
    return torch.randn(shape, dtype=torch.float64) * sizes.reshape(-1, *[1] * (len(shape) - 1))


SHAPES = [(12,), (6, 2), (4, 3, 1, 2)]
STEPS = [0.0, 1e-3, 0.3, 2.0]


@pytest.mark.parametrize("penalty", WITH_PROX, ids=str)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("shape", SHAPES)
def test_prox_is_the_argmin(penalty, step, shape):
    w = drawn(shape)
    u = penalty.prox(w, step)
    assert lowest_neighbour(penalty, w, step, u) <= 1e-13


@pytest.mark.parametrize("penalty", WITH_PROX, ids=str)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("shape", SHAPES)
def test_prox_in_a_diagonal_metric_is_the_argmin(penalty, step, shape):
    w = drawn(shape)
    steps = step * torch.logspace(-1, 1, w.numel(), dtype=torch.float64).flip(0).reshape(shape)
    u = penalty.prox(w, steps)
    assert lowest_neighbour(penalty, w, steps, u) <= 1e-13


@pytest.mark.parametrize("penalty", WITH_PROX, ids=str)
def test_zero_is_the_lower_of_two_minima_or_none(penalty):
    """Moves along a ray end at 0 only in the limit: 0 itself is tried, per weight and per group."""
    w = drawn((12, 3)) * 3
    for step in STEPS:
        u = penalty.prox(w, step)
        here = 0.5 * (u - w).square().sum() + step * penalty.value(u)
        for index in range(len(w)):
            for place in [(index,), *((index, column) for column in range(3))]:
                moved = u.clone()
                moved[place] = 0
                there = 0.5 * (moved - w).square().sum() + step * penalty.value(moved)
                assert here <= there + 1e-13
                moved[place] = w[place]
                there = 0.5 * (moved - w).square().sum() + step * penalty.value(moved)
                assert here <= there + 1e-13


@pytest.mark.parametrize("penalty", SHRINKING, ids=str)
def test_the_oracle_sees_an_error_of_one_percent(penalty):
    w = drawn((12, 2)) * 0.5
    step = min(0.3, 0.4 * getattr(penalty, "knot", 1.0))
    assert lowest_neighbour(penalty, w, step, penalty.prox(w, step * 1.01)) > 1e-9
    steps = torch.full_like(w, step)
    steps[:, 0] = step / 3
    assert lowest_neighbour(penalty, w, steps, penalty.prox(w, steps * 1.01)) > 1e-9


FAULTS = {
    "a region of MCP left out": (
        penalties.MCP(1.0), lambda w, s: prox.soft_threshold(w, s) / (1 - s)),
    "a wrong slope of MCP": (
        penalties.MCP(1.0),
        lambda w, s: torch.where(w.abs() > 1, w, prox.soft_threshold(w, s) / (1 - 0.9 * s))),
    "a wrong knot of MCP": (penalties.MCP(1.0), lambda w, s: prox.mcp(w, s, 1.1)),
    "a factor of two": (penalties.L1(), lambda w, s: prox.soft_threshold(w, 2 * s)),
    "one norm for all groups": (
        penalties.GroupL1(),
        lambda w, s: prox.group_soft_threshold(w.reshape(1, -1), s).reshape(w.shape)),
    "the threshold of the log's tangent at w": (
        penalties.ReweightedL1(1.0), lambda w, s: prox.soft_threshold(w, s / (w.abs() + 1))),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(fault):
    penalty, faulty = FAULTS[fault]
    w = drawn((12, 2)) * 0.5
    assert lowest_neighbour(penalty, w, 0.3, faulty(w, 0.3)) > 1e-9


ELEMENTWISE = [penalty for penalty in WITH_PROX if not getattr(penalty, "grouped", False)]


@pytest.mark.parametrize("penalty", [p for p in WITH_PROX if p not in ELEMENTWISE], ids=str)
def test_equal_steps_in_a_tensor_are_the_closed_form(penalty):
    w = drawn((20, 5, 2))
    for step in (1e-4, 0.05, 1.0):
        one = penalty.prox(w, torch.full_like(w, step))
        other = penalty.prox(w, step)
        assert torch.equal(one == 0, other == 0)
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("penalty", ELEMENTWISE, ids=str)
def test_a_step_per_coordinate_equals_the_scalar_steps(penalty):
    w = torch.randn(3, 4, 2, 2, dtype=torch.float64)
    steps = torch.rand(3, 4, 2, 2, dtype=torch.float64)
    single = [
        penalty.prox(a[None], float(s)) for a, s in zip(w.flatten(), steps.flatten(), strict=True)
    ]
    torch.testing.assert_close(
        penalty.prox(w, steps).flatten(), torch.cat(single), rtol=1e-14, atol=0
    )


LAYOUTS = {
    "scalar": torch.tensor(1.5),
    "vector": torch.randn(7),
    "4-d": torch.randn(4, 3, 3, 3),
    "transposed": torch.randn(5, 4).t(),
    "channels last": torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last),
    "moved axis": torch.randn(4, 6, 2, 2).movedim(1, 0),
    "empty": torch.randn(0, 3),
    "zeros": torch.zeros(3, 3),
}
FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


@pytest.mark.parametrize("penalty", WITH_PROX, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("per_coordinate", [False, True])
def test_in_place_on_any_layout(penalty, layout, per_coordinate):
    w = LAYOUTS[layout].clone(memory_format=torch.preserve_format)
    step = torch.full_like(w, 0.2) if per_coordinate else 0.2
    expected = penalty.prox(w.contiguous(), step)
    strides = w.stride()
    result = penalty.prox(w, step, out=w)
    assert result.data_ptr() == w.data_ptr()
    assert w.stride() == strides
    rounding = 1e-6 if getattr(penalty, "grouped", False) else 0  # norms depend on the order
    torch.testing.assert_close(w, expected, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("penalty", WITH_PROX, ids=str)
@pytest.mark.parametrize("formats", [(a, b) for a in FORMATS for b in FORMATS], ids=str)
def test_weights_and_steps_may_lie_in_memory_differently(penalty, formats):
    w, step = torch.randn(4, 3, 5, 5), torch.rand(4, 3, 5, 5)
    expected = penalty.prox(w, step)
    w, step = (
        t.contiguous(memory_format=FORMATS[f]) for t, f in zip((w, step), formats, strict=True)
    )
    torch.testing.assert_close(penalty.prox(w, step), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("penalty", WITH_PROX, ids=str)
@pytest.mark.parametrize("step", [0.0, 0.2, torch.tensor([[0.0, 0.2], [0.2, 0.0], [0.0, 0.0]])])
def test_zero_blocks_and_zero_steps_give_no_nan(penalty, step):
    w = torch.tensor([[0.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    u = penalty.prox(w, step)
    assert u.isfinite().all()
    assert (u[[0, 2]] == 0).all()


def test_zeros_are_exact_and_nan_stays():
    w = torch.tensor([-0.1, 0.1, -0.0, float("nan")])
    for step in (0.2, torch.full((4,), 0.2)):
        u = prox.soft_threshold(w, step)
        assert (u[:3] == 0).all()
        assert u[3].isnan()
