"""Convex problems with known answers: the same objective, solved by other programs.

All are linear models on the same 256 samples of 20 features in 5 groups of 4; weights are (5, 4),
so that axis 0 is the group, or (3, 20) with one row per class.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import sklearn
import torch
from sklearn import linear_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from seg_l1 import penalties
from seg_l1.schedules import LearningRate
from seg_l1.scope import Rule, scope
from seg_l1.solvers.proximal import Proximal

SAMPLES, FEATURES, GROUPS = 256, 20, 5
ALPHA, GAMMA = 0.2, 3.0


def _samples() -> tuple[np.ndarray, np.ndarray]:
    """Correlated features, and a target from 5 of them."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((SAMPLES, FEATURES)) @ (
        np.eye(FEATURES) + 0.2 * rng.standard_normal((FEATURES, FEATURES))
    )
    truth = np.zeros(FEATURES)
    truth[:5] = [2, -1.5, 1, 0.5, -3]
    return x, x @ truth + 0.5 * rng.standard_normal(SAMPLES)


X, Y = _samples()
SIGNS = (np.random.default_rng(4).random(SAMPLES) < 1 / (1 + np.exp(-Y))) * 2.0 - 1
CLASSES = np.digitize(Y, np.quantile(Y, [1 / 3, 2 / 3]))


def squared(w: Tensor, x: Tensor, part: slice) -> Tensor:
    target = torch.from_numpy(Y[part]).to(x.dtype)
    return 0.5 * (x @ w.reshape(-1) - target).square().mean()


def logistic(w: Tensor, x: Tensor, part: slice) -> Tensor:
    target = torch.from_numpy(SIGNS[part]).to(x.dtype)
    return softplus(-(x @ w.reshape(-1)) * target).mean()


def softmax(w: Tensor, x: Tensor, part: slice) -> Tensor:
    return cross_entropy(x @ w.t(), torch.from_numpy(CLASSES[part]))


@dataclass(frozen=True)
class Problem:
    """loss(w) + alpha·R(w), the shape of w, and its optimum as another program finds it.

    `rate` multiplies the learning rates: the logistic losses are flatter than the squares.
    """

    penalty: penalties.Penalty
    alpha: float
    loss: Callable[[Tensor, Tensor, slice], Tensor]
    oracle: Callable[[], np.ndarray]
    shape: tuple[int, int] = (GROUPS, FEATURES // GROUPS)
    rate: float = 1.0

    def data(self, w: Tensor) -> Tensor:
        return self.loss(w.double(), torch.from_numpy(X), slice(None))

    def objective(self, w: Tensor) -> float:
        return float(self.data(w) + self.alpha * self.penalty.value(w.double()))

    @property
    def optimum(self) -> Tensor:
        return torch.from_numpy(_solved(self)).reshape(self.shape)


@cache
def _solved(problem: Problem) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.array(problem.oracle(), dtype=np.float64)


def _sklearn(model, target) -> Callable[[], np.ndarray]:
    return lambda: model.fit(X, target).coef_


def _saga(alpha: float) -> linear_model.LogisticRegression:
    l1 = {"penalty": "l1"} if sklearn.__version__ < "1.8" else {"l1_ratio": 1.0}
    return linear_model.LogisticRegression(
        **l1, C=1 / (SAMPLES * alpha), solver="saga", fit_intercept=False,
        tol=1e-13, max_iter=100_000, random_state=0,
    )  # fmt: skip


def _coordinate_descent(l1_ratio: float) -> linear_model.ElasticNet:
    return linear_model.ElasticNet(
        ALPHA, l1_ratio=l1_ratio, fit_intercept=False, tol=1e-14, max_iter=100_000
    )


def _celer() -> np.ndarray:
    from celer import GroupLasso

    size = FEATURES // GROUPS
    weights = np.full(GROUPS, size**0.5)
    model = GroupLasso(groups=size, alpha=ALPHA, weights=weights, tol=1e-14, fit_intercept=False)
    return model.fit(X, Y).coef_


def _skglm_sparse_group() -> np.ndarray:
    from skglm import GeneralizedLinearEstimator
    from skglm.datafits import QuadraticGroup
    from skglm.penalties import WeightedL1GroupL2
    from skglm.solvers import GroupBCD
    from skglm.utils.data import grp_converter

    size = FEATURES // GROUPS
    indices, pointers = grp_converter(size, FEATURES)
    penalty = WeightedL1GroupL2(
        ALPHA, np.full(GROUPS, 0.5 * size**0.5), np.full(FEATURES, 0.5), pointers, indices
    )
    solver = GroupBCD(tol=1e-13, max_iter=10_000, fit_intercept=False, ws_strategy="fixpoint")
    model = GeneralizedLinearEstimator(QuadraticGroup(pointers, indices), penalty, solver)
    return model.fit(np.asfortranarray(X), Y).coef_


def _skglm_mcp() -> np.ndarray:
    from skglm import MCPRegression

    model = MCPRegression(alpha=ALPHA, gamma=GAMMA, fit_intercept=False, tol=1e-13)
    return model.fit(np.asfortranarray(X), Y).coef_


PROBLEMS = {
    "lasso": Problem(penalties.L1(), ALPHA, squared, _sklearn(_coordinate_descent(1.0), Y)),
    "elastic net": Problem(
        penalties.ElasticNet(0.7), ALPHA, squared, _sklearn(_coordinate_descent(0.7), Y)
    ),
    "ridge": Problem(
        penalties.L2(), ALPHA, squared,
        _sklearn(linear_model.Ridge(ALPHA * SAMPLES, fit_intercept=False, solver="cholesky"), Y),
    ),
    "logistic": Problem(penalties.L1(), 0.02, logistic, _sklearn(_saga(0.02), SIGNS), rate=3),
    "softmax": Problem(
        penalties.L1(), 0.02, softmax, _sklearn(_saga(0.02), CLASSES), shape=(3, FEATURES), rate=10,
    ),
    "group lasso": Problem(penalties.GroupL1(), ALPHA, squared, _celer),
}  # fmt: skip
SLOW = {  # half a minute of compilation
    "sparse group lasso": Problem(
        penalties.SparseGroupL1(0.5), ALPHA, squared, _skglm_sparse_group
    ),
    "mcp": Problem(penalties.MCP(knot=GAMMA * ALPHA), ALPHA, squared, _skglm_mcp),
}

OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.3}),
    "momentum 0.5": (torch.optim.SGD, {"lr": 0.15, "momentum": 0.5}),
    "momentum 0.9": (torch.optim.SGD, {"lr": 0.03, "momentum": 0.9}),
    "dampened": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    "nesterov": (torch.optim.SGD, {"lr": 0.03, "momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {"lr": 0.05, "betas": (0.9, 0.995)}),
    "amsgrad": (torch.optim.Adam, {"lr": 0.05, "betas": (0.9, 0.995), "amsgrad": True}),
    "adamw": (torch.optim.AdamW, {"lr": 0.05, "betas": (0.9, 0.995), "weight_decay": 0.0}),
    "nadam": (torch.optim.NAdam, {"lr": 0.05, "betas": (0.9, 0.995)}),
    "radam": (torch.optim.RAdam, {"lr": 0.05, "betas": (0.9, 0.995)}),
    "adamax": (torch.optim.Adamax, {"lr": 0.05, "betas": (0.9, 0.99)}),
    "adagrad": (torch.optim.Adagrad, {"lr": 1.0}),
    "adagrad decayed": (torch.optim.Adagrad, {"lr": 2.0, "lr_decay": 1e-3}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.05}),
    "rmsprop 0.9": (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.9}),
    "rmsprop centered": (torch.optim.RMSprop, {"lr": 0.03, "centered": True, "eps": 0.1}),
}
STEPS = {name: 1500 if name.startswith(("a", "nadam", "r")) else 1000 for name in OPTIMIZERS}
"""Adam's metric follows its gradients over 1/(1 − β₂) = 200 steps, and is kept for 2 (with torch's
β₂ = 0.999 it is 1000 and 8)."""


