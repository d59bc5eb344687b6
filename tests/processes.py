"""What test_distributed starts under torchrun: many short trainings, each from a configuration.

    python -m torch.distributed.run --nproc-per-node=2 -m tests.processes <file>

trains `CASES` and saves what came of them into the file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from seg_l1 import checkpoints, distributed, jobs
from seg_l1.build import build
from seg_l1.data.batches import Batches
from seg_l1.overrides import compose_plain
from seg_l1.penalties import Zero

COMMON = [
    "dataset.num_train=104", "dataset.num_val=23", "dataset.num_test=8", "dataset.image_size=[24,24]",
    "dataset.digits_per_scene=[1,2]", "dataset.batch_size=5", "trainer.epochs=1",
    "trainer.kkt_every=null",
]  # fmt: skip
"""20 steps of 5 images, of which one process has 3 and the other 2; 2 batches of validation."""

import os
UNET = ["model.width=4", "model.depth=1", *os.environ.get("EXTRA","").split()]
EXACT = ["proximal", "subgradient", "dual_averaging", "factorized"]
REGULARIZERS = {
    "none": ["proximal"],
    "l1": EXACT,
    "l2": EXACT[:3],
    "elastic_net": EXACT[:3],
    "group_l1": EXACT[:3],
    "sparse_group_l1": EXACT[:3],
    "mcp": EXACT[:2],
    "reweighted_l1": EXACT[:2],
    "bridge": EXACT[3:],
    "norm_scale_l1": EXACT,
    "dropout": ["proximal"],
    "drop_connect": ["proximal"],
}
"""Each with all solvers that take it; `none` and random regularisation leave them nothing to do."""

PAIRS = {
    f"{name}, {solver}": [*UNET, f"regularizer={name}", f"regularizer.solver={solver}"]
    for name, solvers in REGULARIZERS.items()
    for solver in solvers
}


def train(words: list[str], double: bool = False) -> dict[str, Any]:
    """Trains one configuration; returns weights and last row.

    Args:
        double: in float64, which shows whether a difference is one of rounding.
    """
    config = compose_plain([*COMMON, *words])
    with float64() if double else nullcontext():
        return _train(config)


@contextmanager
def float64() -> Iterator[None]:
    """Everything is computed in float64, also what seg_l1 computes in float32 for good reasons."""
    single, normalise = torch.Tensor.float, Batches.normalise
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    Batches.normalise = lambda self, images: normalise(self, images).double()
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.Tensor.float, Batches.normalise = single, normalise


def _train(config):
    checkpoints.seed_everything(config["seed"])
    loop = build(config, jobs.read_data(config)).loop  # read once
    rows = list(loop.rows())
    return {"weights": dict(loop.model.state_dict()), "row": rows[-1]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.join()
    double = "double" in sys.argv
    found = {name: train(words, double) for name, words in PAIRS.items()}
    if distributed.rank() == 0:
        torch.save(found, sys.argv[1])
    distributed.leave(0)
