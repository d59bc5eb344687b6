"""One α, one meaning: every optimizer reaches the optimum that scikit-learn finds."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn
import torch
from sklearn import linear_model
from torch import nn
from torch.nn.functional import softplus

from seg_l1 import penalties
from seg_l1.schedules import LearningRate
from seg_l1.scope import Rule, scope
from seg_l1.solvers import metric, proximal
from seg_l1.solvers.proximal import Proximal
from seg_l1.solvers.subgradient import Subgradient

FEATURES, PIXELS = 20, 256
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.3}),
    "momentum 0.5": (torch.optim.SGD, {"lr": 0.15, "momentum": 0.5}),
    "momentum 0.9": (torch.optim.SGD, {"lr": 0.03, "momentum": 0.9}),
    "dampening without momentum": (torch.optim.SGD, {"lr": 0.3, "dampening": 0.5}),
    "dampened": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    "nesterov": (torch.optim.SGD, {"lr": 0.03, "momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {"lr": 0.03}),
    "amsgrad": (torch.optim.Adam, {"lr": 0.03, "amsgrad": True}),
    "adamw": (torch.optim.AdamW, {"lr": 0.03, "weight_decay": 0.0}),
}


def images_and_target():
    """One image (1, FEATURES, 16, 16) with correlated channels, and a target from 5 of them."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((PIXELS, FEATURES)) @ (
        np.eye(FEATURES) + 0.2 * rng.standard_normal((FEATURES, FEATURES))
    )
    truth = np.zeros(FEATURES)
    truth[:5] = [2, -1.5, 1, 0.5, -3]
    return x, x @ truth + 0.5 * rng.standard_normal(PIXELS)


X, Y = images_and_target()
LABELS = (np.random.default_rng(4).random(PIXELS) < 1 / (1 + np.exp(-Y))) * 2.0 - 1
ALPHA, ALPHA_LOGISTIC = 0.2, 0.02


def squared(prediction, target):
    return 0.5 * (prediction - target).square().mean()


def logistic(prediction, target):
    return softplus(-prediction * target).mean()


def _lasso():
    return linear_model.Lasso(ALPHA, fit_intercept=False, tol=1e-14, max_iter=100_000)


def _enet():
    return linear_model.ElasticNet(
        ALPHA, l1_ratio=0.7, fit_intercept=False, tol=1e-14, max_iter=100_000
    )


def _ridge():
    return linear_model.Ridge(ALPHA * PIXELS, fit_intercept=False, solver="cholesky")


def _logistic():
    l1 = {"penalty": "l1"} if sklearn.__version__ < "1.8" else {"l1_ratio": 1.0}
    return linear_model.LogisticRegression(
        **l1, C=1 / (PIXELS * ALPHA_LOGISTIC), solver="saga", fit_intercept=False,
        tol=1e-13, max_iter=100_000, random_state=0,
    )  # fmt: skip


# penalty, α, loss, target, scikit-learn's solution of the same objective
PROBLEMS = {
    "lasso": (penalties.L1(), ALPHA, squared, Y, _lasso),
    "elastic net": (penalties.ElasticNet(0.7), ALPHA, squared, Y, _enet),
    "ridge": (penalties.L2(), ALPHA, squared, Y, _ridge),
    "logistic": (penalties.L1(), ALPHA_LOGISTIC, logistic, LABELS, _logistic),
}


@pytest.fixture(scope="module")
def optima():
    return {
        name: torch.from_numpy(oracle().fit(X, target).coef_.reshape(-1))
        for name, (_, _, _, target, oracle) in PROBLEMS.items()
    }


def as_images(dtype):
    pixels = torch.from_numpy(X).to(dtype)
    return pixels.t().reshape(1, FEATURES, 16, 16)


def objective(name, w):
    penalty, alpha, loss, target, _ = PROBLEMS[name]
    prediction = torch.from_numpy(X) @ w.double()
    return float(loss(prediction, torch.from_numpy(target)) + alpha * penalty.value(w.double()))


