"""One α, one meaning: every optimizer and solver reaches the optimum that other programs find."""

from __future__ import annotations

import pytest
import torch

from seg_l1 import penalties, prox
from seg_l1.solvers import dual_averaging, factorized, metric, proximal
from seg_l1.solvers.dual_averaging import DualAveraging
from seg_l1.solvers.factorized import Factorized
from seg_l1.solvers.proximal import Proximal
from seg_l1.solvers.subgradient import Subgradient
from tests.support.oracles import (
    ALPHA,
    GAMMA,
    OPTIMIZERS,
    PROBLEMS,
    SLOW,
    STEPS,
    Linear,
    X,
    gap,
    same_support,
    solve,
    squared,
)

LASSO = PROBLEMS["lasso"]
FLOAT64, FLOAT32 = 1e-10, 1e-6
BRIEF = ("sgd", "momentum 0.9", "nesterov", "adam", "adamw", "rmsprop 0.9", "radam", "adagrad")
slow = pytest.mark.slow


def agrees(problem, w, limit=FLOAT64, zero=0.0) -> bool:
    return abs(gap(problem, w)) <= limit and same_support(problem, w, zero)


def pairs(thorough, brief, optimizers=OPTIMIZERS):
    """All optimizers on the problems of `thorough`, two on those of `brief`: (name, optimizer).

    All but the lasso with the optimizers of `BRIEF` are slow.
    """
    every = [(name, optimizer) for name in thorough for optimizer in optimizers]
    every += [(name, optimizer) for name in brief for optimizer in ("momentum 0.9", "adam")]
    return [
        pair if pair[0] == "lasso" and pair[1] in BRIEF else pytest.param(*pair, marks=slow)
        for pair in every
    ]


@pytest.mark.parametrize(
    ("name", "optimizer"),
    pairs(["lasso", "group lasso"], ["elastic net", "ridge", "logistic", "softmax"]),
)
def test_proximal_reaches_the_optimum(name, optimizer):
    w = solve(PROBLEMS[name], optimizer)
    assert agrees(PROBLEMS[name], w), gap(PROBLEMS[name], w)


@slow
@pytest.mark.parametrize("name", ["lasso", "group lasso"])
def test_proximal_reaches_the_optimum_with_the_usual_betas(name):
    """The metric changes slowly, and is kept for 8 steps."""
    w = solve(PROBLEMS[name], "adam", betas=(0.9, 0.999), steps=5000)
    assert agrees(PROBLEMS[name], w, 1e-9), gap(PROBLEMS[name], w)


@slow
@pytest.mark.parametrize("optimizer", ["momentum 0.9", "adam"])
def test_sparse_group_lasso_reaches_the_optimum_of_skglm(optimizer):
    problem = SLOW["sparse group lasso"]
    w = solve(problem, optimizer)
    assert agrees(problem, w), gap(problem, w)


@slow
@pytest.mark.parametrize("optimizer", ["momentum 0.9", "adam"])
def test_mcp_is_stationary_for_skglm(optimizer):
    from skglm.penalties import MCPenalty

    problem = SLOW["mcp"]
    w = solve(problem, optimizer, steps=2 * STEPS[optimizer])
    leaf = w.clone().requires_grad_()
    problem.data(leaf).backward()
    distance = MCPenalty(ALPHA, GAMMA).subdiff_distance(
        w.flatten().numpy(), leaf.grad.flatten().numpy(), torch.arange(w.numel()).numpy()
    )
    assert distance.max() <= 1e-6
    assert agrees(problem, w), gap(problem, w)


@pytest.mark.parametrize(("name", "optimizer"), pairs(["lasso"], ["logistic", "softmax"]))
def test_dual_averaging_reaches_the_optimum(name, optimizer):
    w = solve(PROBLEMS[name], optimizer, solver=DualAveraging)
    assert agrees(PROBLEMS[name], w), gap(PROBLEMS[name], w)


