"""What share of a training step the penalty costs: the prox timed directly, between whole steps.

    python benchmarks/penalty_cost.py
    python benchmarks/penalty_cost.py --networks unet --peers

Targets, of a training step with SGD / with Adam: at most 0.5 / 1 % on the default U-Net, 1 / 2 % on
lraspp_mobilenet_v3_large (128x128, batch 8), 2 / 5 % on deeplabv3_resnet50 (64x64, batch 4), groups
at most twice that. Beside the prox stand the naive penalty, `sum(p.abs().sum() ...)` through
autograd (forward and backward of the penalty alone), and with --peers what other libraries do in
its place: torch-pruning's `regularize` and torchao's proximal prototype.

All contenders alternate in one process. The prox keeps Adam's thresholds for 8 steps, so that its
steps differ in cost: the result is the median, over blocks of 8 steps, of the mean of a block.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from seg_l1 import attach, penalties
from seg_l1.models.unet import UNet
from seg_l1.scope import scope

BLOCK = 8
CLASSES = 11


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        from torchvision.models import segmentation

        builder = getattr(segmentation, name)
        return builder(weights=None, weights_backbone=None, num_classes=CLASSES)

    return build


NETWORKS = {
    "unet": (lambda: UNet(3, CLASSES), (8, 3, 48, 48)),
    "lraspp": (_torchvision("lraspp_mobilenet_v3_large"), (8, 3, 128, 128)),
    "deeplab": (_torchvision("deeplabv3_resnet50"), (4, 3, 64, 64)),
}
OPTIMIZERS = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=1e-2, momentum=0.9),
    "adam": lambda weights: torch.optim.Adam(weights, lr=1e-3, eps=1e-5),
}
PENALTIES = {"l1": penalties.L1(), "group_l1": penalties.GroupL1()}


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def naive(model: nn.Module) -> None:
    """The penalty of the tutorials, forward and backward into existing gradients."""
    (1e-5 * sum(p.abs().sum() for p in model.parameters())).backward()


def torch_pruning(model: nn.Module, images: Tensor, kind: str) -> Callable[[], float]:
    """Its group-norm pruner adds a group penalty to the gradients, on its own dependency graph."""
    import torch_pruning as tp

    model = copy.deepcopy(model)
    loss = model(images)
    (loss["out"] if isinstance(loss, dict) else loss).sum().backward()
    importance = tp.importance.GroupMagnitudeImportance()
    pruner = tp.pruner.GroupNormPruner(model, images, importance=importance, reg=1e-5)
    pruner.update_regularizer()
    return lambda: seconds(lambda: pruner.regularize(model))


def torchao(model: nn.Module, images: Tensor, kind: str) -> Callable[[], float]:
    """Its prototype wraps the optimizer; timed is its step less one of the optimizer alone."""
    from torchao.prototype.pat.optim import PruneOptimizer

    plain, wrapped = copy.deepcopy(model), copy.deepcopy(model)
    entries = [[e.tensor for e in scope(net) if e.penalized] for net in (plain, wrapped)]
    for tensors in entries:
        for tensor in tensors:
            tensor.grad = torch.randn_like(tensor)
    alone = OPTIMIZERS[kind](entries[0])
    group = {"params": entries[1], "prox_type": "ProxLasso", "group_type": "ElemGrouper"}
    prune = PruneOptimizer(OPTIMIZERS[kind]([group]), reg_lambda=1e-5)
    return lambda: seconds(prune.step) - seconds(alone.step)


PEERS = {"torch-pruning": torch_pruning, "torchao": torchao}


class Penalized:
    """A network of its own, so that no other contender writes its weights, and its penalty."""

    def __init__(self, model: nn.Module, penalty: penalties.Penalty, optimizer: str) -> None:
        self.model = copy.deepcopy(model)
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.solver = attach(self.optimizer, self.model, penalty, alpha=1e-5)
        self.solver.detach()  # timed by hand, where its hooks would run
        self.optimizer.register_step_pre_hook(self._before)
        self.optimizer.register_step_post_hook(self._after)
        self.inside = 0.0

    def train(self, images: Tensor, masks: Tensor) -> tuple[float, float]:
        """Takes a step; returns its seconds without the penalty, and those of the penalty."""
        whole = seconds(lambda: self._step(images, masks))
        return whole - self.inside, self.inside

    def _step(self, images: Tensor, masks: Tensor) -> None:
        self.optimizer.zero_grad()
        out = self.model(images)
        cross_entropy(out["out"] if isinstance(out, dict) else out, masks).backward()
        self.optimizer.step()

    def _before(self, *_: object) -> None:
        self.inside = seconds(lambda: self.solver._on_start(self.optimizer, (self.optimizer,), {}))

    def _after(self, *_: object) -> None:
        self.inside += seconds(lambda: self.solver._on_end(self.optimizer))


def measure(network: str, optimizer: str, repeats: int, peers: bool) -> dict[str, float]:
    """Seconds of a training step without penalty, and of each penalty by itself."""
    build, shape = NETWORKS[network]
    model = build().to(memory_format=torch.channels_last)
    images = torch.randn(shape).to(memory_format=torch.channels_last)
    masks = torch.randint(0, CLASSES, (shape[0], *shape[2:]))
    penalized = {name: Penalized(model, penalty, optimizer) for name, penalty in PENALTIES.items()}
    contenders: dict[str, Callable[[], float]] = {"naive": lambda: seconds(lambda: naive(model))}
    for name, make in PEERS.items() if peers else ():
        try:
            contender = make(model, images, optimizer)
            contender()
            contenders[name] = contender
        except Exception as error:
            print(f"  {name} cannot: {type(error).__name__}: {error}")
    blocks: dict[str, list[float]] = {name: [] for name in ("step", *penalized, *contenders)}
    for block in range(repeats + 1):
        times: dict[str, list[float]] = {name: [] for name in blocks}
        for _ in range(BLOCK):
            for name, one in penalized.items():
                step, inside = one.train(images, masks)
                times["step"].append(step)
                times[name].append(inside)
            for name, call in contenders.items():
                times[name].append(call())
        if block:
            for name, some in times.items():
                blocks[name].append(statistics.mean(some))
    return {name: statistics.median(some) for name, some in blocks.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=12, help="blocks of 8 steps")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    for network in options.networks:
        weights = sum(e.tensor.numel() for e in scope(NETWORKS[network][0]()) if e.penalized)
        for optimizer in OPTIMIZERS:
            times = measure(network, optimizer, options.repeats, options.peers)
            step = times.pop("step")
            print(f"{network}, {optimizer}: {weights:,} weights, step {1e3 * step:.1f} ms")
            for name, each in times.items():
                print(
                    f"  {name:<14} {1e3 * each:8.3f} ms = {100 * each / step:5.2f} % of the step,"
                    f" {1e9 * each / weights:.2f} ns per weight",
                    flush=True,
                )


if __name__ == "__main__":
    main()
