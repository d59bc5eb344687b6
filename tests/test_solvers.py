"""How solvers meet optimizers: hooks, resolution, refusals, states."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from seg_l1 import penalties
from seg_l1.scope import Rule, scope
from seg_l1.solvers.dual_averaging import DualAveraging
from seg_l1.solvers.factorized import Factorized
from seg_l1.solvers.frozen import Frozen
from seg_l1.solvers.metric import prox_step
from seg_l1.solvers.proximal import Proximal
from seg_l1.solvers.subgradient import Subgradient
from tests.support.penalties import FIRST, SHRINKING

SOLVERS = [Proximal, Subgradient, Factorized, DualAveraging, Frozen]


def scope_of(net):
    return scope(net, (Rule(),))


def weight(values, dtype=torch.float32):
    """A module that is one weight."""
    net = nn.Module()
    net.weight = nn.Parameter(torch.tensor(values, dtype=dtype))
    return net


def test_weight_decay_of_sgd_is_l2():
    options = {"lr": 0.03, "momentum": 0.9}
    decayed, regularized = nn.Linear(5, 1), nn.Linear(5, 1)
    regularized.load_state_dict(decayed.state_dict())
    x, y = torch.randn(9, 5), torch.randn(9, 1)
    ours = torch.optim.SGD(regularized.parameters(), **options)
    theirs = torch.optim.SGD(decayed.parameters(), **options, weight_decay=0.1)
    Subgradient(penalties.L2(), scope_of(regularized), ours, strength=0.1)
    for _ in range(20):
        for net, optimizer in ((decayed, theirs), (regularized, ours)):
            optimizer.zero_grad()
            mse_loss(net(x), y).backward()
            optimizer.step()
    torch.testing.assert_close(regularized.weight, decayed.weight)


def test_decoupled_l2_is_the_decay_of_adamw():
    """To first order in lr·alpha: AdamW decays before the step, the prox after it."""
    nets = [nn.Linear(5, 1) for _ in range(3)]
    for net in nets[1:]:
        net.load_state_dict(nets[0].state_dict())
    x, y = torch.randn(9, 5), torch.randn(9, 1)
    lr, alpha = 1e-3, 0.5
    optimizers = [
        torch.optim.AdamW(nets[0].parameters(), lr=lr, weight_decay=alpha),
        torch.optim.Adam(nets[1].parameters(), lr=lr),
        torch.optim.Adam(nets[2].parameters(), lr=lr),
    ]
    Proximal(penalties.L2("decoupled"), scope_of(nets[1]), optimizers[1], strength=alpha)
    for _ in range(50):
        for net, optimizer in zip(nets, optimizers, strict=True):
            optimizer.zero_grad()
            mse_loss(net(x), y).backward()
            optimizer.step()
    adamw, ours, plain = (net.weight.detach() for net in nets)
    assert float((ours - adamw).norm()) < 0.02 * float((plain - adamw).norm())


def shrunk(dtype, steps, lr=1e-4, alpha=1e-5, start=0, flush_every=64):
    """How far a weight of 0.1 without any data gradient moves in `steps` steps.

    The penalty begins at step `start`; the solver is flushed as at the end of an epoch.
    """
    net = weight([[0.1]] * 4, dtype)
    before = float(net.weight.detach()[0])
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    solver = Proximal(penalties.L1(), scope_of(net), optimizer)
    for step in range(steps):
        net.weight.grad = torch.zeros_like(net.weight)
        solver.strength = alpha if step >= start else 0.0
        optimizer.step()
        if step % flush_every == flush_every - 1:
            solver.flush()
    return before - float(net.weight.detach()[0])


def test_steps_below_the_resolution_of_float32_are_added_up_not_lost():
    assert np.float32(0.1) - np.float32(1e-9) == np.float32(0.1)
    assert shrunk(torch.float64, 8000) == pytest.approx(8e-6, rel=1e-6)
    assert shrunk(torch.float32, 8000) == pytest.approx(8e-6, rel=0.1)
    assert shrunk(torch.float32, 8000, start=100) == pytest.approx(7.9e-6, rel=0.1)
    # even where an epoch of 64 steps is far below the resolution (the last third is still owed)
    assert shrunk(torch.float32, 12_800, alpha=1e-7) == pytest.approx(1.28e-7, rel=0.4)


def test_one_slow_tensor_does_not_hold_up_the_others():
    net = nn.ParameterDict({"slow": torch.full((2, 1), 1e4), "fast": torch.full((2, 1), 1e-3)})
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    solver = Proximal(penalties.L1(), scope_of(net), optimizer, strength=1e-3)
    for _ in range(3):
        optimizer.zero_grad(set_to_none=False)
        for w in net.parameters():
            w.grad = torch.zeros_like(w)
        optimizer.step()
    steps = zip(solver.penalized_tensors, solver.pending_steps, strict=True)
    waits = {scoped.name: step.interval > 1 for scoped, step in steps}
    assert waits == {"slow": True, "fast": False}
    assert float(net["fast"].detach()[0]) == pytest.approx(1e-3 - 3e-5)


def test_a_weight_beneath_the_knot_of_mcp_holds_up_nothing():
    net = weight([[0.1 * (1 - 1e-6)], [0.01], [0.5]])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    solver = Proximal(penalties.MCP(knot=0.1), scope_of(net), optimizer, strength=1e-3)
    for _ in range(3):
        net.weight.grad = torch.zeros_like(net.weight)
        optimizer.step()
    assert solver.pending_steps[0].interval == 1
    assert float(net.weight.detach()[1]) < 0.0098


def test_weights_near_the_knot_of_mcp_hold_up_little():
    net = weight(torch.linspace(0.001, 0.0999, 100)[:, None].tolist())
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
    solver = Proximal(penalties.MCP(knot=0.1), scope_of(net), optimizer, strength=1e-5)
    net.weight.grad = torch.zeros_like(net.weight)
    optimizer.step()
    assert solver.pending_steps[0].interval <= 10


ONE_EACH = [penalty for penalty in SHRINKING if penalty in FIRST.values()]


@pytest.mark.parametrize("penalty", [*ONE_EACH, penalties.ReweightedL1(100.0)], ids=str)
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_float32_shrinks_as_much_as_float64(penalty, optimizer):
    start, moved = torch.rand(6, 8, dtype=torch.float64) * 0.3 + 0.1, {}
    for dtype in (torch.float32, torch.float64):
        net = weight(start.tolist(), dtype)
        options = {"lr": 1e-2} if optimizer == "SGD" else {"lr": 1e-5, "eps": 1e-3}
        step = getattr(torch.optim, optimizer)(net.parameters(), **options)
        tensors = [replace(s, channels=tuple(range(6))) for s in scope_of(net)]
        solver = Proximal(penalty, tensors, step, strength=2e-6)
        for _ in range(1500):
            net.weight.grad = torch.zeros_like(net.weight)
            step.step()
        moved[dtype] = start - net.weight.detach().double()
        assert (
            sum(step.pending for step in solver.pending_steps)
            <= 0.05 * 1500 * solver.strength * 1e-2
        )
    assert (moved[torch.float64] > 0).all()
    torch.testing.assert_close(moved[torch.float32], moved[torch.float64], rtol=0.15, atol=1e-7)


def test_groups_keep_their_meaning_when_the_strength_jumps():
    """A kept factor that stretches over orders of magnitude would magnify its rounding."""
    weights = {}
    for dtype in (torch.float32, torch.float64):
        torch.manual_seed(0)
        net = weight(torch.randn(6, 50).tolist(), dtype)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        solver = Proximal(penalties.GroupL1(), scope_of(net), optimizer)
        grads = torch.randn(2, 6, 50)
        for count in range(2):
            solver.strength = (1e-2, 50.0)[count]
            net.weight.grad = grads[count].to(dtype)
            optimizer.step()
        weights[dtype] = net.weight.detach().double()
    torch.testing.assert_close(weights[torch.float32], weights[torch.float64], rtol=1e-5, atol=1e-7)


def test_zeros_are_exact_after_a_flush_while_steps_are_added_up():
    net = weight([[0.1], [0.0]])
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    solver = Proximal(penalties.L1(), scope_of(net), optimizer, strength=1e-5)
    for _ in range(5):
        net.weight.grad = torch.tensor([[0.0], [5e-6]])
        optimizer.step()
    assert net.weight[1] != 0
    solver.flush()
    assert net.weight.detach().flatten().tolist() == [pytest.approx(0.1), 0.0]


def test_the_filling_momentum_buffer_is_counted():
    """Under a constant gradient -α a positive weight must stay where it is, at every step."""
    for options in ({"momentum": 0.9}, {"momentum": 0.9, "nesterov": True},
                    {"momentum": 0.9, "dampening": 0.3}, {}):  # fmt: skip
        net = weight([[1.0]], torch.float64)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01, **options)
        Proximal(penalties.L1(), scope_of(net), optimizer, strength=0.5)
        for _ in range(7):
            net.weight.grad = torch.full_like(net.weight, -0.5)
            optimizer.step()
            assert float(net.weight.detach()) == pytest.approx(1.0, abs=1e-14), options


def test_a_penalty_that_comes_late_finds_the_momentum_buffer_full():
    net = weight([[1.0]], torch.float64)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    for step in range(400):
        if step == 200:
            before = float(net.weight.detach())
            Proximal(penalties.L1(), scope_of(net), optimizer, strength=0.5)
        net.weight.grad = torch.full_like(net.weight, -0.5)
        optimizer.step()
    assert float(net.weight.detach()) == pytest.approx(before, abs=1e-9)


def test_kept_thresholds_shrink_as_much_as_fresh_ones(monkeypatch):
    """Under Adam, with a rate that changes at every step and v̂ that stands still."""
    left = []
    for kept in (8, 1):
        monkeypatch.setattr("seg_l1.solvers.proximal.cache_steps", lambda *_, kept=kept: kept)
        net = weight([[1.0]], torch.float64)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01, betas=(0.0, 0.999))
        solver = Proximal(penalties.L1(), scope_of(net), optimizer)
        for step in range(240):
            optimizer.param_groups[0]["lr"] = 1e-3 * (1.5 + np.sin(step / 20))
            solver.strength = 0.5 * (1 + 0.01 * (-1) ** step)
            net.weight.grad = torch.full_like(net.weight, 0.1 * (-1) ** step)
            optimizer.step()
        left.append(float(net.weight.detach()))
    assert left[0] < 0.5
    assert left[0] == pytest.approx(left[1], rel=1e-3)


@pytest.mark.parametrize("solver", [Proximal, DualAveraging])
def test_an_unknown_optimizer_is_refused_by_name(solver):
    net = nn.Linear(2, 2)
    optimizer = torch.optim.Rprop(net.parameters())
    with pytest.raises(
        TypeError, match=r"Rprop.*known are Adagrad, Adam, .*RMSprop, SGD.*register"
    ):
        solver(penalties.L1(), scope(net), optimizer)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_tensor_that_the_optimizer_does_not_own_is_refused(solver):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(net[0].parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"1\.weight"):
        solver(penalties.L1(), scope(net), optimizer)


@pytest.mark.parametrize("solver", SOLVERS)
def test_maximize_is_refused(solver):
    net = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, maximize=True)
    with pytest.raises(ValueError, match="maximize"):
        solver(penalties.L1(), scope(net), optimizer)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.other.weight = self.one.weight


SGD, ADAMW = torch.optim.SGD, torch.optim.AdamW
SENSELESS = {
    "factors under decoupled decay": (
        Factorized, penalties.L1(), nn.Conv2d(2, 2, 1), ADAMW, {"weight_decay": 0.1}, "AdamW"),
    "factors under coupled decay": (
        Factorized, penalties.L1(), nn.Conv2d(2, 2, 1), SGD, {"weight_decay": 0.1}, "alpha"),
    "factors of a group": (
        Factorized, penalties.GroupL1(), nn.Conv2d(2, 2, 1), SGD, {}, "GroupL1"),
    "a penalty without prox": (
        Proximal, penalties.Bridge(3), nn.Conv2d(2, 2, 1), SGD, {}, "Bridge.*factorized"),
    "channels of a tied tensor": (
        Proximal, penalties.GroupL1(), Tied(), SGD, {}, r"one\.weight.*several modules"),
    "channels of a transposed convolution in groups": (
        Proximal, penalties.GroupL1(), nn.ConvTranspose2d(4, 4, 1, groups=2), SGD, {}, "groups"),
    "a decoupled decay in the loss": (
        Subgradient, penalties.L2("decoupled"), nn.Conv2d(2, 2, 1), SGD, {}, "decoupled"),
    "a decoupled decay on a running sum": (
        DualAveraging, penalties.L2("decoupled"), nn.Conv2d(2, 2, 1), SGD, {}, "decoupled"),
    "a running sum that is not convex": (
        DualAveraging, penalties.MCP(), nn.Conv2d(2, 2, 1), SGD, {},
        "the dual_averaging solver .*not convex"),
    "a running sum that decays": (
        DualAveraging, penalties.L1(), nn.Conv2d(2, 2, 1), SGD, {"weight_decay": 0.1},
        "elastic_net"),
}  # fmt: skip


@pytest.mark.parametrize("case", SENSELESS)
def test_a_senseless_pair_is_refused_by_name_and_reason(case):
    solver, penalty, net, kind, options, words = SENSELESS[case]
    optimizer = kind(net.parameters(), lr=0.1, **options)
    with pytest.raises((TypeError, ValueError), match=words):
        solver(penalty, scope(net), optimizer)
    assert not optimizer._optimizer_step_post_hooks


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_a_closure_takes_the_steps_of_a_plain_loop(solver, kind):
    """Clipping included, which Lightning does inside of its closure."""
    x, y = torch.randn(16, 6), torch.randn(16, 3)
    start, results = nn.Linear(6, 3), []
    for call in ("step()", "step(closure)", "step(closure=closure)"):
        net = copy.deepcopy(start)
        optimizer = getattr(torch.optim, kind)(net.parameters(), lr=0.05)
        attached = solver(penalties.L1(), scope(net), optimizer, strength=0.1)

        def closure(net=net, optimizer=optimizer, attached=attached):
            optimizer.zero_grad()
            loss = mse_loss(net(x), y)
            loss.backward()
            attached.clip_grad_norm_(0.3)
            return loss

        for _ in range(12):
            if call == "step()":
                closure()
                optimizer.step()
            else:
                loss = eval(f"optimizer.{call}", {"optimizer": optimizer, "closure": closure})
                assert float(loss.detach()) > 0
        results.append(net.weight.detach())
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    assert not torch.equal(results[0], start.weight)


@pytest.mark.parametrize("solver", [Subgradient, Factorized, Proximal])
def test_an_optimizer_that_repeats_its_closure_is_refused(solver):
    net = nn.Linear(2, 2)
    with pytest.raises((TypeError, ValueError), match="LBFGS"):
        solver(penalties.L1(), scope(net), torch.optim.LBFGS(net.parameters()))

    class Twice(torch.optim.SGD):
        def step(self, closure):
            closure()
            return super().step(closure)

    prox_step.register(Twice)(prox_step.dispatch(torch.optim.SGD))
    optimizer = Twice(net.parameters(), lr=0.1)
    solver(penalties.L1(), scope(net), optimizer)
    if solver is Proximal:  # its prox follows the step, however often the loss was computed
        optimizer.step(lambda: 0.0)
    else:
        with pytest.raises(ValueError, match="several times"):
            optimizer.step(lambda: 0.0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_step_within_a_step_takes_the_penalty_once(solver):
    """As where a class of one's own calls `super().step()`: torch calls the hooks of both."""

    class Mine(torch.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    prox_step.register(Mine)(prox_step.dispatch(torch.optim.SGD))
    results = []
    for kind in (torch.optim.SGD, Mine):
        net = nn.Linear(2, 2)
        nn.init.ones_(net.weight)
        optimizer = kind(net.parameters(), lr=0.1)
        attached = solver(penalties.L1(), scope(net), optimizer, strength=0.5)
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.ones(1, 2)).sum().backward()
            optimizer.step()
        results.append(net.weight.detach())
        assert attached.counts == [3]
    assert torch.equal(*results)


