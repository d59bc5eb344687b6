"""Layers that see the whole batch, of which each process holds a part: batch norm and dropout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from seg_l1 import distributed
from seg_l1.models import TrainingOutput
from seg_l1.models.drop_connect import RANDOM


def convert_whole_batch(model: nn.Module, images: int) -> None:
    """Makes the layers of `model` train on batches of `images` images as in a single process.

    Of these the process gives the model its `distributed.shard`, which may be empty. Batch norms
    take the statistics of the whole batch; layers that drop something draw for the whole batch,
    with the same generator in every process, and take their part. (torch's SyncBatchNorm runs on
    GPUs alone.)
    """
    if distributed.size() == 1:
        return
    for module in model.modules():
        kind = type(module)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            base = _BatchNorm
        elif kind.__name__.startswith(RANDOM):
            base = _Drop
        else:
            continue
        module.__class__ = type(kind.__name__, (base, kind), {})
        module.images = images


def gather_outputs(
    output: Tensor | TrainingOutput, target: Tensor, images: int
) -> tuple[Tensor | TrainingOutput, Tensor]:
    """Returns what the networks of all processes made of a batch of `images`, and its masks.

    Gradients reach the part of this process, as far as they come from its own loss.
    """
    if isinstance(output, TrainingOutput):
        main, aux = (distributed.gather_batch(part, images) for part in (output.main, output.aux))
        return TrainingOutput(main, aux, output.weight), distributed.gather_batch(target, images)
    return distributed.gather_batch(output, images), distributed.gather_batch(target, images)


class _BatchNorm(nn.Module):
    """Before the class of a batch norm: the statistics of all processes while training."""

    images: int

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and distributed.is_distributed()):
            return super().forward(x)
        single = self.images * x.shape[2:].numel() == 1  # torch raises, layers._BatchNorm does this
        if single:
            mean, var, count = self.running_mean, self.running_var, None
        else:
            mean, var, count = _statistics(x.detach())
            self._track(mean, var, count)
        return _Normalise.apply(x, self.weight, self.bias, mean, var, count, self.eps)

    def _track(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        if self.track_running_stats:
            self.num_batches_tracked.add_(1)
            momentum = self.momentum or 1 / float(self.num_batches_tracked)
            self.running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
            unbiased = (var * (count / (count - 1))).to(self.running_var.dtype)
            self.running_var.mul_(1 - momentum).add_(unbiased, alpha=momentum)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance (biased) and count per channel of x (N, C, ...) over all processes.

    The parts are merged as in Chan, Golub, LeVeque (1979), in float64.
    """
    dims = [0, *range(2, x.ndim)]
    mine = torch.zeros(3, x.shape[1], dtype=torch.float64, device=x.device)
    if x.numel():
        wide = x.float() if x.dtype.itemsize < 4 else x
        mine[0] = x.numel() // x.shape[1]
        mine[2], mine[1] = torch.var_mean(wide, dims, correction=0)
    count, mean, var = torch.stack(distributed.all_gather(mine)).unbind(1)
    total = count.sum(0)
    center = (count * mean).sum(0) / total
    spread = (count * (var + (mean - center).square())).sum(0) / total
    kind = torch.float64 if x.dtype == torch.float64 else torch.float32
    return center.to(kind), spread.to(kind), total[0]


class _Normalise(torch.autograd.Function):
    """Batch norm with given statistics, which depend on the x of all processes (none: on no x)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        var: Tensor,
        count: Tensor | None,
        eps: float,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt())
        ctx.count = count
        return batch_norm(x, mean, var, weight, bias, eps=eps)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        shape, dims = (-1, *[1] * (x.ndim - 2)), [0, *range(2, x.ndim)]
        slope = slope.to(mean.dtype)
        unit = (x - mean.view(shape)) * scale.view(shape)
        sums = torch.stack([part.sum(dims, dtype=torch.float64) for part in (slope, slope * unit)])
        to_bias, to_weight = sums.to(
            mean.dtype, copy=True
        )  # of this part; the gradients are added up
        if ctx.count is not None:
            distributed.all_reduce(sums)
            shift, tilt = (sums / ctx.count).to(mean.dtype)
            slope = slope - shift.view(shape) - unit * tilt.view(shape)
        scale = scale if weight is None else scale * weight
        to_x = (slope * scale.view(shape)).to(x.dtype)
        absent = weight is None
        return (to_x, *((None, None) if absent else (to_weight, to_bias)), None, None, None, None)


class _Drop(nn.Module):
    """Before the class of a dropout: draws for the whole batch, and takes the part that is here."""

    images: int

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and distributed.is_distributed()):
            return super().forward(x)
        ones = x.new_ones(self.images, *x.shape[1:])
        if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
            ones = ones.to(memory_format=torch.channels_last)  # numbers are drawn in this order
        return x * super().forward(ones)[distributed.shard(self.images)]