@slow
@pytest.mark.parametrize("name", ["elastic net", "ridge", "group lasso"])
@pytest.mark.parametrize("optimizer", ["momentum 0.9", "adam"])
def test_dual_averaging_is_slow_but_right_where_the_penalty_curves(name, optimizer):
    """Its threshold grows for ever, so curved penalties converge as 1/t: 1e-4 within the steps."""
    w = solve(PROBLEMS[name], optimizer, solver=DualAveraging, steps=2000)
    assert agrees(PROBLEMS[name], w, 1e-4), gap(PROBLEMS[name], w)


@slow
@pytest.mark.parametrize(
    ("name", "optimizer"),
    pairs(["lasso"], ["logistic", "softmax"], ("sgd", "momentum 0.9", "adam")),
)
def test_two_factors_solve_the_lasso_of_the_same_alpha(name, optimizer):
    """Small weights creep, at a rate of |w|: 1e-6 after the cut, 1e-10 after a refit."""
    w = solve(PROBLEMS[name], optimizer, solver=Factorized, steps=3000)
    assert agrees(PROBLEMS[name], w, 1e-6), gap(PROBLEMS[name], w)
    w = solve(PROBLEMS[name], "momentum 0.9", start=w)
    assert agrees(PROBLEMS[name], w), gap(PROBLEMS[name], w)


def test_a_factorized_weight_may_change_its_sign():
    start = Linear(LASSO.shape).weight.detach()
    assert (start * LASSO.optimum < 0).sum() >= 3
    assert agrees(LASSO, solve(LASSO, "sgd", solver=Factorized, steps=1500), 1e-6)


@slow
def test_three_factors_are_stationary_for_the_bridge():
    problem = type(LASSO)(penalties.Bridge(3), 0.05, squared, LASSO.oracle)
    w = solve(problem, "momentum 0.9", solver=Factorized, steps=3000)
    leaf = w.clone().requires_grad_()
    problem.data(leaf).backward()
    assert float(problem.penalty.distance(w, leaf.grad, 0.05).max()) <= 1e-6
    assert 0 < int((w == 0).sum()) < w.numel()


@slow
@pytest.mark.parametrize(
    ("name", "optimizer"),
    pairs(
        ["lasso"],
        ["group lasso"],
        (
            "sgd",
            "momentum 0.9",
            "adam",
            "nadam",
            "radam",
            "adamax",
            "adagrad",
            "rmsprop",
            "rmsprop 0.9",
            "rmsprop centered",
        ),
    ),
)
def test_float32_mini_batches_and_a_decaying_rate(name, optimizer):
    """The gradient of the last batch may have revived a weight, by no more than the last rate."""
    w = solve(PROBLEMS[name], optimizer, dtype=torch.float32, batches=4, steps=3000, lr=0.3)
    assert agrees(PROBLEMS[name], w, FLOAT32, zero=1e-5), gap(PROBLEMS[name], w)


def distance(one, other) -> float:
    return float((one - other).abs().max())


@slow
@pytest.mark.parametrize("optimizer", ["rmsprop", "nadam", "radam", "adagrad", "adamax"])
def test_a_coupled_weight_decay_is_the_l2_of_an_elastic_net(optimizer):
    """0.3·α/2·w² in the gradients and L1 at 0.7·α: the elastic net that scikit-learn solves."""
    net = PROBLEMS["elastic net"]
    w = solve(LASSO, optimizer, alpha=0.7 * ALPHA, weight_decay=0.3 * ALPHA)
    assert agrees(net, w), gap(net, w)