class Linear(nn.Module):
    """A weight, and the scope that penalizes it."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        start = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
        self.weight = nn.Parameter(0.3 * start)

    @property
    def tensors(self):
        return scope(self, (Rule(),))


def solve(
    problem: Problem,
    optimizer: str,
    *,
    steps: int | None = None,
    solver: type = Proximal,
    dtype: torch.dtype = torch.float64,
    batches: int = 1,
    accumulate: int = 1,
    clip: float | None = None,
    lr: float = 1.0,
    final: float = 1e-5,
    alpha: float | None = None,
    start: Tensor | None = None,
    **options,
) -> Tensor:
    """Trains on the problem with a rate that decays to `final`; returns w.

    Args:
        batches: mini-batches per epoch, drawn anew each epoch.
        accumulate: micro-batches per step.
        lr: multiplies the rate of the table.
        start: where to begin; its zeros stay zero (a refit on the support).
    """
    kind, settings = OPTIMIZERS[optimizer]
    settings = {**settings, "lr": lr * problem.rate * settings["lr"], **options}
    steps = steps or STEPS[optimizer]
    net = Linear(problem.shape, dtype)
    if start is not None:
        net.weight.data.copy_(start)
        net.weight.register_hook(lambda gradient: gradient * (start != 0))
    optimizer = kind(net.parameters(), **settings)
    penalty = solver(problem.penalty, net.tensors, optimizer)
    rate = LearningRate(steps, final=final)
    features = torch.from_numpy(X).to(dtype)
    parts = [slice(k, None, batches * accumulate) for k in range(batches * accumulate)]
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = settings["lr"] * rate(step)
        optimizer.zero_grad()
        for k in range(accumulate):
            part = parts[(step * accumulate + k) % len(parts)]
            (problem.loss(net.weight, features[part], part) / accumulate).backward()
        factor = 1.0
        if clip is not None:
            norm = nn.utils.clip_grad_norm_(net.parameters(), clip)
            factor = min(1.0, clip / (float(norm) + 1e-6))
        penalty.strength = (problem.alpha if alpha is None else alpha) * factor
        optimizer.step()
    penalty.flush()
    return net.weight.detach()


def gap(problem: Problem, w: Tensor) -> float:
    """How far the objective at w lies above the oracle's, relative to it."""
    best = problem.objective(problem.optimum)
    return (problem.objective(w) - best) / best


def same_support(problem: Problem, w: Tensor, zero: float = 0.0) -> bool:
    return torch.equal(w.abs() > zero, problem.optimum.abs() > 1e-9)
