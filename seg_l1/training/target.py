"""A budget that the compact network of a run has to meet.

The penalty is steered until the network is small enough, and the rest of the epochs trains what is
left without a penalty, as the relaxed lasso does (Meinshausen, 2007).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seg_l1.compaction.budget import CostModel
from seg_l1.compaction.capture import CaptureError
from seg_l1.errors import UserError
from seg_l1.runs.files import Config
from seg_l1.solvers.dual_averaging import DualAveraging
from seg_l1.solvers.frozen import Frozen
from seg_l1.solvers.proximal import Proximal

if TYPE_CHECKING:
    from seg_l1.training.loop import Loop

FASTEST = 2.0
"""The largest change of α from one epoch to the next, as a factor."""


class Target:
    """Steers α until the compact network is within a budget, then removes channels to meet it.

    Before each epoch with a penalty the size that the compact network should have at its end is
    planned: on the way from the present size to the budget it falls by the same factor for the same
    sum of learning rates, since a step of the penalty is as long as the learning rate. If it is
    larger than planned at the end of the epoch, α is raised, and else lowered. After the last of
    these epochs, or as soon as the size is within the budget, channels are removed until the budget
    is met (`CostModel.fit`), the penalty ends, and only the channels that are left are trained. If
    the last epoch went below the budget by more than 2 %, they are those of the epoch before.

    Args:
        loop: before its first step.
        measure: what is counted, see `CostModel`.
        share: budget / size of the dense network.
        penalized: share of the epochs with a penalty.

    Attributes:
        asked: the share.
        budget: in units of the measure.
        multiplier: of α, at present.
        size: of the compact network when the present epoch began.
        met: whether the channels are fixed.

    Raises:
        UserError: if penalty or solver make no exact zeros at the end of a step, the network cannot
            be captured, the budget cannot be reached, or it is met without a penalty.
    """

    def __init__(self, loop: Loop, *, measure: str, share: float, penalized: float) -> None:
        key = f"target={measure} target.share={share:g}"
        penalty = loop.objective.penalty
        if not (hasattr(penalty, "prox") and not penalty.prox(torch.ones(2, 2), 1e6).any()):
            raise UserError(
                f"{key}: {type(penalty).__name__} makes no weights exactly zero; use another"
                " regularizer, such as group_l1"
            )
        if not isinstance(loop.solver, Proximal | DualAveraging):
            name = type(loop.solver).__name__.lower()
            raise UserError(
                f"{key}: cannot steer the solver {name}; use regularizer.solver=proximal"
            )
        try:
            self.costs = CostModel(loop.model, loop.fixed[0][0][:1], measure)
        except CaptureError as error:
            raise UserError(f"{key}: {error}") from error
        self.asked = share
        self.budget = math.floor(share * self.costs.dense)
        dense, least, present = self.costs.dense, self.costs.least(), self.costs.cost()
        if self.budget < least:
            raise UserError(
                f"{key}: with one channel in each layer the network has {least / dense:.2g} of its"
                f" {measure}; give a larger share"
            )
        if present <= self.budget:
            raise UserError(
                f"{key}: the network has {present / dense:.2g} of the {measure} of the dense one"
                " before training; give a smaller share"
            )
        self.last_epoch = max(1, round(penalized * loop.settings.epochs))
        if self.last_epoch >= loop.settings.epochs:
            raise UserError(f"{key}: no epoch is left after target.penalized={penalized:g} of them")
        self.multiplier, self.size, self.met = 1.0, present, False
        self.planned = 0.0  # the size at the end of the epoch, if α is as it should be
        self.decided = -1  # the epoch at whose beginning it was decided last
        planned = loop.schedule
        loop.schedule = lambda step: self.multiplier * planned(step)
        self.above: dict[str, Tensor] | None = None

    @property
    def share(self) -> float:
        """Size of the compact network / size of the dense one."""
        return self.size / self.costs.dense

    @property
    def fits(self) -> bool:
        """Whether the compact network is within the budget, as far as the channels are fixed."""
        return not self.met or self.size <= self.budget

    def after_epoch(self) -> dict[str, float]:
        """Measures the compact network; returns columns of `metrics.csv`."""
        self.size = self.costs.cost()
        return {"target/share": self.share, "target/multiplier": self.multiplier}

    def before_epoch(self, loop: Loop) -> None:
        """Changes α, or fixes the channels; does nothing if called a second time in an epoch."""
        if loop.epoch == self.decided or self.met:
            return
        self.decided = loop.epoch
        if self.size > self.budget and loop.epoch < self.last_epoch:
            self.above = {k: v.clone() for k, v in loop.model.state_dict().items()}
            if self.planned:
                self.multiplier *= min(FASTEST, max(1 / FASTEST, self.size / self.planned))
            self.planned = self.size * (self.budget / self.size) ** self._next_part(loop)
            return
        if self.size < 0.98 * self.budget and self.above is not None:
            loop.model.load_state_dict(self.above)
        masks = self.costs.fit(self.budget, loop.objective.penalty, loop.solver.tensors)
        self.size = self.costs.cost()
        self._freeze(loop, masks)

    def _next_part(self, loop: Loop) -> float:
        """The share of the coming epoch in the learning rates that are left for the penalty."""
        steps = loop.steps_per_epoch
        left = range(loop.step, loop.step + steps * (self.last_epoch - loop.epoch))
        rates = [loop.learning_rate(step) for step in left]
        return sum(rates[:steps]) / max(sum(rates), 1e-30)

    def _freeze(self, loop: Loop, masks: dict[str, Tensor]) -> None:
        """Ends the penalty, and keeps the channels that are not in `masks` at zero."""
        self.met, self.multiplier, self.above = True, 0.0, None
        loop.best_epoch, loop.best_miou = 0, -1.0
        loop.solver = self._frozen(loop)
        for index, scoped in enumerate(loop.solver.penalized_tensors):
            if scoped.name in masks:
                loop.solver.support[index].copy_(masks[scoped.name])

    @staticmethod
    def _frozen(loop: Loop) -> Frozen:
        before = loop.solver
        before.detach()
        return Frozen(before.penalty, before.tensors, loop.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Returns what the next decision depends on."""
        names = ("multiplier", "size", "met", "planned", "decided", "above")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any], loop: Loop) -> None:
        """Restores what `state_dict` returned; call it before the solver of `loop` is restored."""
        for name, value in state.items():
            setattr(self, name, value)
        if self.met:
            loop.solver = self._frozen(loop)


def make_target(config: Config, loop: Loop) -> Target | None:
    """Returns the target that `config` asks for; None if it asks for none."""
    asked = config.get("target") or {}  # older runs have no such section
    if not asked.get("measure"):
        return None
    return Target(
        loop, measure=asked["measure"], share=asked["share"], penalized=asked["penalized"]
    )