def test_the_factor_of_a_rule_multiplies_alpha():
    for solver in (Proximal, Subgradient):
        net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
        tensors = scope(net, (Rule("0.*", factor=3.0), Rule()))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for w in net.parameters():
            nn.init.ones_(w)
            w.grad = torch.zeros_like(w)
        solver(penalties.L1(), tensors, optimizer, strength=0.5)
        optimizer.step()
        assert [float(w.detach()) for w in net.parameters()] == pytest.approx([0.85, 0.95])


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_groups_of_a_transposed_convolution_are_its_output_channels(optimizer):
    net = nn.ConvTranspose2d(3, 2, 2, bias=False)
    with torch.no_grad():
        net.weight[:, 0] = 1e-3
        net.weight[:, 1] = 1.0
    optimizer = optimizer(net.parameters(), lr=0.01)
    Proximal(penalties.GroupL1(), scope_of(net), optimizer, strength=0.5)
    net.weight.grad = 0.1 * torch.randn_like(net.weight).clamp(-1, -0.5)
    optimizer.step()
    assert (net.weight[:, 0] == 0).all()
    assert (net.weight[:, 1] != 0).all()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_a_saved_state_goes_on_to_the_same_bits(solver, optimizer):
    x, y = torch.randn(16, 6), torch.randn(16, 3)

    def make(net):
        options = {"momentum": 0.9} if optimizer == "SGD" else {}
        step = getattr(torch.optim, optimizer)(net.parameters(), lr=0.01, **options)
        return step, solver(penalties.L1(), scope(net), step, strength=1e-3)

    def train(net, step, steps):
        for count in range(steps):
            step.param_groups[0]["lr"] = 0.01 / (1 + count)
            step.zero_grad()
            mse_loss(net(x), y).backward()
            step.step()

    net = nn.Linear(6, 3)
    step, state = make(net)
    train(net, step, 13)
    saved = copy.deepcopy([net.state_dict(), step.state_dict(), state.state_dict()])
    train(net, step, 13)
    again = nn.Linear(6, 3)
    again.load_state_dict(saved[0])
    step, state = make(again)
    step.load_state_dict(copy.deepcopy(saved[1]))  # torch takes the tensors as they are
    state.load_state_dict(saved[2])
    assert state.strength == 1e-3
    train(again, step, 13)
    assert torch.equal(net.weight, again.weight)
    again.load_state_dict(saved[0])  # the saved tensors are the caller's: training leaves them
    step.load_state_dict(copy.deepcopy(saved[1]))  # torch takes the tensors as they are
    state.load_state_dict(saved[2])
    train(again, step, 13)
    assert torch.equal(net.weight, again.weight)


