"""Budgets of a latency, with a clock that counts multiply-adds."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from seg_l1.compaction import compact
from seg_l1.deployment import latency_model
from seg_l1.deployment.latency_model import LatencyModel
from seg_l1.deployment.timing import NetworkTimer
from seg_l1.metrics.sparsity import multiply_adds
from seg_l1.models.unet import UNet
from seg_l1.penalties import GroupL1
from seg_l1.scope import scope

pytestmark = pytest.mark.slow

X = torch.zeros(1, 3, 32, 32)


def latency(adds: float) -> float:
    """Milliseconds of a network with a constant cost, which cannot be saved."""
    return 2 + 8 * (adds / 4e6) ** 0.7


class Clock:
    """Stands in for `NetworkTimer`: the machine becomes three times slower halfway."""

    calls = 0

    def __init__(self, networks, example, runtime="torch"):
        self.networks, self.example = dict(networks), example

    def beside(self, key, network):
        return Clock({**self.networks, key: network}, self.example)

    def ms(self, *, seconds):
        Clock.calls += 1
        slow = 3 if Clock.calls > 6 else 1
        sizes = {key: multiply_adds(net, self.example) for key, net in self.networks.items()}
        return {key: slow * latency(adds) for key, adds in sizes.items()}


@pytest.fixture
def modelled(monkeypatch):
    """A network, and the model of its latency."""
    monkeypatch.setattr(latency_model, "NetworkTimer", Clock)
    monkeypatch.setattr(Clock, "calls", 0)
    torch.manual_seed(0)
    network = UNet(3, 4, width=32, depth=1).eval()
    tensors = scope(network)
    made = LatencyModel(network, X, runtime="torch", penalty=GroupL1(), tensors=tensors)
    return network, tensors, made


def measured(network) -> float:
    return latency(compact(network, X).multiply_adds[1])


def test_latency_is_measured_at_some_sizes_and_interpolated_between(modelled):
    network, tensors, model = modelled
    assert model.dense == model.cost() == measured(network)
    assert len(model.points) == 5 and model.points[max(model.points)] == model.dense
    assert model.points == {adds: pytest.approx(latency(adds)) for adds in model.points}
    assert model.least(GroupL1(), tensors) == min(model.points.values())
    sizes = sorted(model.points)
    for small, large in pairwise(sizes):
        middle = model._latency((small + large) // 2)
        assert model.points[small] < middle < model.points[large]


@pytest.mark.parametrize("share", [0.9, 0.5])
def test_a_latency_is_met_and_never_exceeded(share, modelled):
    network, tensors, model = modelled
    before = {name: value.clone() for name, value in network.state_dict().items()}
    budget = share * model.dense
    model.fit(budget, GroupL1(), tensors)
    assert 0.97 * budget <= measured(network) <= budget
    assert model.cost() == pytest.approx(
        measured(network), rel=1e-12
    )  # it is the network that was timed
    for name, value in network.state_dict().items():  # what stays is unchanged
        assert ((value == before[name]) | (value == 0)).all()


def test_a_latency_that_no_network_has_is_an_error(modelled):
    network, tensors, model = modelled
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match="no network that was timed takes 1"):
        model.fit(1.0, GroupL1(), tensors)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_what_was_measured_is_restored(modelled, monkeypatch):
    network, tensors, model = modelled
    model.fit(0.5 * model.dense, GroupL1(), tensors)
    other = LatencyModel(network, X, runtime="torch", penalty=GroupL1(), tensors=tensors)
    assert other.dense != model.dense  # on a slower machine
    other.load_state_dict(model.state_dict())
    assert (other.dense, other.points, other.cost()) == (model.dense, model.points, model.cost())


def test_a_timer_times_all_networks_in_turn():
    large, small = UNet(3, 4, width=32, depth=3).eval(), UNet(3, 4, width=2, depth=1).eval()
    image = torch.zeros(1, 3, 64, 64)
    timer = NetworkTimer({"large": large}, image)
    for times in (timer.beside("small", small).ms(seconds=0), timer.ms(batch=2, seconds=0)):
        assert all(time > 0 and math.isfinite(time) for time in times.values())
    times = timer.beside("small", small).ms(seconds=0)
    assert times.keys() == {"large", "small"} and times["small"] < times["large"]
