"""Resuming a run: checks that nothing typed would make it another run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from seg_l1.config import limits
from seg_l1.config.compose import compose_plain
from seg_l1.config.folders import config_groups
from seg_l1.config.identity import FREE_ON_RESUME, RAMP, START, flatten
from seg_l1.config.words import key_of
from seg_l1.errors import UserError, did_you_mean
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.trust import check_targets
from seg_l1.schedules import ramp_epochs

NEW_KEYS: dict[str, dict[str, Any]] = {
    "regularizer": {"cost": "none", "cost_power": 1.0},
    "target": {
        "measure": None,
        "share": 0.25,
        "limit": None,
        "runtime": "torch",
        "dense": 0.0,
        "penalized": 0.7,
    },
    "path": {"budget": None},
    "dataset": {"repeats": 1, "show": None, "wrong_labels": 0.0, "wrong_labels_by": "region"},
    "limit": {"seed": None},
    "trainer": {"compact": True},
}
"""Values equivalent to what versions without these keys did."""


def resumed(
    flags: Any, overrides: Sequence[Any]
) -> tuple[Path, dict[str, Any], list[str], list[str]]:
    """Returns directory, configuration, overrides and changed keys of the run to resume.

    The configuration is the saved one; hydra is not involved. The overrides are the original ones,
    with the values that were typed now.

    Raises:
        UserError: if there is no such run, or if something was typed that makes it another run.
    """
    typed = {override.key_or_group: override for override in overrides}
    run = RunDirectory.existing(str(typed.pop("resume").value()))
    if flags.multirun or any(key.startswith("hydra") for key in typed):
        raise UserError("resume: a run goes on in its own folder, without -m and hydra.*")
    config = run.read_config()
    _add_new_keys(config)
    try:
        limits.check(config)
    except UserError as error:
        raise UserError(f"{run.config}: {error}") from None
    check_targets(config, run.config)
    saved, words = dict(flatten(config)), []
    words += _keep_schedule(config, typed, [*map(key_of, run.read_overrides())])
    config["traceback"] = "debug" in typed and typed["debug"].value() == "true"
    for key, override in typed.items():
        value = override.value()
        if key == "debug" and value in ("true", "false"):
            continue
        if key in FREE_ON_RESUME and key in saved:
            parent, _, name = key.rpartition(".")
            (config[parent] if parent else config)[name] = value
            if value != saved[key]:
                words.append(str(override.input_line))
        elif key in config_groups():
            _same_option(run.path, key, value, config)
        elif key not in saved:
            raise UserError(f"there is no key '{key}' in {run.config}.{did_you_mean(key, saved)}")
        elif saved[key] != value:
            raise UserError(
                f"resume: {run.path} was made with {key}={saved[key]}, not {value}."
                f" Leave it out, or start a new run. You may change {', '.join(FREE_ON_RESUME)}."
            )
    limits.check(config)
    kept = [w for w in run.read_overrides() if key_of(w) not in map(key_of, words)]
    return run.path, config, [*kept, *words], [*map(key_of, words)]


def _add_new_keys(config: dict[str, Any]) -> None:
    """Gives the configuration of an older run the keys that it does not have."""
    for section, values in NEW_KEYS.items():
        node = config.setdefault(section, {})
        if isinstance(node, dict):
            missing = {k: v for k, v in values.items() if k != "show" or "channels" in node}
            config[section] = {**missing, **node}  # only folders of images have `show`


def _keep_schedule(
    config: dict[str, Any], typed: Collection[str], before: Collection[str]
) -> list[str]:
    """Pins what λ(t) derives from the number of epochs, in `config`, before that number changes.

    Otherwise λ(t) would jump. Returns the overrides that pin it.

    Args:
        typed: keys that were typed now.
        before: keys that were typed when the run began.
    """
    regularizer, epochs = config["regularizer"], config["trainer"]["epochs"]
    start, length = regularizer["schedule_start"], regularizer["schedule_epochs"]
    if "trainer.epochs" not in typed:
        return []
    words = [f"{START}={start}"] if start and START not in before else []
    if length is None and regularizer["schedule"] != "constant":
        length = ramp_epochs(regularizer["schedule"], start, None, epochs=epochs)
        regularizer["schedule_epochs"] = length
        words.append(f"{RAMP}={length}")
    return words


def _same_option(run: Path, group: str, option: str, config: dict[str, Any]) -> None:
    """Accepts an option that matches the run, such as `model=unet` for a U-Net."""
    try:
        now = compose_plain([f"{group}={option}"]).get(group, {})
    except UserError:
        now = {}
    then = config.get(group, {})
    key = "penalty" if group == "regularizer" else "_target_"
    if key not in now or now[key] != then.get(key):
        raise UserError(
            f"resume: {run} was not made with {group}={option}. Leave it out, or start a new run."
        )
