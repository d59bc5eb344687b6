"""Going on from the last checkpoint of a run."""

from __future__ import annotations

from typing import Any

import torch

from seg_l1 import distributed
from seg_l1.errors import UserError
from seg_l1.runs import checkpoints
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.files import blame_file
from seg_l1.training.build import Experiment
from seg_l1.training.loop import Loop


def restore(experiment: Experiment, record: RunDirectory) -> float:
    """Restores loop and random generators from `last.pt`, which rank 0 reads for all processes.

    Returns:
        The seconds of work so far.

    Raises:
        UserError: if the checkpoint is damaged, or does not fit the experiment.
    """
    state = distributed.broadcast_object(
        checkpoints.load(record.last) if distributed.rank() == 0 else None
    )
    if state.get("fingerprint") != experiment.data.fingerprint:
        raise UserError(
            f"{record.last}: does not fit this run (it was trained on other data than dataset.root"
            " holds now)"
        )
    with blame_file(record.last):
        _check_counters(experiment.loop, state["loop"])
        experiment.loop.load_state_dict(state["loop"])
        _check_moments(experiment.loop)
        checkpoints.set_random_state(state["random"])
        return float(state["elapsed"])


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