def solve(name, optimizer, steps=1500, solver=Proximal, dtype=torch.float64, parts=1, clip=None):
    """Trains a 1x1 convolution on the problem; returns its weights (FEATURES,)."""
    penalty, alpha, loss, target, _ = PROBLEMS[name]
    kind, options = OPTIMIZERS[optimizer]
    net = nn.Conv2d(FEATURES, 1, 1, bias=False, dtype=dtype)
    images, target = as_images(dtype), torch.from_numpy(target).to(dtype).reshape(1, 1, 16, 16)
    optimizer = kind(net.parameters(), **options)
    solver = solver(penalty, scope_of(net), optimizer)
    rate = LearningRate(steps, final=1e-3)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = options["lr"] * rate(step)
        optimizer.zero_grad()
        for x, y in zip(images.chunk(parts, 2), target.chunk(parts, 2), strict=True):
            (loss(net(x), y) / parts).backward()
        solver.before_step(alpha)
        factor = 1.0
        if clip is not None:
            norm = nn.utils.clip_grad_norm_(net.parameters(), clip)
            factor = min(1.0, clip / (float(norm) + 1e-6))
        optimizer.step()
        solver.after_step(alpha * factor)
    solver.flush()
    return net.weight.detach().reshape(-1)


def scope_of(net):
    return scope(net, (Rule(),))


def gap(name, w, optimum):
    best = objective(name, optimum)
    return (objective(name, w) - best) / best


def agrees(name, w, optimum) -> bool:
    """A relative gap of at most 1e-6, and the same support."""
    same = torch.equal(w != 0, optimum.abs() > 1e-9)
    return abs(gap(name, w, optimum)) <= 1e-6 and same


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_every_optimizer_finds_the_optimum_of_scikit_learn(name, optimizer, optima):
    w = solve(name, optimizer)
    assert agrees(name, w, optima[name]), (gap(name, w, optima[name]), int((w != 0).sum()))


@pytest.mark.parametrize("optimizer", ["sgd", "momentum 0.9", "adam"])
def test_float32_finds_it_too(optimizer, optima):
    w = solve("lasso", optimizer, dtype=torch.float32)
    assert agrees("lasso", w, optima["lasso"])


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["momentum 0.9", "adam"])
@pytest.mark.parametrize("parts", [2, 4])
def test_accumulation_does_not_move_the_optimum(optimizer, parts, optima):
    assert agrees("lasso", solve("lasso", optimizer, parts=parts), optima["lasso"])


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "momentum 0.9", "adam"])
def test_clipping_by_norm_does_not_move_the_optimum(optimizer, optima):
    # at the optimum the gradient of the data term has the norm alpha * sqrt(support): it stays
    # clipped to the end
    w = solve("lasso", optimizer, clip=0.3, steps=4000)
    assert agrees("lasso", w, optima["lasso"]), gap("lasso", w, optima["lasso"])


