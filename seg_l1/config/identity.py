"""Which keys identify a run, and which may change without making it another run."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from seg_l1.config.hyperparameters import hyperparameters

PRESENTATION = (
    "traceback", "regularizer.name", "trainer.log_every", "trainer.pictures",
    "trainer.pictures_every", "trainer.kkt_every", "trainer.kkt_images", "trainer.compact",
    "dataset.show",
)  # fmt: skip
"""Keys that decide what is shown and measured along the way."""

MACHINE = (
    "device", "trainer.threads", "dataset.root", "dataset.download", "dataset.workers",
    "dataset.memory_mib",
)  # fmt: skip
"""Keys that decide where and with what a run computes."""

BUDGET = ("trainer.epochs", "trainer.early_stopping")
"""Keys that decide how long a run trains."""

START = "regularizer.schedule_start"
"""Fixed when trainer.epochs changes on resume, if it was a default share of the epochs."""

RAMP = "regularizer.schedule_epochs"
"""Fixed when trainer.epochs changes on resume, if it was null and so followed from that."""

COMMAND = ("resume", "resume_sweep", "sweep.on_error", "sweep.plan_only", "sweep.job")
"""Keys that tell the command what to do; they say nothing about a run."""

FREE = (*PRESENTATION, *MACHINE, *COMMAND)
"""Keys that may change when a sweep, a path or a search goes on."""

FREE_ON_RESUME = (*BUDGET, *MACHINE, *PRESENTATION)
"""Keys that may change when a run goes on."""


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, value) of everything that is not a mapping.

    >>> dict(flatten({"seed": 0, "model": {"width": 8}}))
    {'seed': 0, 'model.width': 8}
    """
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    where: str,
    free: Collection[str] = FREE,
    typed: Collection[str] | None = None,
) -> list[str]:
    """Returns a line "key: x in the `where`, now y" for each key that makes another run.

    Args:
        before, now: flat configurations, or the words that were typed, by their keys.
        free: keys that may differ.
        typed: of the keys that only one of both has, those that count; None = all of them. The
            others come from another version of this program.
    """
    counting = before.keys() ^ now.keys()
    if typed is not None:
        counting = counting & set(typed)
    keys = sorted((before.keys() & now.keys() | counting) - set(free))
    missing = "not given"
    return [
        f"{key}: {before.get(key, missing)} in the {where}, now {now.get(key, missing)}"
        for key in keys
        if key not in before or key not in now or before[key] != now[key]
    ]


def meaning(config: Mapping[str, Any], *, free: Collection[str] = COMMAND) -> str:
    """Returns a text that two configurations share if and only if they describe the same run.

    Hyperparameters of other penalties are ignored, alpha is ignored without a penalty, and so is
    what a schedule does not read.

    Args:
        free: keys that do not count. By default a run with another `device` or `trainer.threads` is
            another one, so that a sweep can compare them.
    """
    ignored = {*free}
    penalty = config["regularizer"]["penalty"]
    # what counts of the hyperparameters is in `penalty`
    others = {"name", *hyperparameters(config["regularizer"])}
    ignored |= {f"regularizer.{key}" for key in others}
    if penalty["_target_"].endswith(".Zero"):
        unused = ("alpha", "lam", "schedule", "cost")
        ignored |= {f"regularizer.{k}" for k in config["regularizer"] if k.startswith(unused)}
    if config["regularizer"].get("cost", "none") == "none":
        ignored.add("regularizer.cost_power")
    if not config.get("target", {}).get("measure"):
        ignored |= {f"target.{key}" for key in config.get("target", {})}
    if not config.get("dataset", {}).get("wrong_labels"):
        ignored.add("dataset.wrong_labels_by")
    schedule = config["regularizer"]["schedule"]
    if schedule == "constant":
        ignored.add(RAMP)
    if schedule != "decay":
        ignored.add("regularizer.schedule_multiple")
    kept = {key: value for key, value in flatten(config) if key not in ignored}
    return json.dumps(kept, sort_keys=True)


def duplicates(configs: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """Returns for each configuration the index of the first that describes the same run.

    None for the first of its kind.
    """
    first: dict[str, int] = {}
    indices = [first.setdefault(meaning(config), index) for index, config in enumerate(configs)]
    return [None if found == index else found for index, found in enumerate(indices)]
