"""What the same α means under each optimizer: a lasso whose optimum is known.

    python benchmarks/one_alpha.py

Each contender trains the 20 weights of `tests/oracles.py` on the full batch in float64, with the
same rates and steps, and is judged by scikit-learn's solution: relative gap of the objective, and
number of non-zeros. A contender that minimises the written objective has gap 0 in every column.
torchao's proximal prototype takes part where it is installed (`pip install -e ".[peers]"`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import softshrink

sys.path.insert(0, str(Path(__file__).parents[1]))
from seg_l1 import attach, penalties
from seg_l1.schedules import LearningRate
from seg_l1.scope import Rule
from seg_l1.solvers.dual_averaging import DualAveraging
from seg_l1.solvers.factorized import Factorized
from seg_l1.solvers.proximal import Proximal
from seg_l1.solvers.subgradient import Subgradient
from tests.oracles import OPTIMIZERS, PROBLEMS, STEPS, Linear, X, gap

LASSO = PROBLEMS["lasso"]
Step = Callable[[], object]


def ours(solver: type) -> Callable[[Linear, torch.optim.Optimizer], tuple[Step, Step]]:
    def make(net: Linear, optimizer: torch.optim.Optimizer) -> tuple[Step, Step]:
        rules = (Rule(),)
        attached = attach(
            optimizer, net, penalties.L1(), alpha=LASSO.alpha, rules=rules, solver=solver
        )
        return optimizer.step, attached.flush

    return make


def threshold(net: Linear, optimizer: torch.optim.Optimizer) -> tuple[Step, Step]:
    """The common recipe: the optimizer's step, then a soft threshold of lr·α."""

    def step() -> None:
        optimizer.step()
        with torch.no_grad():
            softshrink(net.weight, optimizer.param_groups[0]["lr"] * LASSO.alpha, out=net.weight)

    return step, lambda: None


def torchao(net: Linear, optimizer: torch.optim.Optimizer) -> tuple[Step, Step]:
    from torchao.prototype.pat.optim import PruneOptimizer

    optimizer.param_groups[0].update(prox_type="ProxLasso", group_type="ElemGrouper")
    return PruneOptimizer(optimizer, reg_lambda=LASSO.alpha).step, lambda: None


CONTENDERS = {
    "proximal": ours(Proximal),
    "dual_averaging": ours(DualAveraging),
    "factorized": ours(Factorized),
    "subgradient": ours(Subgradient),
    "threshold lr*alpha": threshold,
    "torchao ProxLasso": torchao,
}


def solve(contender: Callable, name: str) -> Tensor:
    kind, options = OPTIMIZERS[name]
    net, steps = Linear(LASSO.shape), STEPS[name]
    optimizer = kind(net.parameters(), **options)
    step, flush = contender(net, optimizer)
    rate, features = LearningRate(steps, final=1e-5), torch.from_numpy(X)
    for index in range(steps):
        optimizer.param_groups[0]["lr"] = options["lr"] * rate(index)
        optimizer.zero_grad()
        net.weight.grad = None
        LASSO.loss(net.weight, features, slice(None)).backward()
        step()
    flush()
    return net.weight.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--optimizers", nargs="*", default=["sgd", "momentum 0.9", "adam"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"scikit-learn: {int((LASSO.optimum.abs() > 1e-9).sum())} of 20 weights are not zero")
    print(f"{'':<20}" + "".join(f"{name:>24}" for name in options.optimizers))
    for name, contender in CONTENDERS.items():
        cells = []
        for optimizer in options.optimizers:
            try:
                w = solve(contender, optimizer)
                cells.append(f"gap {gap(LASSO, w):8.1e}, {int((w != 0).sum()):2d} left")
            except ImportError:
                cells.append("not installed")
        print(f"{name:<20}" + "".join(f"{cell:>24}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
