"""Layers that use the whole batch, of which each process holds a part: batch norm and dropout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from seg_l1 import distributed
from seg_l1.models import TrainingOutput
from seg_l1.models.drop_connect import STOCHASTIC_LAYERS


def convert_whole_batch(model: nn.Module, images: int) -> None:
    """Makes the layers of `model` train on batches of `images` images as in a single process.

    The model of each process gets its `distributed.shard` of them, which may be empty. Batch norms
    use the statistics of the whole batch; layers that drop something draw for the whole batch, with
    the same generator in every process, and use their part. (torch's SyncBatchNorm needs GPUs.)
    """
    if distributed.size() == 1:
        return
    for module in model.modules():
        kind = type(module)
        base: type[nn.Module]
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            base = _WholeBatchNorm
        elif kind.__name__.startswith(STOCHASTIC_LAYERS):
            base = _WholeBatchDropout
        else:
            continue
        module.__class__ = type(kind.__name__, (base, kind), {"images": images})


def gather_outputs(
    output: Tensor | TrainingOutput, target: Tensor, images: int
) -> tuple[Tensor | TrainingOutput, Tensor]:
    """Returns the outputs of all processes for a batch of `images` images, and its masks.

    Gradients flow back only into the part of this process, and only from its own loss.
    """
    if isinstance(output, TrainingOutput):
        main, aux = (distributed.gather_batch(part, images) for part in (output.main, output.aux))
        return TrainingOutput(main, aux, output.weight), distributed.gather_batch(target, images)
    return distributed.gather_batch(output, images), distributed.gather_batch(target, images)


class _WholeBatchNorm(nn.modules.batchnorm._BatchNorm):
    """A first base class for a batch norm: the statistics of all processes, in training mode."""

    images: int

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and distributed.is_distributed()):
            return super().forward(x)
        count: Tensor | None
        if self.images * x.shape[2:].numel() == 1:  # one value, see allow_single_value_batch_norm
            assert self.running_mean is not None and self.running_var is not None
            mean, var, count = self.running_mean, self.running_var, None
        else:
            mean, var, count = _statistics(x.detach())
            self._track(mean, var * (count / (count - 1)))
        return _Normalize.apply(x, self.weight, self.bias, mean, var, count, self.eps)

    def _track(self, mean: Tensor, unbiased_var: Tensor) -> None:
        steps = self.num_batches_tracked
        if self.running_mean is None or self.running_var is None or steps is None:
            return
        steps.add_(1)
        momentum = self.momentum or 1 / float(steps)
        self.running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
        unbiased_var = unbiased_var.to(self.running_var.dtype)
        self.running_var.mul_(1 - momentum).add_(unbiased_var, alpha=momentum)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns mean, variance (biased) and count per channel of x (N, C, ...) in all processes.

    The parts are merged as in Chan, Golub, LeVeque (1979), in float64.
    """
    dims = [0, *range(2, x.ndim)]
    own = torch.zeros(3, x.shape[1], dtype=torch.float64, device=x.device)
    if x.numel():
        wide = x.float() if x.dtype.itemsize < 4 else x
        own[0] = x.numel() // x.shape[1]
        own[2], own[1] = torch.var_mean(wide, dims, correction=0)
    count, mean, var = torch.stack(distributed.all_gather(own)).unbind(1)
    total = count.sum(0)
    center = (count * mean).sum(0) / total
    spread = (count * (var + (mean - center).square())).sum(0) / total
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return center.to(dtype), spread.to(dtype), total[0]


class _Normalize(torch.autograd.Function):
    """Batch norm with given statistics, which depend on the x of all processes.

    Without a `count` they are constants.
    """

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
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        shape, dims = (-1, *[1] * (x.ndim - 2)), [0, *range(2, x.ndim)]
        grad = grad.to(mean.dtype)
        normalized = (x - mean.view(shape)) * scale.view(shape)
        products = (grad, grad * normalized)
        sums = torch.stack([product.sum(dims, dtype=torch.float64) for product in products])
        # of this part only, since the gradients of all processes are summed later
        grad_bias, grad_weight = sums.to(mean.dtype, copy=True)
        if ctx.count is not None:
            distributed.all_reduce(sums)
            grad_mean, grad_var = (sums / ctx.count).to(mean.dtype)
            grad = grad - grad_mean.view(shape) - normalized * grad_var.view(shape)
        scale = scale if weight is None else scale * weight
        grad_x = (grad * scale.view(shape)).to(x.dtype)
        affine = (None, None) if weight is None else (grad_weight, grad_bias)
        return (grad_x, *affine, None, None, None, None)


class _WholeBatchDropout(nn.Module):
    """A first base class for a dropout: it draws for the whole batch, and uses its own part."""

    images: int

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and distributed.is_distributed()):
            return super().forward(x)
        ones = x.new_ones(self.images, *x.shape[1:])
        if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
            ones = ones.to(memory_format=torch.channels_last)  # numbers are drawn in this order
        return x * super().forward(ones)[distributed.shard(self.images)]
