"""A budget that the network of a run has to meet.

The penalty is steered until the network is small enough, and the rest of the epochs trains what is
left without a penalty, as the relaxed lasso does (Meinshausen, 2007).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seg_l1.compaction.budget import MEASURES, CostModel
from seg_l1.compaction.capture import CaptureError
from seg_l1.compaction.nonzeros import NonzeroCount
from seg_l1.deployment.latency_model import LatencyModel
from seg_l1.deployment.onnx_file import ExportError
from seg_l1.errors import RunError, UserError, first_line
from seg_l1.runs.files import Config
from seg_l1.solvers.checks import name_of
from seg_l1.solvers.dual_averaging import DualAveraging
from seg_l1.solvers.frozen import Frozen
from seg_l1.solvers.proximal import Proximal

if TYPE_CHECKING:
    from seg_l1.training.loop import Loop

FASTEST = 2.0
"""The largest change of α from one epoch to the next, as a factor."""


class Target:
    """Steers α until the compact network is within a budget, then removes what is above it.

    The first epochs have no penalty, so that the network has begun to learn when the penalty
    chooses among its channels. Before each epoch with a penalty the size that the compact network
    should have at its end is planned: on the way from the present size to the budget it falls by
    the same factor for the same sum of learning rates, since a step of the penalty is as long as
    the learning rate. If it is larger than planned at the end of the epoch, α is raised, and else
    lowered. After the last of these epochs, or as soon as the size is within the budget, channels
    are removed until the budget is met (`fit` of the model of the size), the penalty ends, and only
    the channels that are left are trained. If the last epoch went below the budget by more than
    2 %, the weights from before that epoch are restored first. With "nonzeros" the size is the
    number of penalized weights that are not zero, and single weights take the place of channels.

    Args:
        loop: before its first step.
        measure: "multiply_adds", "parameters", "latency_ms" or "nonzeros".
        share: budget / size of the dense network.
        limit: the budget itself, in place of the share.
        runtime: whose latency it is, see `NetworkTimer`.
        dense: share of the epochs before the penalty.
        penalized: share of the epochs with a penalty; None = `penalized_share` of the budget.
        resumed: whether a state will be loaded, so that the budget has been checked.

    Attributes:
        key: what was asked for, as it is typed.
        budget: in units of the measure.
        multiplier: the present factor of α; 0 = no penalty.
        size: of the compact network, in units of the measure, when it was last measured.
        met: whether the channels, or the weights that are not zero, are fixed.

    Raises:
        UserError: if penalty or solver make no exact zeros at the end of a step, the network cannot
            be captured, the budget cannot be reached, or it is met without a penalty.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        measure: str,
        share: float = 0.25,
        limit: float | None = None,
        runtime: str = "torch",
        dense: float = 0.3,
        penalized: float | None = None,
        resumed: bool = False,
    ) -> None:
        self.key = f"target={measure} target."
        self.key += f"share={share:g}" if limit is None else f"limit={limit:g}"
        self._check(loop)
        try:
            self.costs = _size_model(loop, measure, runtime)
        except (CaptureError, ExportError) as error:
            raise UserError(f"{self.key}: {first_line(error)}") from error
        self.budget = share * self.costs.dense if limit is None else limit
        self.size = self.costs.cost()
        if not resumed:  # else another machine may have other latencies
            self._check_budget(loop, measure)
        if penalized is None:
            penalized = penalized_share(self.budget / self.costs.dense)
        self.epochs = epochs = loop.settings.epochs
        self.first_epoch = round(dense * epochs)
        self.last_epoch = max(self.first_epoch + 1, round((dense + penalized) * epochs))
        if self.last_epoch >= epochs:
            raise UserError(
                f"{self.key}: no epoch is left after target.dense={dense:g} and"
                f" target.penalized={penalized:g} of them"
            )
        self.multiplier, self.met = 0.0, False
        self.planned = 0.0  # the size at the end of the epoch, if α is as it should be
        self.decided = -1  # the epoch at whose beginning it was decided last
        planned = loop.schedule
        loop.schedule = lambda step: self.multiplier * planned(step)
        self.above: dict[str, Tensor] | None = None

    def _check(self, loop: Loop) -> None:
        penalty, solver = loop.objective.penalty, loop.solver
        if not (hasattr(penalty, "prox") and not penalty.prox(torch.ones(2, 2), 1e6).any()):
            raise UserError(
                f"{self.key}: {type(penalty).__name__} makes no weights exactly zero; use another"
                " regularizer, such as group_l1"
            )
        if not isinstance(solver, Proximal | DualAveraging):
            raise UserError(
                f"{self.key}: cannot steer the solver {name_of(solver)}; use"
                " regularizer.solver=proximal"
            )

    def _check_budget(self, loop: Loop, measure: str) -> None:
        dense = self.costs.dense
        least = self.costs.least(loop.objective.penalty, loop.solver.tensors)
        if self.budget < least:
            raise UserError(
                f"{self.key}: the smallest network has {least:.6g} {measure} ({least / dense:.2g}"
                " of the dense network); give a larger one"
            )
        if self.size <= self.budget:
            raise UserError(
                f"{self.key}: the network has {self.size:.6g} {measure} before training; give a"
                " smaller one"
            )

    @property
    def share(self) -> float:
        """Size of the compact network / size of the dense one."""
        return self.size / self.costs.dense

    @property
    def fits(self) -> bool:
        """Whether the network is within the budget; always True until the channels are fixed."""
        return not self.met or self.size <= self.budget

    def after_epoch(self) -> dict[str, float]:
        """Measures the compact network; returns columns of `metrics.csv`."""
        size = self.costs.cost()
        if self.met and isinstance(self.costs, LatencyModel):
            # an interpolated latency may rise where channels die after the last cut, a true one not
            size = min(size, self.size)
        self.size = size
        return {"target/share": self.share, "target/multiplier": self.multiplier}

    def before_epoch(self, loop: Loop) -> None:
        """Changes α, or fixes the channels; does nothing if called a second time in an epoch."""
        if loop.epoch in (self.decided, *range(self.first_epoch)) or self.met:
            return
        self.decided, self.multiplier = loop.epoch, self.multiplier or 1.0
        if self.size > self.budget and loop.epoch < self.last_epoch:
            self.above = {k: v.clone() for k, v in loop.model.state_dict().items()}
            if self.planned:
                self.multiplier *= min(FASTEST, max(1 / FASTEST, self.size / self.planned))
            self.planned = self.size * (self.budget / self.size) ** self._next_part(loop)
            return
        if self.size < 0.98 * self.budget and self.above is not None:
            loop.model.load_state_dict(self.above)
        try:
            masks = self.costs.fit(self.budget, loop.objective.penalty, loop.solver.tensors)
        except ValueError as error:
            raise RunError(f"target: {error}; give a larger budget") from error
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
        loop.solver.hold(masks)

    @staticmethod
    def _frozen(loop: Loop) -> Frozen:
        before = loop.solver
        before.detach()
        return Frozen(before.penalty, before.tensors, loop.optimizer)

    def state_dict(self) -> dict[str, Any]:
        """Returns what the next decision depends on."""
        names = (
            "multiplier", "size", "met", "planned", "decided", "above", "budget", "first_epoch",
            "last_epoch", "epochs",
        )  # fmt: skip
        return {"measured": self.costs.state_dict(), **{n: getattr(self, n) for n in names}}

    def load_state_dict(self, state: dict[str, Any], loop: Loop) -> None:
        """Restores what `state_dict` returned; call it before the solver of `loop` is restored."""
        self.costs.load_state_dict(state.get("measured", {}))
        left_out = {"measured"}
        if state.get("epochs") != self.epochs:  # the plan for the new number of epochs holds
            left_out |= {"first_epoch", "last_epoch", "epochs"}
        for name, value in state.items():
            if name not in left_out:
                setattr(self, name, value)
        if self.met:
            loop.solver = self._frozen(loop)