def as_older_versions_saved_it(state):
    """A state of `Proximal` or `Factorized` under the names that older checkpoints have."""
    older = {"next_checks": "look_at", "mean_grads": "pull", "counts": "count"}
    older = {older.get(name, name): value for name, value in state.items()}
    for name in {"look_at", "count"} & older.keys():  # one number for all tensors
        (older[name],) = set(older[name])
    if "caches" in older:
        pairs = zip(older.pop("pending_steps"), older.pop("caches"), strict=True)
        older["accounts"] = [
            {
                "owed": step["pending"], "waited": step["skipped"], "interval": step["interval"],
                "kept": cache["cached"], "size": cache["scaled_lr"], "age": cache["cache_age"],
            }
            for step, cache in pairs
        ]  # fmt: skip
    return older


@pytest.mark.parametrize("solver", [Proximal, Factorized, Frozen])
def test_older_checkpoints_go_on_to_the_same_bits(solver):
    """With a cached metric, and with steps that are pending."""
    x, y = torch.randn(16, 6), torch.randn(16, 3)
    penalty = penalties.L1() if solver is Factorized else penalties.GroupL1()

    def trained(net, saved=None, steps=5):
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-6)
        attached = solver(penalty, scope(net), optimizer, strength=1e-3)
        for thing, state in zip((net, optimizer, attached), saved or (), strict=False):
            thing.load_state_dict(copy.deepcopy(state))
        for _ in range(steps):
            optimizer.zero_grad()
            mse_loss(net(x), y).backward()
            optimizer.step()
        return [copy.deepcopy(thing.state_dict()) for thing in (net, optimizer, attached)]

    torch.manual_seed(1)
    saved = trained(nn.Linear(6, 3))
    if solver is not Factorized:
        assert (
            saved[2]["caches"][0]["cached"] is not None or saved[2]["pending_steps"][0]["pending"]
        )
    older = [*saved[:2], as_older_versions_saved_it(saved[2])]
    assert older[2].keys() != saved[2].keys()
    now, then = trained(nn.Linear(6, 3), saved), trained(nn.Linear(6, 3), older)
    assert torch.equal(now[0]["weight"], then[0]["weight"])
    assert not torch.equal(now[0]["weight"], saved[0]["weight"])


