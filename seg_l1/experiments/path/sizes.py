"""How small and how fast the compact networks along a path are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np

from seg_l1.compaction import CaptureError, CompactionError, Compactor
from seg_l1.deployment.timing import NetworkTimer
from seg_l1.display import terminal
from seg_l1.errors import UserError
from seg_l1.experiments.path.plan import Plan
from seg_l1.runs.files import read_json, write_json
from seg_l1.solvers.frozen import Frozen
from seg_l1.training.build import build

if TYPE_CHECKING:
    from seg_l1.data.split import SegmentationData
    from seg_l1.training.loop import Loop

SECONDS = 0.3
"""How long each network is timed, in alternation with the others."""


def shares(plan: Plan) -> np.ndarray:
    """(jobs, alphas), by falling alpha: multiply-adds of the compact network / of the dense one.

    NaN where that is not known.
    """
    compact, dense = (plan.scores(k) for k in ("compact/multiply_adds", "multiply_adds"))
    return compact / dense


def within(plan: Plan, budget: float) -> np.ndarray:
    """bool (alphas,), by falling alpha: whether the mean of the shares is within the budget.

    Raises:
        UserError: if none is.
    """
    mean = shares(plan).mean(0)
    found = mean <= budget
    if found.any():
        return found
    if np.isnan(mean).all():
        raise UserError(
            "path.budget: the sizes of the compact networks are not known; leave it out"
        )
    raise UserError(
        f"path.budget={budget:g}: the smallest network of this path has {np.nanmin(mean):.3f} of"
        " the multiply-adds; give larger values, as path.alphas=[...], or a larger budget"
    )


def latencies(plan: Plan, data: SegmentationData) -> dict[str, float]:
    """Returns milliseconds of one image in torch, by alpha (as text), and of "dense".

    These are the networks of the first job, at their last epochs. They are measured once, and kept
    in `latency.json`; {} where the network cannot be compacted.
    """
    file = plan.path / "latency.json"
    names = {f"{alpha:g}": position for position, alpha in enumerate(plan.order)}
    if file.is_file() and {*(known := read_json(file))} <= {"dense", *names}:
        return known
    loop = build(deepcopy(plan.config), plan.data(data, plan.jobs[0]), pretrained=False).loop
    model, example = loop.model.eval(), loop.fixed[0][0][:1]
    networks: dict[str, Any] = {"dense": deepcopy(model)}
    try:
        compactor = Compactor(model, example)
        for name, position in names.items():
            run = plan.point_run(plan.jobs[0], position)
            if run.last.is_file():
                model.load_state_dict(run.model_state("last"))
                networks[name] = compactor.compact().model.eval()
    except CaptureError:
        return {}
    except CompactionError as error:  # the path itself does not need it
        terminal.log.warning(f"note: the compact networks are not timed: {error}")
        return {}
    times = NetworkTimer(networks, example).ms(seconds=SECONDS * len(networks))
    write_json(file, times)
    return times


def relative(times: Mapping[str, float], alphas: list[float]) -> np.ndarray:
    """(alphas,): latency of the compact network / of the dense one, NaN where it is not known."""
    dense = times.get("dense", math.nan)
    return np.array([times.get(f"{alpha:g}", math.nan) / dense for alpha in alphas])


def cut(loop: Loop, budget: float) -> None:
    """Removes channels until the compact network is within a budget, if it is not.

    Args:
        loop: with the solver `frozen`, which from now on keeps them at zero.
        budget: share of the multiply-adds of the dense network.

    Raises:
        UserError: if no network is within it.
    """
    from seg_l1.compaction.budget import CostModel

    costs = CostModel(loop.model, loop.fixed[0][0][:1], "multiply_adds")
    if costs.cost() <= budget * costs.dense:
        return
    try:
        masks = costs.fit(budget * costs.dense, loop.objective.penalty, loop.solver.tensors)
    except ValueError as error:
        raise UserError(f"path.budget: {error}; give a larger one") from error
    frozen(loop).restrict(masks)


def frozen(loop: Loop) -> Frozen:
    """The solver of a loop that keeps zeros."""
    assert isinstance(loop.solver, Frozen)
    return loop.solver