def penalized_share(share: float) -> float:
    """Returns the share of the epochs with a penalty for a budget: 0.3 to 0.5.

    The way to a small network is long: with 0.3 an eighth of the multiply-adds was reached by cuts
    that cost what the network had learned. For a quarter and more 0.3 is enough.

    >>> [round(penalized_share(share), 2) for share in (0.5, 0.25, 0.125, 0.05)]
    [0.3, 0.3, 0.5, 0.5]
    """
    return min(0.5, max(0.3, 0.3 + 0.2 * math.log2(0.25 / share)))


def make_target(config: Config, loop: Loop, *, resumed: bool = False) -> Target | None:
    """Returns the target that `config` asks for; None if it asks for none."""
    asked = config.get("target") or {}  # older runs have no such section
    if not asked.get("measure"):
        return None
    if config["regularizer"]["schedule_start"]:
        raise UserError(
            "regularizer.schedule_start: a target begins its penalty after target.dense of the"
            " epochs; give regularizer.schedule_start=0"
        )
    return Target(loop, **asked, resumed=resumed)


def _size_model(loop: Loop, measure: str, runtime: str) -> CostModel | LatencyModel | NonzeroCount:
    if measure == "nonzeros":
        return NonzeroCount(loop.solver.tensors)
    example = loop.fixed[0][0][:1]
    if measure in MEASURES:
        return CostModel(loop.model, example, measure)
    return LatencyModel(
        loop.model,
        example,
        runtime=runtime,
        penalty=loop.objective.penalty,
        tensors=loop.solver.tensors,
    )
