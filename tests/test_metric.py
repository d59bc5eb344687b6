"""The metric of each optimizer, by its definition: the way that torch's step goes, per gradient."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from seg_l1 import penalties
from seg_l1.scope import scope
from seg_l1.solvers.dual_averaging import DualAveraging
from seg_l1.solvers.factorized import Factorized
from seg_l1.solvers.metric import check_metric, prox_step
from seg_l1.solvers.proximal import Proximal
from tests.support.oracles import OPTIMIZERS, PROBLEMS, Linear

NAMES = list(OPTIMIZERS)
VARIANTS = {
    "adagrad with a start": (torch.optim.Adagrad, {"initial_accumulator_value": 0.5}),
    "nadam, decaying fast": (torch.optim.NAdam, {"momentum_decay": 0.5}),
    "radam that never adapts": (torch.optim.RAdam, {"betas": (0.9, 0.6)}),
    "radam without momentum": (torch.optim.RAdam, {"betas": (0.0, 0.99)}),
    "nadam without momentum": (torch.optim.NAdam, {"betas": (0.0, 0.99)}),
    "rmsprop centered with momentum": (
        torch.optim.RMSprop, {"centered": True, "momentum": 0.5, "eps": 0.1}),
    "fused adagrad": (torch.optim.Adagrad, {"fused": True}),
    "fused adamw": (torch.optim.AdamW, {"fused": True, "weight_decay": 0.0}),
}  # fmt: skip
EVERY = {name: (kind, {**options}) for name, (kind, options) in OPTIMIZERS.items()} | VARIANTS
LR = 0.01


def made(name, weights, **more):
    kind, options = EVERY[name]
    return kind(weights, **{**options, "lr": LR, **more})


def moves(optimizer, w, gradients):
    """Yields (how far the step went, per gradient; lr/D) after the step on each gradient."""
    (group,) = optimizer.param_groups
    for count, gradient in enumerate(gradients, start=1):
        before, w.grad = w.detach().clone(), gradient.clone()
        optimizer.step()
        unit = prox_step(optimizer, group, w, float(group["lr"]), count)
        yield (before - w.detach()) / gradient, torch.as_tensor(unit).expand_as(w)


def drawn(*shape):
    """Numbers of either sign, none of them near 0."""
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return numbers + 0.1 * numbers.sign()


def settled(optimizer, w, gradient):
    """Puts RMSprop's averages where a constant gradient takes them."""
    if isinstance(optimizer, torch.optim.RMSprop) and optimizer.param_groups[0]["momentum"]:
        optimizer.state[w] = {
            "step": torch.tensor(0.0),
            "square_avg": gradient.square(),
            "momentum_buffer": torch.zeros_like(w),
        }


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("name", [name for name in EVERY if "with momentum" not in name])
def test_a_constant_gradient_moves_a_weight_by_its_metric(name, foreach):
    """At every step, as long as the buffers fill too."""
    w, gradient = nn.Parameter(drawn(6)), drawn(6)
    more = {} if EVERY[name][1].get("fused") else {"foreach": foreach}
    optimizer = made(name, [w], **more)
    settled(optimizer, w, gradient)
    for moved, unit in moves(optimizer, w, [gradient] * 40):
        torch.testing.assert_close(moved, unit.double(), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
    "name",
    ["sgd", "rmsprop", "rmsprop centered", "adagrad", "adagrad decayed", "adagrad with a start",
     "radam without momentum", "nadam without momentum"],
)  # fmt: skip
def test_any_gradient_moves_a_weight_by_its_metric_where_nothing_runs_on(name):
    w = nn.Parameter(drawn(6))
    for moved, unit in moves(made(name, [w]), w, drawn(40, 6)):
        torch.testing.assert_close(moved, unit.double(), rtol=1e-5, atol=1e-12)


def test_a_rate_in_a_tensor_counts():
    w, gradient = nn.Parameter(drawn(6)), drawn(6)
    for moved, unit in moves(made("radam", [w], lr=torch.tensor(LR)), w, [gradient] * 9):
        torch.testing.assert_close(moved, unit.double(), rtol=1e-5, atol=1e-12)


WITH_A_MEMORY = ("rmsprop 0.9",)
"""A buffer of steps g/D keeps the first ones, whose D is small: it stands still in the limit."""


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITH_A_MEMORY])
@pytest.mark.parametrize("solver", [Proximal, DualAveraging])
def test_the_optimum_of_scikit_learn_is_a_fixed_point_of_every_step(name, solver, monkeypatch):
    monkeypatch.setattr("seg_l1.solvers.proximal.cache_steps", lambda *_: 1)
    lasso = PROBLEMS["lasso"]
    net = Linear(lasso.shape)
    net.weight.data.copy_(lasso.optimum)
    optimizer = made(name, net.parameters())
    solver(lasso.penalty, net.tensors, optimizer, strength=lasso.alpha)
    for _ in range(20):
        optimizer.zero_grad()
        lasso.data(net.weight).backward()
        optimizer.step()
        torch.testing.assert_close(net.weight.detach(), lasso.optimum, rtol=0, atol=1e-6)
        assert torch.equal(net.weight == 0, lasso.optimum == 0)