@pytest.mark.parametrize("solver", SOLVERS)
def test_detached_it_is_the_plain_optimizer_again(solver):
    net, plain = nn.Linear(4, 2), nn.Linear(4, 2)
    plain.load_state_dict(net.state_dict())
    optimizers = [torch.optim.SGD(n.parameters(), lr=0.1) for n in (net, plain)]
    solver(penalties.L1(), scope(net), optimizers[0], strength=1.0).detach()
    for n, optimizer in zip((net, plain), optimizers, strict=True):
        n(torch.ones(1, 4)).sum().backward()
        optimizer.step()
    assert torch.equal(net.weight, plain.weight)
    assert len(optimizers[0].param_groups[0]["params"]) == 2


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
class TestSteps:
    """A user's loop, step by step."""

    def make(self, solver, kind, alpha=0.01):
        net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        optimizer = getattr(torch.optim, kind)(net.parameters(), lr=0.01)
        return net, optimizer, solver(penalties.L1(), scope(net), optimizer, strength=alpha)

    def step(self, net, optimizer, count=1):
        for _ in range(count):
            optimizer.zero_grad()
            net(torch.ones(2, 4)).square().sum().backward()
            optimizer.step()

    def test_a_layer_that_is_frozen_is_left_alone(self, solver, kind):
        net, optimizer, _ = self.make(solver, kind)
        self.step(net, optimizer, 2)
        net[0].requires_grad_(False)
        frozen, free = net[0].weight.clone(), net[1].weight.detach().clone()
        self.step(net, optimizer, 3)
        assert torch.equal(net[0].weight, frozen)
        assert not torch.equal(net[1].weight, free)

    def test_weights_that_somebody_writes_stay_written(self, solver, kind):
        net, optimizer, _ = self.make(solver, kind)
        self.step(net, optimizer, 5)
        with torch.no_grad():
            net[0].weight.fill_(0.7)
        self.step(net, optimizer)
        assert ((net[0].weight - 0.7).abs() < 0.2).all()

    def test_weights_that_are_swapped_and_swapped_back_change_nothing(self, solver, kind):
        results = []
        for swaps in (False, True):
            torch.manual_seed(0)
            net, optimizer, _ = self.make(solver, kind)
            for _ in range(5):
                self.step(net, optimizer)
                if swaps:
                    own = copy.deepcopy(net.state_dict())
                    net.load_state_dict({k: 0 * v for k, v in own.items()})
                    net.load_state_dict(own)
            results.append(net[0].weight)
        assert torch.equal(*results)

    def test_a_second_penalty_on_the_same_tensor_is_refused(self, solver, kind):
        net, optimizer, first = self.make(solver, kind)
        with pytest.raises(ValueError, match=r"0\.weight has a penalty at the optimizer already"):
            Subgradient(penalties.L1(), scope(net), optimizer)
        first.detach()
        Subgradient(penalties.L1(), scope(net), optimizer)

    def test_it_is_not_copied(self, solver, kind):
        _, _, state = self.make(solver, kind)
        with pytest.raises(TypeError, match="attach a new one"):
            copy.deepcopy(state)

    @pytest.mark.parametrize("steps", [0, 2])
    def test_a_state_goes_on_where_it_was_taken(self, solver, kind, steps):
        """Also that of a run that was killed before its first step."""
        torch.manual_seed(0)
        net, optimizer, state = self.make(solver, kind)
        self.step(net, optimizer, steps)
        saved = copy.deepcopy([net.state_dict(), optimizer.state_dict(), state.state_dict()])
        other, its_optimizer, its_state = self.make(solver, kind)
        for thing, kept in zip((other, its_optimizer, its_state), saved, strict=True):
            thing.load_state_dict(kept)
        self.step(net, optimizer, 3)
        self.step(other, its_optimizer, 3)
        assert torch.equal(net[0].weight, other[0].weight)

    def test_detached_in_the_middle_the_optimizer_can_be_saved(self, solver, kind):
        net, optimizer, state = self.make(solver, kind)
        self.step(net, optimizer, 2)
        state.detach()
        plain = getattr(torch.optim, kind)(net.parameters(), lr=0.01)
        plain.load_state_dict(optimizer.state_dict())
        assert plain.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
        assert set(plain.state) <= set(net.parameters())
        assert bool(plain.state) == (kind == "Adam")

    def test_clipped_gradients_clip_the_penalty_of_that_step_alone(self, solver, kind):
        """Under SGD a step clipped by half is a step at half the rate."""
        if kind == "Adam":
            pytest.skip("Adam's steps do not scale with the gradient")
        results = []
        for half in (False, True):
            torch.manual_seed(0)
            net, optimizer, state = self.make(solver, kind)
            for count in range(4):
                optimizer.zero_grad()
                net(torch.ones(2, 4)).square().sum().backward()
                if half and count == 2:
                    norm = nn.utils.clip_grad_norm_(net.parameters(), 1e9)
                    state.clip_grad_norm_(float(norm) / 2)
                elif count == 2:
                    optimizer.param_groups[0]["lr"] *= 0.5
                optimizer.step()
                optimizer.param_groups[0]["lr"] = 0.01
            results.append(net[0].weight.detach())
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-7)


