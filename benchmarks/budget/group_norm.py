"""torch_pruning: GroupNormPruner of Torch-Pruning, with the recipe of its authors.

The dense network for half of the budget; a quarter with the pruner's regularization, which shrinks
groups of small norm more than others; then up to 400 small cuts by the norm of the groups until the
target is met; then the last quarter without regularization (Fang et al., 2023, "DepGraph"; method
`group_sl` of its `reproduce/main.py` with global pruning: strength 5e-4, norms divided by the
largest of their group). Its cuts are of several channels: where the last one misses the target by
more than 2 %, single filters in the order of `magnitude` go instead.

Where version 1.6.1 regularizes, it takes the axes of transposed convolutions for those of the
others, and fails on a U-Net, so it is shown them with the axes exchanged.

It cannot give exact zeros, its regularization passes through the metric of Adam like any other
gradient, and networks that its tracing does not follow are cut wrongly or not at all. Needs
`pip install "seg-l1[peers]"`.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.budget import magnitude
from benchmarks.budget.channels import LAYERS, Channels, filters_of
from benchmarks.budget.job import TOLERANCE, Job, Trained, split_epochs
from benchmarks.budget.pruned import BEFORE, pretrained
from seg_l1.errors import UserError
from seg_l1.metrics.sparsity import multiply_adds
from seg_l1.training.loop import Loop

STRENGTH = 5e-4
STEPS = 400


def train(job: Job) -> Trained:
    if find_spec("torch_pruning") is None:
        raise UserError('torch_pruning: is not installed; pip install "seg-l1[peers]"')
    before, sparse, after = split_epochs(job.epochs, BEFORE, (1 - BEFORE) / 2, (1 - BEFORE) / 2)
    dense = pretrained(job, before)
    example, classes = job.example, job.data.num_classes

    def regularize(loop: Loop) -> None:
        images = example.to(next(loop.model.parameters()).device)
        pruner = pruner_of(loop.model, images, classes)

        def hook(*_: object) -> None:
            with untransposed(loop.model):
                pruner.regularize(loop.model)

        loop.optimizer.register_step_pre_hook(hook)

    shrunk = job.phase(f"torch_pruning_{before}_{sparse}")
    job.train(shrunk, epochs=sparse, start=dense, before_training=regularize)
    record = job.train(
        job.run,
        epochs=after,
        start=lambda: pruned(job.network(shrunk), example, classes, job.target),
    )
    return Trained(record, [dense, shrunk, record])


def pruner_of(model: nn.Module, example: Tensor, classes: int) -> Any:
    """Returns the pruner; layers with as many outputs as classes are left alone."""
    import torch_pruning

    heads = [m for m in model.modules() if isinstance(m, LAYERS) and len(filters_of(m)) == classes]
    training = model.training
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = torch_pruning.pruner.GroupNormPruner(
            model.eval(),
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer="max"),
            reg=STRENGTH,
            global_pruning=True,
            pruning_ratio=1.0,
            iterative_steps=STEPS,
            ignored_layers=heads,
        )
    model.train(training)
    return pruner


@contextmanager
def untransposed(model: nn.Module) -> Iterator[None]:
    """Context manager: transposed convolutions look like others, with the output channels first.

    Their weights and gradients are views, so that what changes inside stays changed.
    """
    layers = [module for module in model.modules() if getattr(module, "transposed", False)]
    try:
        for layer in layers:
            _exchange(layer, transposed=False)
        yield
    finally:
        for layer in layers:
            _exchange(layer, transposed=True)


def _exchange(layer: nn.Module, *, transposed: bool) -> None:
    weight, grad = layer.weight, layer.weight.grad
    weight.grad = None  # it has to have the shape of the weight
    weight.data = weight.data.transpose(0, 1)
    weight.grad = None if grad is None else grad.transpose(0, 1)
    layer.transposed = transposed


def pruned(model: nn.Module, example: Tensor, classes: int, target: int) -> nn.Module:
    """Returns the network that the pruner makes of `model`, with at most `target` multiply-adds."""
    model = model.eval().requires_grad_(True)
    pruner = pruner_of(model, example, classes)
    before = model
    for _ in range(STEPS):
        before = copy.deepcopy(model)
        pruner.step()
        if (cost := multiply_adds(model, example)) <= target:
            break
    if cost >= (1 - TOLERANCE) * target:
        return model
    channels = Channels(before, example)
    return channels.meet(magnitude.ranking(channels), target).model
