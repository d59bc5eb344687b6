"""What the same α means under each optimizer: a lasso whose optimum is known.

    python benchmarks/one_alpha.py

Each contender trains 20 weights on 256 samples, the full batch in float64, with the same rates and
steps, and is judged by scikit-learn's solution: relative gap of the objective, and
number of non-zeros. A contender that minimizes the written objective has gap 0 in every column.
torchao's proximal prototype takes part where it is installed (`pip install -e ".[peers]"`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import Lasso
from torch import Tensor, nn
from torch.nn.functional import softshrink

sys.path.insert(0, str(Path(__file__).parents[1]))
from seg_l1 import attach, penalties
from seg_l1.schedules import LearningRate
from seg_l1.scope import Rule
from seg_l1.solvers.dual_averaging import DualAveraging
from seg_l1.solvers.factorized import Factorized
from seg_l1.solvers.proximal import Proximal
from seg_l1.solvers.subgradient import Subgradient

SAMPLES, FEATURES, ALPHA = 256, 20, 0.2
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.3}, 2000),
    "momentum 0.9": (torch.optim.SGD, {"lr": 0.03, "momentum": 0.9}, 2000),
    "adam": (torch.optim.Adam, {"lr": 0.05}, 5000),
    "nadam": (torch.optim.NAdam, {"lr": 0.05}, 5000),
    "radam": (torch.optim.RAdam, {"lr": 0.05}, 5000),
    "adamax": (torch.optim.Adamax, {"lr": 0.05}, 5000),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.9}, 2000),
    "adagrad": (torch.optim.Adagrad, {"lr": 1.0}, 2000),
}
"""Class, its options, steps."""

Step = Callable[[], object]


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


class Linear(nn.Module):
    """The weights, which begin small and random."""

    def __init__(self) -> None:
        super().__init__()
        start = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        self.weight = nn.Parameter(0.3 * start)

    def loss(self) -> Tensor:
        residual = torch.from_numpy(X) @ self.weight.reshape(-1) - torch.from_numpy(Y)
        return 0.5 * residual.square().mean()


@torch.no_grad()
def objective(w: Tensor) -> float:
    net = Linear()
    net.weight.data.copy_(w.reshape(5, 4))
    return float(net.loss() + ALPHA * w.abs().sum())


def ours(solver: type) -> Callable[[Linear, torch.optim.Optimizer], tuple[Step, Step]]:
    def make(net: Linear, optimizer: torch.optim.Optimizer) -> tuple[Step, Step]:
        rules = (Rule(),)
        attached = attach(optimizer, net, penalties.L1(), alpha=ALPHA, rules=rules, solver=solver)
        return optimizer.step, attached.flush

    return make


def threshold(net: Linear, optimizer: torch.optim.Optimizer) -> tuple[Step, Step]:
    """The common recipe: the optimizer's step, then a soft threshold of lr·α."""

    def step() -> None:
        optimizer.step()
        with torch.no_grad():
            softshrink(net.weight, optimizer.param_groups[0]["lr"] * ALPHA, out=net.weight)

    return step, lambda: None


def torchao(net: Linear, optimizer: torch.optim.Optimizer) -> tuple[Step, Step]:
    from torchao.prototype.pat.optim import PruneOptimizer

    optimizer.param_groups[0].update(prox_type="ProxLasso", group_type="ElemGrouper")
    return PruneOptimizer(optimizer, reg_lambda=ALPHA).step, lambda: None


CONTENDERS = {
    "proximal": ours(Proximal),
    "dual_averaging": ours(DualAveraging),
    "factorized": ours(Factorized),
    "subgradient": ours(Subgradient),
    "threshold lr*alpha": threshold,
    "torchao ProxLasso": torchao,
}


def solve(contender: Callable, name: str) -> Tensor:
    kind, options, steps = OPTIMIZERS[name]
    net = Linear()
    optimizer = kind(net.parameters(), **options)
    step, flush = contender(net, optimizer)
    rate = LearningRate(steps, final=1e-5)
    for index in range(steps):
        optimizer.param_groups[0]["lr"] = options["lr"] * rate(index)
        optimizer.zero_grad()
        net.weight.grad = None
        net.loss().backward()
        step()
    flush()
    return net.weight.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--optimizers", nargs="*", default=list(OPTIMIZERS), choices=OPTIMIZERS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = Lasso(ALPHA, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(X, Y)
    best = objective(torch.from_numpy(model.coef_))
    print(f"scikit-learn: {(abs(model.coef_) > 1e-9).sum()} of {FEATURES} weights are not zero")
    print(f"{'':<20}" + "".join(f"{name:>24}" for name in options.optimizers))
    for name, contender in CONTENDERS.items():
        cells = []
        for optimizer in options.optimizers:
            try:
                w = solve(contender, optimizer)
                gap = (objective(w) - best) / best
                cells.append(f"gap {gap:8.1e}, {int((w != 0).sum()):2d} left")
            except ImportError:
                cells.append("not installed")
            except ValueError:  # factors under Adagrad
                cells.append("refused")
        print(f"{name:<20}" + "".join(f"{cell:>24}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
