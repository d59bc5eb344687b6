"""gradual: single weights go while the network is trained, the smallest of all layers first.

The share of zeros follows 1 - (1 - t)^3 of the target, from a tenth of the training until three
quarters of it, in cuts every 16 steps; a weight that is zero stays zero (Zhu and Gupta, 2017, "To
prune, or not to prune"). Weights are compared by their absolute values over all layers. The best
epoch is one with the whole share of zeros.

It cannot choose which zeros save multiply-adds, and stops at the share that it is given.
"""

from __future__ import annotations

import math

import torch

from benchmarks.budget.job import Job, Trained
from seg_l1.scope import local
from seg_l1.training.loop import Loop

BEGIN, END = 0.1, 0.75
"""Shares of the steps at which the first and the last weights go."""

EVERY = 16
"""Steps between two cuts."""


def train(job: Job) -> Trained:
    assert job.zeros is not None
    record = job.train(job.run, before_training=lambda loop: Gradual(loop, job.zeros))
    return Trained(record, [record])


class Gradual:
    """Cuts weights in the hooks of the optimizer of `loop`; it has no state but the zeros.

    Args:
        zeros: share of the penalized weights that are 0 in the end.
    """

    def __init__(self, loop: Loop, zeros: float) -> None:
        self.loop, self.zeros = loop, zeros
        self.tensors = [entry.tensor for entry in loop.tensors if entry.penalized]
        self.begin, self.end = (int(share * loop.total_steps) for share in (BEGIN, END))
        loop.optimizer.register_step_pre_hook(lambda *_: self.before_step())
        loop.optimizer.register_step_post_hook(lambda *_: self.after_step())

    def share(self, step: int) -> float:
        """Returns which share of the weights is to be 0 after `step`."""
        done = min(1.0, max(0.0, (step - self.begin) / max(1, self.end - self.begin)))
        return self.zeros * (1 - (1 - done) ** 3)

    @torch.no_grad()
    def before_step(self) -> None:
        """Notes which weights are zero, and takes their gradients away."""
        self.alive = [tensor != 0 for tensor in self.tensors]
        if self.loop.step < self.begin:
            self.alive = [torch.ones_like(mask) for mask in self.alive]
        for tensor, alive in zip(self.tensors, self.alive, strict=True):
            if tensor.grad is not None:
                local(tensor.grad).mul_(alive)

    @torch.no_grad()
    def after_step(self) -> None:
        """Keeps the zeros, and makes new ones where it is time for them."""
        loop = self.loop
        for tensor, alive in zip(self.tensors, self.alive, strict=True):
            tensor.mul_(alive)
        cut = loop.step >= self.begin and (loop.step - self.begin) % EVERY == 0
        if (cut and loop.step < self.end) or loop.step == self.end:
            self.cut(self.share(loop.step))
        if loop.step < self.end + loop.steps_per_epoch:
            loop.best_miou = -1.0  # so that no epoch with fewer zeros is the best

    def cut(self, share: float) -> None:
        """Sets the smallest weights to 0 until they are `share` of all."""
        sizes = torch.cat([tensor.abs().flatten() for tensor in self.tensors])
        count = math.ceil(share * len(sizes))
        if count:
            threshold = sizes.kthvalue(count).values
            for tensor in self.tensors:
                tensor.mul_(tensor.abs() > threshold)
