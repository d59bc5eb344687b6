from __future__ import annotations

import pytest
import torch

from seg_l1.config.compose import compose_plain
from seg_l1.schedules import Constant, Decay, LearningRate, Ramp, ramp_epochs
from seg_l1.training.build import penalty_schedule


@pytest.mark.parametrize(
    "schedule",
    [Constant(), Constant(5), Ramp(0, 20), Ramp(5, 20, "cosine"), Ramp(3, 0), Decay(2, 30, 10.0)],
    ids=str,
)
def test_lambda_is_never_negative_and_ends_at_one(schedule):
    values = [schedule(step) for step in range(100)]
    assert min(values) >= 0
    assert values[50:] == [1.0] * 50
    start = getattr(schedule, "start", 0)
    assert values[:start] == [0.0] * start


def test_ramps_pass_the_middle_at_one_half():
    assert Ramp(10, 20, "linear")(20) == pytest.approx(0.5)
    assert Ramp(10, 20, "cosine")(20) == pytest.approx(0.5)
    assert Ramp(10, 20, "cosine")(15) < 0.25


def test_decay_is_geometric():
    decay = Decay(0, 10, 100.0)
    assert [decay(0), decay(5), decay(10)] == pytest.approx([100.0, 10.0, 1.0])


def torch_rates(make, total):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            LearningRate(50, final=0.1),
            lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 50, eta_min=0.1),
        ),
        (
            LearningRate(50, power=0.9),
            lambda o: torch.optim.lr_scheduler.PolynomialLR(o, 50, power=0.9),
        ),
        (LearningRate(50, power=0), lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0)),
    ],
    ids=["cosine", "polynomial", "constant"],
)
def test_the_rate_is_that_of_torch(ours, theirs):
    assert [ours(step) for step in range(50)] == pytest.approx(torch_rates(theirs, 50))


def test_one_cycle_is_that_of_torch_up_to_its_rounding_of_steps():
    ours = LearningRate(1000, warmup=0.3, initial=0.04)
    theirs = torch_rates(
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, 1.0, total_steps=1001, pct_start=0.3, cycle_momentum=False
        ),
        1000,
    )
    assert [ours(step) for step in range(1000)] == pytest.approx(theirs, abs=5e-3)


@pytest.mark.parametrize("shape", ["linear", "cosine", "decay"])
def test_a_schedule_alone_has_a_ramp_over_half_of_the_epochs(shape):
    config = compose_plain(["regularizer=l1", f"regularizer.schedule={shape}", "trainer.epochs=8"])
    schedule = penalty_schedule(config["regularizer"], 10, 8)
    values = [schedule(step) for step in range(80)]
    assert len(set(values[:41])) == 41
    assert set(values[40:]) == {1.0}
    assert (values[0] > 1) == (shape == "decay")
    assert ramp_epochs(shape, 2, None, epochs=8) == 3
    assert ramp_epochs(shape, 2, 0, epochs=8) == 0