@slow
@pytest.mark.parametrize("solver", [Proximal, DualAveraging, Factorized])
def test_neither_momentum_nor_rate_nor_accumulation_moves_the_optimum(solver):
    cases = [
        *({"momentum": beta, "lr": 10 * (1 - beta)} for beta in (0.5, 0.8, 0.9, 0.95)),
        *({"lr": lr} for lr in (0.5, 2.0)),
        {"accumulate": 2},
    ]
    steps = 2000 if solver is Factorized else 1000
    for options in cases:
        w = solve(LASSO, "momentum 0.9", solver=solver, steps=steps, **options)
        w = w if solver is not Factorized else solve(LASSO, "momentum 0.9", start=w, **options)
        assert distance(w, LASSO.optimum) <= 1e-6, options
    for options in ({"betas": (0.5, 0.99)}, {"lr": 0.5}, {"eps": 1e-4}, {"accumulate": 2}):
        w = solve(LASSO, "adam", solver=solver, steps=steps + 1000, **options)
        assert distance(w, LASSO.optimum) <= 1e-6, options


@slow
@pytest.mark.parametrize("optimizer", ["sgd", "momentum 0.9", "adam"])
def test_clipping_by_norm_does_not_move_the_optimum(optimizer):
    # at the optimum the gradient of the data term has the norm alpha * sqrt(support): it stays
    # clipped to the end
    w = solve(LASSO, optimizer, clip=0.3, steps=4000)
    assert agrees(LASSO, w, 1e-6), gap(LASSO, w)


@pytest.mark.parametrize(
    "name", ["lasso", "elastic net", "softmax", pytest.param("group lasso", marks=slow)]
)
@pytest.mark.parametrize("optimizer", ["momentum 0.9", pytest.param("adam", marks=slow)])
def test_alpha_max_is_where_the_first_weight_or_group_enters(name, optimizer):
    problem = PROBLEMS[name]
    zero = torch.zeros(problem.shape, dtype=torch.float64, requires_grad=True)
    problem.data(zero).backward()
    if name == "group lasso":
        highest = float(torch.linalg.vector_norm(zero.grad, dim=1).max()) / problem.shape[1] ** 0.5
    else:
        highest = float(zero.grad.abs().max()) / getattr(problem.penalty, "l1_ratio", 1.0)
    margin = 1e-3 if optimizer == "adam" else 1e-6  # Adam's kept metric: up to 0.4 % in between
    above = solve(problem, optimizer, alpha=highest * (1 + margin), final=0.1)
    below = solve(problem, optimizer, alpha=highest * (1 - 1e-3), final=0.1)
    assert int((above != 0).sum()) == 0
    entered = (below != 0).any(1) if name == "group lasso" else below != 0
    assert int(entered.sum()) == 1


def test_the_textbook_subgradient_comes_close_but_never_to_zero():
    w = solve(LASSO, "adam", solver=Subgradient)
    assert 0 <= gap(LASSO, w) < 1e-3
    assert not (w == 0).any()


# -- planted faults: each is applied by monkeypatch, and the check must see it --------------------


def wrong_metric(wrong):
    def plant(monkeypatch):
        right = metric.prox_step

        def faulty(optimizer, group, tensor, size, count):
            return wrong(right(optimizer, group, tensor, size, count), size)

        for module in (proximal, dual_averaging):
            monkeypatch.setattr(module, "prox_step", faulty)

    return plant


def wrong_function(module, name, make):
    def plant(monkeypatch):
        monkeypatch.setattr(module, name, make(getattr(module, name)))

    return plant


def penalty_per_micro_batch(monkeypatch):
    """FIELD 4.3: the strength counted once per micro-batch."""
    right = Proximal.after_step

    def faulty(self):
        self.strength *= 4
        right(self)

    monkeypatch.setattr(Proximal, "after_step", faulty)


def balanced_start(w, depth):
    size = w.detach().abs().sqrt()
    return [torch.nn.Parameter(size.clone()), torch.nn.Parameter(size * w.detach().sign())]


def revived_by_momentum(monkeypatch):
    """FIELD 4.9, the other way round: the prox before the step, so that zeros never last."""
    monkeypatch.setattr(Proximal, "before_step", Proximal.after_step)
    monkeypatch.setattr(Proximal, "after_step", lambda self: None)


