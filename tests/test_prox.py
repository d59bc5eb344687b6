"""Each prox against its definition: no move along a coordinate or a ray lowers the objective."""

from __future__ import annotations

import pytest
import torch

from seg_l1 import penalties, prox

PENALTIES = [
    penalties.Zero(),
    penalties.L1(),
    penalties.L2(),
    penalties.ElasticNet(0.5),
    penalties.ElasticNet(0.9),
    penalties.ElasticNet(0.0),
    penalties.ElasticNet(1.0),
]
MOVES = torch.logspace(-7, 0.5, 40, dtype=torch.float64)


def lowest_neighbour(penalty, w, step, u) -> float:
    """How far below u's objective the best neighbour lies, relative to the objective; ≤ 0 is right.

    Neighbours differ in one coordinate, or lie on the ray (1 + h)·u.
    """

    def objective(x):
        squares = 0.5 * (x - w).square().flatten(-w.ndim).sum(-1)
        values = torch.stack([penalty.value(one) for one in x])
        return squares + step * values

    moves = torch.cat([MOVES, -MOVES])
    flat = u.flatten()
    tried = [flat + h * unit for h in moves for unit in torch.eye(len(flat), dtype=w.dtype)]
    tried += [(1 + h) * flat for h in moves]
    tried = torch.stack(tried).reshape(-1, *w.shape)
    here = objective(u[None])
    return float((here - objective(tried)).max() / here.clamp_min(1e-300))


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
@pytest.mark.parametrize("step", [0.0, 1e-3, 0.3, 2.0])
def test_prox_is_the_argmin(penalty, step):
    w = torch.randn(12, dtype=torch.float64) * torch.logspace(-3, 1, 12, dtype=torch.float64)
    u = penalty.prox(w, step)
    assert lowest_neighbour(penalty, w, step, u) <= 1e-13


@pytest.mark.parametrize("penalty", PENALTIES[1:], ids=str)
def test_the_oracle_sees_an_error_of_one_percent(penalty):
    w = torch.randn(12, dtype=torch.float64) * torch.logspace(-3, 1, 12, dtype=torch.float64)
    assert lowest_neighbour(penalty, w, 0.3, penalty.prox(w, 0.3 * 1.01)) > 1e-9


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
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


@pytest.mark.parametrize("penalty", PENALTIES, ids=str)
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
    torch.testing.assert_close(w, expected, rtol=0, atol=0)


def test_zeros_are_exact_and_nan_stays():
    w = torch.tensor([-0.1, 0.1, -0.0, float("nan")])
    for step in (0.2, torch.full((4,), 0.2)):
        u = prox.soft_threshold(w, step)
        assert (u[:3] == 0).all()
        assert u[3].isnan()