FAULTS = {
    "no momentum factor": ("momentum 0.9", lambda right, size: size),
    "no metric of Adam": ("adam", lambda right, size: size),
    "one per cent too much": ("sgd", lambda right, size: 1.01 * right),
    "one per cent too little under Adam": ("adam", lambda right, size: 0.99 * right),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_metric_is_seen(fault, optima, monkeypatch):
    optimizer, wrong = FAULTS[fault]
    right = metric.prox_step

    def faulty(optimizer, group, tensor, size, count):
        return wrong(right(optimizer, group, tensor, size, count), size)

    faulty.dispatch = right.dispatch
    monkeypatch.setattr(proximal, "prox_step", faulty)
    assert not agrees("lasso", solve("lasso", optimizer), optima["lasso"])


def test_the_textbook_subgradient_comes_close_but_never_to_zero(optima):
    w = solve("lasso", "adam", solver=Subgradient)
    assert 0 <= gap("lasso", w, optima["lasso"]) < 1e-3
    assert not (w == 0).any()


def test_weight_decay_of_sgd_is_l2():
    kind, options = OPTIMIZERS["momentum 0.9"]
    decayed, regularised = nn.Linear(5, 1), nn.Linear(5, 1)
    regularised.load_state_dict(decayed.state_dict())
    x, y = torch.randn(9, 5), torch.randn(9, 1)
    ours = kind(regularised.parameters(), **options)
    theirs = kind(decayed.parameters(), **options, weight_decay=0.1)
    solver = Subgradient(penalties.L2(), scope(regularised, (Rule(),)), ours)
    for _ in range(20):
        for net, optimizer in ((decayed, theirs), (regularised, ours)):
            optimizer.zero_grad()
            squared(net(x), y).backward()
            if net is regularised:
                solver.before_step(0.1)
            optimizer.step()
    torch.testing.assert_close(regularised.weight, decayed.weight)


def shrunk(dtype, steps, lr=1e-4, alpha=1e-5, start=0, flush_every=64):
    """How far a weight of 0.1 without any data gradient moves in `steps` steps.

    The penalty begins at step `start`; the solver is flushed as at the end of an epoch.
    """
    w = nn.Parameter(torch.full((4, 1), 0.1, dtype=dtype))
    net = nn.Module()
    net.weight = w
    before = float(w.detach()[0])
    optimizer = torch.optim.SGD([w], lr=lr)
    solver = Proximal(penalties.L1(), scope_of(net), optimizer)
    for step in range(steps):
        w.grad = torch.zeros_like(w)
        optimizer.step()
        solver.after_step(alpha if step >= start else 0.0)
        if step % flush_every == flush_every - 1:
            solver.flush()
    return before - float(w.detach()[0])


def test_steps_below_the_resolution_of_float32_are_added_up_not_lost():
    assert np.float32(0.1) - np.float32(1e-9) == np.float32(0.1)
    assert shrunk(torch.float64, 8000) == pytest.approx(8e-6, rel=1e-6)
    assert shrunk(torch.float32, 8000) == pytest.approx(8e-6, rel=0.1)
    assert shrunk(torch.float32, 8000, start=100) == pytest.approx(7.9e-6, rel=0.1)
    # even where an epoch of 64 steps is far below the resolution (the last third is still owed)
    assert shrunk(torch.float32, 12_800, alpha=1e-7) == pytest.approx(1.28e-7, rel=0.4)


def test_zeros_are_exact_after_a_flush_while_steps_are_added_up():
    w = nn.Parameter(torch.tensor([[0.1], [0.0]]))
    net = nn.Module()
    net.weight = w
    optimizer = torch.optim.SGD([w], lr=1e-4)
    solver = Proximal(penalties.L1(), scope_of(net), optimizer)
    for _ in range(5):
        w.grad = torch.tensor([[0.0], [5e-6]])
        optimizer.step()
        solver.after_step(1e-5)
    assert w[1] != 0
    solver.flush()
    assert w.detach().flatten().tolist() == [pytest.approx(0.1), 0.0]


def test_the_filling_momentum_buffer_is_counted():
    """Under a constant gradient -α a positive weight must stay where it is, at every step."""
    for options in ({"momentum": 0.9}, {"momentum": 0.9, "nesterov": True},
                    {"momentum": 0.9, "dampening": 0.3}, {}):  # fmt: skip
        w = nn.Parameter(torch.tensor([[1.0]], dtype=torch.float64))
        net = nn.Module()
        net.weight = w
        optimizer = torch.optim.SGD([w], lr=0.01, **options)
        solver = Proximal(penalties.L1(), scope_of(net), optimizer)
        for _ in range(7):
            w.grad = torch.full_like(w, -0.5)
            optimizer.step()
            solver.after_step(0.5)
            assert float(w.detach()) == pytest.approx(1.0, abs=1e-14), options


def test_an_unknown_optimizer_is_refused_by_name():
    net = nn.Linear(2, 2)
    optimizer = torch.optim.RMSprop(net.parameters())
    with pytest.raises(TypeError, match=r"RMSprop.*known are Adam, AdamW, SGD"):
        Proximal(penalties.L1(), scope(net), optimizer)


def test_a_tensor_that_the_optimizer_does_not_own_is_refused():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(net[0].parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"1\.weight"):
        Proximal(penalties.L1(), scope(net), optimizer)


def test_maximize_is_refused():
    net = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, maximize=True)
    with pytest.raises(ValueError, match="maximize"):
        Proximal(penalties.L1(), scope(net), optimizer)


def test_the_factor_of_a_rule_multiplies_alpha():
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    tensors = scope(net, (Rule("0.*", factor=3.0), Rule()))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for w in net.parameters():
        nn.init.ones_(w)
        w.grad = torch.zeros_like(w)
    solver = Proximal(penalties.L1(), tensors, optimizer)
    optimizer.step()
    solver.after_step(0.5)
    assert [float(w.detach()) for w in net.parameters()] == pytest.approx([0.85, 0.95])