BATCH = torch.randn(16, 6), torch.randn(16, 3)


def trained(net, optimizer, steps):
    for count in range(steps):
        optimizer.param_groups[0]["lr"] = LR / (1 + count)
        optimizer.zero_grad()
        mse_loss(net(BATCH[0]), BATCH[1]).backward()
        optimizer.step()
    return net.weight.detach().clone()


@pytest.mark.parametrize("name", EVERY)
def test_without_a_penalty_the_optimizer_steps_to_the_same_bits(name):
    nets = [nn.Linear(6, 3), nn.Linear(6, 3)]
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers = [made(name, net.parameters()) for net in nets]
    Proximal(penalties.L1(), scope(nets[0]), optimizers[0], strength=0.0)
    one, other = (trained(*pair, 10) for pair in zip(nets, optimizers, strict=True))
    assert torch.equal(one, other)


@pytest.mark.parametrize("solver", [Proximal, DualAveraging])
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("steps", [0, 3, 13])
def test_a_saved_state_goes_on_to_the_same_bits(name, solver, steps):
    """Before the first step, while RAdam does not adapt yet, and with a cached metric."""

    def make():
        net = nn.Linear(6, 3)
        optimizer = made(name, net.parameters())
        return net, optimizer, solver(penalties.L1(), scope(net), optimizer, strength=1e-3)

    things = make()
    trained(*things[:2], steps)
    saved = copy.deepcopy([thing.state_dict() for thing in things])
    expected = trained(*things[:2], 9)
    things = make()
    for thing, state in zip(things, saved, strict=True):
        thing.load_state_dict(state)
    assert torch.equal(trained(*things[:2], 9), expected)


@pytest.mark.parametrize("name", ["adam", "nadam", "radam", "adamax", "adagrad", "rmsprop"])
def test_a_layer_that_has_never_had_a_gradient_waits(name):
    net = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 2)])
    optimizer = made(name, net.parameters())
    solver = Proximal(penalties.L1(), scope(net), optimizer, strength=1e-3)
    before = net[1].weight.detach().clone()
    for _ in range(3):
        net.zero_grad()
        net[0](torch.ones(1, 4)).sum().backward()
        optimizer.step()
    assert torch.equal(net[1].weight, before)
    assert solver.pending_steps[1].pending == 0
    net[1](torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert not torch.equal(net[1].weight, before)


def test_muon_is_refused_with_the_reason():
    muon = getattr(torch.optim, "Muon", None) or type("Muon", (torch.optim.SGD,), {})
    net = nn.Linear(4, 2, bias=False)
    with pytest.raises(TypeError, match=r"Muon orthogonalizes.*Use the subgradient solver"):
        Proximal(penalties.L1(), scope(net), muon(net.parameters(), lr=0.1))


@pytest.mark.parametrize("penalty", [penalties.Zero(), penalties.L2("decoupled")], ids=str)
def test_what_is_no_part_of_the_objective_needs_no_metric(penalty):
    """A baseline without a penalty can be trained with any optimizer."""
    nets = [nn.Linear(6, 3), nn.Linear(6, 3)]
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers = [torch.optim.Rprop(net.parameters()) for net in nets]
    Proximal(penalty, scope(nets[0]), optimizers[0], strength=0.1)
    one, other = (trained(*pair, 5) for pair in zip(nets, optimizers, strict=True))
    assert torch.equal(one, other) == isinstance(penalty, penalties.Zero)


class Logged(torch.optim.Adam):
    """Adam under another name."""


class Doubled(torch.optim.Adam):
    """Not Adam: its steps are twice as long."""

    def step(self, closure=None):
        super().step(closure)
        return super().step(closure)


def test_a_subclass_has_the_metric_of_its_parent_unless_it_steps_in_another_way():
    weights = [nn.Parameter(torch.ones(2))]
    check_metric(Logged(weights))
    with pytest.raises(TypeError, match=r"Doubled .* than Adam.*register"):
        check_metric(Doubled(weights))
    prox_step.register(Doubled)(prox_step.dispatch(torch.optim.Adam))
    check_metric(Doubled(weights))


def test_factors_under_adagrad_are_refused():
    """Its sums are made with the optimizer, before there are factors."""
    net = nn.Linear(4, 2)
    optimizer = torch.optim.Adagrad(net.parameters())
    with pytest.raises(ValueError, match=r"Adagrad.*use the proximal solver"):
        Factorized(penalties.L1(), scope(net), optimizer)