def test_a_model_that_moves_after_the_factors_were_made_is_refused():
    net = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    Factorized(penalties.L1(), scope(net), optimizer, strength=0.1)
    net.double()
    net(torch.ones(1, 4).double()).sum().backward()
    with pytest.raises(ValueError, match="move the model first"):
        optimizer.step()


def test_factors_multiply_to_the_weight_and_only_one_sleeps():
    from seg_l1.solvers.factorized import factors

    w = torch.randn(40).masked_fill(torch.arange(40) % 4 == 0, 0.0)
    for depth in (2, 3, 4):
        parts = factors(w, depth)
        torch.testing.assert_close(torch.stack(list(parts)).prod(0), w)
        assert ((torch.stack(list(parts)) == 0).sum(0) <= 1).all()
        assert (parts[0].abs() != parts[-1].abs()).all()


def test_groups_that_were_dead_live_again_after_a_rollback():
    """Kept factors of dead groups are infinite, and belong to the weights they were made of."""
    torch.manual_seed(0)
    net = nn.Linear(8, 6, bias=False)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    Proximal(penalties.GroupL1(), scope(net), optimizer, strength=0.5)
    before = net.weight.detach().clone()
    for _ in range(300):
        net.weight.grad = 1e-3 * torch.randn_like(net.weight)
        optimizer.step()
    assert (net.weight == 0).all()
    net.load_state_dict({"weight": 10 + before})
    net.weight.grad = 1e-3 * torch.randn_like(net.weight)
    optimizer.step()
    assert (net.weight != 0).all()


def test_clipping_counts_for_every_penalty_and_no_stale_factor():
    net = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)])
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    one = Factorized(penalties.L1(), scope(net[0]), optimizer, strength=0.1)
    other = Proximal(penalties.L1(), scope(net[1]), optimizer, strength=0.1)
    for _ in range(3):
        net.zero_grad()
        (net[0](torch.ones(1, 3)) + net[1](torch.ones(1, 3))).square().sum().backward()
        gradients = [p.grad for p in net.parameters()]
        norm = torch.stack([g.norm() for g in gradients]).norm()
        assert float(one.clip_grad_norm_(0.01)) == pytest.approx(float(norm))
        assert other.clip_factor == one.clip_factor < 1
        optimizer.step()
