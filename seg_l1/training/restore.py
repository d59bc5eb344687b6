"""Going on from the last checkpoint of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from seg_l1 import distributed
from seg_l1.errors import UserError
from seg_l1.runs import checkpoints
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.files import Config, blame_file
from seg_l1.training.build import Experiment, penalty_schedule
from seg_l1.training.instantiate import instantiate
from seg_l1.training.loop import Loop


@dataclass(frozen=True)
class Restored:
    """What was known of a run when it stopped.

    Attributes:
        elapsed: seconds of work so far.
        extended: see `RunSummary.extended`.
        notes: what is unusual about going on.
    """

    elapsed: float = 0.0
    extended: list[dict[str, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def compact_shapes(record: RunDirectory) -> dict[str, Tensor] | None:
    """Returns the state of a compact network from `last.pt`, in all processes; None if it is dense.

    Raises:
        UserError: if the checkpoint is damaged.
    """
    state = None
    if distributed.rank() == 0:
        checkpoint = checkpoints.load(record.last)
        with blame_file(record.last):
            state = checkpoints.compact_state(checkpoint)
    found: dict[str, Tensor] | None = distributed.broadcast_object(state)
    return found


def restore(experiment: Experiment, record: RunDirectory) -> Restored:
    """Restores loop and random generators from `last.pt`, which rank 0 reads for all processes.

    Raises:
        UserError: if the checkpoint is damaged, or does not fit the experiment.
    """
    state = distributed.broadcast_object(
        checkpoints.load(record.last) if distributed.rank() == 0 else None
    )
    if words := experiment.data.difference(state.get("fingerprint"), state.get("classes")):
        raise UserError(f"{record.last}: does not fit this run: {words}")
    with blame_file(record.last):
        _check_counters(experiment.loop, state["loop"])
        experiment.loop.load_state_dict(state["loop"])
        _check_moments(experiment.loop)
        checkpoints.set_random_state(state["random"])
        extended = [{**plan} for plan in state.get("extended", [])]
        found = _extension(experiment, state["config"])
        plans = [*extended, *([found[0]] if found else [])]
        notes = [
            f"until step {plan['step']} the schedules were those of {plan['epochs']} epochs: not"
            f" the same as a run of {experiment.loop.settings.epochs} epochs"
            for plan in plans
        ]
        return Restored(float(state["elapsed"]), plans, notes + ([found[1]] if found else []))


def _extension(experiment: Experiment, before: Config) -> tuple[dict[str, int], str] | None:
    """Returns what changes where a run goes on with another number of epochs than `before`.

    That is an entry of `RunSummary.extended`, and a note. None if learning rate and λ(t) of all
    steps so far are those of the new plan, so that it is the same run.
    """
    loop, epochs = experiment.loop, before["trainer"]["epochs"]
    if epochs == loop.settings.epochs or loop.step == 0:
        return None
    steps = loop.steps_per_epoch
    rate = instantiate("scheduler", before["scheduler"], total=steps * epochs)
    lam = penalty_schedule(before["regularizer"], steps, epochs)
    pairs = ((rate, loop.learning_rate), (lam, loop.schedule))
    if all(then(step) == now(step) for then, now in pairs for step in range(loop.step)):
        return None
    (last, now), (last_lam, lam_now) = ((f(loop.step - 1), g(loop.step)) for f, g in pairs)
    base = loop.base_rates[0]
    note = f"the learning rate goes on at {base * now:.3g}, the last step had {base * last:.3g}"
    if last_lam != lam_now and loop.target is None:  # which steers λ itself
        note += f"; λ goes on at {lam_now:.3g} after {last_lam:.3g}"
    return {"epochs": epochs, "step": loop.step}, note


def _check_counters(loop: Loop, state: dict[str, Any]) -> None:
    for name, own in loop.state_dict().items():
        if isinstance(own, int | float) and not isinstance(state[name], type(own)):
            raise ValueError(f"{name} is not a number")
    largest = {"batch": len(loop.train), "best_epoch": state["epoch"]}
    for name in ("epoch", "batch", "step", "best_epoch"):
        if not 0 <= state[name] <= largest.get(name, state[name]):
            raise ValueError(f"{name} is {state[name]}")


def _check_moments(loop: Loop) -> None:
    for weights, moments in loop.optimizer.state.items():
        for name, moment in moments.items():
            if torch.is_tensor(moment) and moment.shape not in (weights.shape, ()):
                raise ValueError(f"the shape of {name} is not that of its weights")