def decayed_without_coupling(monkeypatch):
    """FIELD 1: factors under a decay that Adam's metric does not see."""

    def faulty(self):
        strength, self.strength = self.strength, 0.0
        right(self)
        self.strength = strength
        for parts in self.factors:
            for part in parts:
                part.mul_(1 - self.optimizer.param_groups[0]["lr"] * strength)

    right = Factorized.before_step
    monkeypatch.setattr(Factorized, "before_step", faulty)


GROUP = PROBLEMS["group lasso"]
FAULTS = {
    "no momentum factor": (LASSO, "momentum 0.9", Proximal, wrong_metric(lambda right, size: size)),
    "no metric of Adam": (LASSO, "adam", Proximal, wrong_metric(lambda right, size: size)),
    "1 % in the metric of SGD": (LASSO, "sgd", Proximal, wrong_metric(lambda r, s: 1.01 * r)),
    "1 % in the metric of Adam": (LASSO, "adam", Proximal, wrong_metric(lambda r, s: 0.99 * r)),
    "no metric of RMSprop": (LASSO, "rmsprop", Proximal, wrong_metric(lambda right, size: size)),
    "RMSprop without its momentum": (
        LASSO, "rmsprop 0.9", Proximal, wrong_metric(lambda right, size: 0.1 * right)),
    "1 % in the metric of Adagrad": (
        LASSO, "adagrad", Proximal, wrong_metric(lambda right, size: 1.01 * right)),
    "dual averaging without momentum": (
        LASSO, "momentum 0.9", DualAveraging, wrong_metric(lambda right, size: size)),
    "dual averaging without Adam": (
        LASSO, "adam", DualAveraging, wrong_metric(lambda right, size: size)),
    "1 % in the threshold": (
        LASSO, "sgd", Proximal,
        wrong_function(prox, "soft_threshold",
                       lambda right: lambda w, s, *, out=None: right(w, 1.01 * s, out=out))),
    "1 % in the group's threshold": (
        GROUP, "sgd", Proximal,
        wrong_function(prox, "group_soft_threshold",
                       lambda right: lambda w, s, *, out=None: right(w, 1.01 * s, out=out))),
    "a mean of D in the group's threshold": (
        GROUP, "adam", Proximal,
        wrong_function(prox, "group_soft_threshold",
                       lambda right: lambda w, s, *, out=None: right(w, float(s.mean()), out=out))),
    "no width of the group": (
        GROUP, "sgd", Proximal,
        wrong_function(prox, "group_soft_threshold",
                       lambda right: lambda w, s, *, out=None: right(w, s / 2, out=out))),
    "Adam's root stops too early": (
        GROUP, "adam", Proximal,
        wrong_function(prox, "_group_norms",
                       lambda right: lambda w, t: w.flatten(1).norm(dim=1) - t.flatten(1).mean(1))),
    "the penalty per micro-batch": (LASSO, "sgd", Proximal, penalty_per_micro_batch),
    "the prox before the step": (LASSO, "sgd", Proximal, revived_by_momentum),
    "factors that are balanced": (
        LASSO, "sgd", Factorized, wrong_function(factorized, "factors", lambda r: balanced_start)),
    "factors decayed apart from Adam": (LASSO, "adam", Factorized, decayed_without_coupling),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_seen(fault, monkeypatch):
    problem, optimizer, solver, plant = FAULTS[fault]
    plant(monkeypatch)
    assert not agrees(problem, solve(problem, optimizer, solver=solver), 1e-6)


def test_the_problems_are_not_trivial():
    assert X.shape == (256, 20)
    for problem in PROBLEMS.values():
        if not isinstance(problem.penalty, penalties.L2):
            assert 0 < int((problem.optimum.abs() <= 1e-9).sum()) < problem.optimum.numel()
