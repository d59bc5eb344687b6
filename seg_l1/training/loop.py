"""The training loop: it knows no files and no configuration, and yields a row per epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from seg_l1 import distributed
from seg_l1.data.batches import Batches
from seg_l1.data.labels import IGNORE
from seg_l1.errors import Diverged, Stopped
from seg_l1.losses import PerPixel, RegularizedLoss, data_term, main_logits
from seg_l1.metrics.optimality import NAMES, certificate, gradients, mapping_norm
from seg_l1.metrics.segmentation import ConfusionMatrix, scores
from seg_l1.metrics.sparsity import sparsity
from seg_l1.models import TrainingOutput
from seg_l1.models.drop_connect import DropConnect
from seg_l1.models.whole_batch import gather_outputs
from seg_l1.scope import ScopedTensor
from seg_l1.solvers import Solver
from seg_l1.training.evaluation import PerImage, Row, evaluate
from seg_l1.training.settings import Settings
from seg_l1.training.target import Target


@dataclass
class Loop:
    """Trains `model` on F = data term + α·λ(t)·R(w), and evaluates after every epoch.

    Attributes:
        model, objective: the network, and F, of which `solver` decides what is differentiated.
        optimizer: takes the steps.
        solver: applies the penalty in the hooks of the optimizer.
        tensors: all trainable tensors of the network, penalized or not.
        noise: calls the network in training, with weights dropped at random if so configured.
        train, val: batches of the two splits.
        fixed: the training batches on which the certificate of optimality is computed.
        classes: their names.
        alpha, schedule: α, and the function optimizer step -> λ(t).
        learning_rate: optimizer step -> factor of the optimizer's own learning rates.
        settings: how long to train, how to step.
        target: what the compact network has to meet, if anything.
    """

    model: nn.Module
    objective: RegularizedLoss
    optimizer: Optimizer
    solver: Solver
    tensors: list[ScopedTensor]
    noise: DropConnect
    train: Batches
    val: Batches
    fixed: list[tuple[Tensor, Tensor]]
    classes: list[str]
    alpha: float
    schedule: Callable[[int], float]
    learning_rate: Callable[[int], float]
    settings: Settings
    target: Target | None = None

    def __post_init__(self) -> None:
        device = next(self.model.parameters()).device
        self.epoch = self.batch = self.step = 0
        self.best_epoch, self.best_miou = 0, -1.0
        self.seconds = self.clipped = 0.0
        self.data_loss: Tensor | float = 0.0
        self.confusion = ConfusionMatrix(len(self.classes), device)
        self.base_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.settings.precision == "fp16")
        self.autocast = self.settings.autocast(device)

    @property
    def steps_per_epoch(self) -> int:
        """Number of optimizer steps per epoch."""
        return -(-len(self.train) // self.settings.accumulate)

    @property
    def total_steps(self) -> int:
        """Number of optimizer steps of the whole training."""
        return self.steps_per_epoch * self.settings.epochs

    @property
    def improved(self) -> bool:
        """Whether the last finished epoch is the best so far, by validation mIoU."""
        return self.best_epoch == self.epoch

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or early stopping ends the training."""
        patience = self.settings.early_stopping
        stale = patience is not None and self.epoch - self.best_epoch >= patience
        stale &= self.best_epoch > 0 and (self.target is None or self.target.met)
        return self.epoch >= self.settings.epochs or stale

    def rows(
        self,
        on_step: Callable[[Loop, float], None] = lambda loop, loss: None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> Iterator[Row]:
        """Trains on from the present state and yields the row of each finished epoch.

        Args:
            on_step: called every `log_every` steps, and at an epoch's end, with loop and data loss.
            should_stop: asked after every step.

        Raises:
            Diverged: when the loss is NaN or infinite.
            Stopped: after the step during which `should_stop()` became true.
        """
        if self.settings.compile:
            self.model.compile()
        while not self.finished:
            if self.target and self.batch == 0:
                self.target.before_epoch(self)
            self._train_epoch(on_step, should_stop)
            self.solver.flush()
            self._check_finite(weights=True)
            yield self._finish_epoch()

    def _train_epoch(
        self, on_step: Callable[[Loop, float], None], should_stop: Callable[[], bool]
    ) -> None:
        self.model.train()
        part = distributed.shard(self.train.batch_size)
        batches = self.train.epoch(self.epoch, start=self.batch, part=part)
        while self.batch < len(self.train):
            started = time.perf_counter()
            count = min(self.settings.accumulate, len(self.train) - self.batch)
            loss = self._train_step([next(batches) for _ in range(count)])
            self.data_loss += loss * count
            self.batch, self.step = self.batch + count, self.step + 1
            self.seconds += time.perf_counter() - started
            if self.step % self.settings.log_every == 0 or self.batch == len(self.train):
                self._check_finite()
                on_step(self, float(loss))
            if distributed.any_rank(should_stop()):
                self._check_finite(weights=True)
                distributed.all_reduce(self.confusion.counts)
                raise Stopped

    def _train_step(self, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Takes one optimizer step on several micro-batches; returns their data loss.

        Micro-batches are weighted by their labeled pixels, in all processes together. For a loss
        that is `PerPixel` this is the loss of one large batch.
        """
        self.solver.strength = self.strength
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * self.learning_rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        total, criterion, processes = torch.zeros(()), self.objective.criterion, 1
        valid = [(masks != IGNORE).sum() for _, masks in batches]
        labeled = torch.stack(valid).sum()
        distributed.all_reduce(labeled)
        labeled = labeled.clamp_min(1)
        for (images, masks), pixels in zip(batches, valid, strict=True):
            with self.autocast:
                output: Tensor | TrainingOutput = self.noise(self.model, images)
            self.confusion.update(main_logits(output).detach().argmax(1), masks)
            if distributed.size() > 1 and not isinstance(criterion, PerPixel):
                output, masks = gather_outputs(output, masks, self.train.batch_size)
                pixels, processes = (masks != IGNORE).sum(), distributed.size()
            data = data_term(criterion, output, masks) * (pixels / labeled)
            self.scaler.scale(data).backward()
            total = total.to(data.device) + data.detach()
        total = distributed.all_reduce_gradients(self.model.parameters(), total / processes)
        self.scaler.unscale_(self.optimizer)
        self._clip()
        self.scaler.step(self.optimizer)  # the hooks of the optimizer end in the prox
        self.scaler.update()
        return total

    @property
    def strength(self) -> float:
        """α·λ(t) at the present step."""
        return self.alpha * self.schedule(self.step)

    def _clip(self) -> None:
        """Clips the gradients, and counts the steps where that changes them.

        Clipping by norm scales the penalty too (`Solver.clip_grad_norm_`). Clipping by value has no
        single factor, so α counts for more while it is active.
        """
        weights, clipped = list(self.model.parameters()), False
        if self.settings.clip_norm is not None:
            norm = self.solver.clip_grad_norm_(self.settings.clip_norm)
            clipped = bool(norm > self.settings.clip_norm)
        if self.settings.clip_value is not None:
            largest = nn.utils.clip_grad_norm_(weights, math.inf, norm_type=math.inf)
            clipped |= bool(largest > self.settings.clip_value)
            nn.utils.clip_grad_value_(weights, self.settings.clip_value)
        self.clipped += clipped

    def _check_finite(self, *, weights: bool = False) -> None:
        """Checks the losses of the epoch so far, and with `weights` the last update too."""
        values = [torch.as_tensor(self.data_loss)]
        if weights:
            values += [tensor.detach().sum() for tensor in self.model.state_dict().values()]
        if not all(bool(torch.isfinite(value)) for value in values):
            raise Diverged(
                f"the loss is not finite at epoch {self.epoch + 1}, step {self.step}."
                " Try a lower optimizer.lr, or trainer.clip_norm=1."
            )

    def _finish_epoch(self) -> Row:
        val, _ = self.evaluate(self.val)
        distributed.all_reduce(self.confusion.counts)
        train = scores(self.confusion.counts)
        data = float(self.data_loss) / len(self.train)
        lam = self.schedule(self.step - 1)
        penalty = float(self.objective.penalty_term(self.alpha * lam).detach())
        self.epoch += 1
        sizes, fits = (self.target.after_epoch(), self.target.fits) if self.target else ({}, True)
        if (val["miou"] > self.best_miou and fits) or self.best_epoch == 0:
            self.best_epoch, self.best_miou = self.epoch, max(self.best_miou, val["miou"])
        row = {
            "epoch": self.epoch,
            "step": self.step,
            "lr": float(self.optimizer.param_groups[0]["lr"]),
            "lam": lam,
            "train/loss": data + penalty,
            "train/data_loss": data,
            "train/penalty": penalty,
            "train/miou": train["miou"],
            **{f"val/{name}": value for name, value in val.items() if "/" not in name},
            "gap/miou": train["miou"] - val["miou"],
            **sparsity(self.tensors),
            **sizes,
            **self._certificate(lam),
            "train/clipped": self.clipped / self.steps_per_epoch,
            "time/epoch_s": self.seconds,
            "time/images_per_s": len(self.train) * self.train.batch_size / self.seconds,
            **{f"val/{name}": value for name, value in val.items() if "/" in name},
        }
        self.batch, self.data_loss, self.clipped, self.seconds = 0, 0.0, 0.0, 0.0
        self.confusion.reset()
        return row

    def _certificate(self, lam: float) -> Row:
        """Returns the certificate of optimality on the fixed sample; NaN where none is due."""
        every, tensors = self.settings.kkt_every, self.solver.penalized_tensors
        if not (every and tensors and (self.epoch % every == 0 or self.finished)):
            return dict.fromkeys(NAMES, float("nan"))
        batches = self.fixed[distributed.rank() :: distributed.size()]
        grads = gradients(self.model, self.objective.criterion, batches=batches, tensors=tensors)
        self.solver.strength = strength = self.alpha * lam
        row = certificate(self.objective.penalty, tensors, grads=grads, strength=strength)
        return {**row, "kkt/mapping": mapping_norm(self.solver, grads)}

    def evaluate(self, batches: Batches, per_image: PerImage | None = None) -> tuple[Row, Tensor]:
        """Returns the scores of the present weights on a split, see `evaluation.evaluate`."""
        return evaluate(
            self.model,
            batches,
            self.objective.criterion,
            self.classes,
            tolerance=self.settings.boundary_tolerance,
            tile=self.settings.tile,
            overlap=self.settings.tile_overlap,
            autocast=self.autocast,
            per_image=per_image,
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next step depends on, except the random generators."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "solver": self.solver.state_dict(),
            "scaler": self.scaler.state_dict(),
            "confusion": self.confusion.counts.cpu(),
            "data_loss": float(self.data_loss),
            **({"target": self.target.state_dict()} if self.target else {}),
            **{name: getattr(self, name) for name in _COUNTERS},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.target:
            self.target.load_state_dict(state["target"], self)
        self.solver.load_state_dict(state["solver"])
        self.scaler.load_state_dict(state["scaler"])
        self.confusion.reset()
        if distributed.rank() == 0:  # the counts of all processes are summed
            self.confusion.load(state["confusion"])
        self.data_loss = state["data_loss"]
        for name in _COUNTERS:
            setattr(self, name, state[name])


_COUNTERS = ("epoch", "batch", "step", "best_epoch", "best_miou", "seconds", "clipped")
