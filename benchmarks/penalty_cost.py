"""What the penalty costs of a training step: the prox timed directly, between whole steps.

    python benchmarks/penalty_cost.py

Target: the proximal L1 step takes at most 0.5 % of a training step of the default network. Beside
it the naive penalty, `sum(p.abs().sum() for p in model.parameters())` through autograd, timed as
what it adds: forward and backward of the penalty alone. Medians of interleaved repetitions in one
process, since whole steps vary by several per cent from one to the next.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from seg_l1.build import build, load_data
from seg_l1.overrides import compose_plain


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def naive(model: torch.nn.Module) -> None:
    """The penalty of the tutorials, forward and backward into existing gradients."""
    (1e-5 * sum(p.abs().sum() for p in model.parameters())).backward()


def measure(overrides: list[str], repeats: int) -> dict[str, float]:
    """Median seconds of a training step without prox, of the prox, and of the naive penalty."""
    config = compose_plain(overrides)
    loop = build(config, load_data(config)).loop
    batches: list = []
    while len(batches) < repeats + 10:
        batches += list(loop.train.epoch(len(batches)))
    after_step, loop.solver.after_step = loop.solver.after_step, lambda strength: None
    times: dict[str, list[float]] = {"step": [], "prox": [], "naive": []}
    for batch in batches[: repeats + 10]:
        times["step"].append(seconds(lambda batch=batch: loop._train_step([batch])))
        times["prox"].append(seconds(lambda: after_step(loop.alpha)))
        times["naive"].append(seconds(lambda: naive(loop.model)))
        loop.step += 1
    weights = sum(entry.tensor.numel() for entry in loop.tensors if entry.penalized)
    return {"weights": weights, **{k: statistics.median(v[10:]) for k, v in times.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=150)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    for optimizer in ("optimizer=sgd", "optimizer=adam"):
        median = measure([optimizer, *options.overrides], options.repeats)
        weights = median.pop("weights")
        shares = [
            f"{name} {1e3 * median[name]:.3f} ms = {100 * median[name] / median['step']:.2f} %"
            f" of it, {1e9 * median[name] / weights:.2f} ns per weight"
            for name in ("prox", "naive")
        ]
        print(f"{optimizer}: step {1e3 * median['step']:.2f} ms; {'; '.join(shares)}")


if __name__ == "__main__":
    main()
