"""Checks of what the user typed, with a hint for every mistake.

Hydra accepts `+typo=1` and has no hint for a misspelled option or group.
"""

from __future__ import annotations

import inspect
import math
import re
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from seg_l1.config import limits
from seg_l1.config.commands import command_line
from seg_l1.config.compose import Composer, compose_lines, plain, without_hydra
from seg_l1.config.folders import CONF, config_folders, config_groups, group_options
from seg_l1.config.hyperparameters import check_hyperparameters
from seg_l1.config.identity import flatten
from seg_l1.config.words import MAX_JOBS, one_at_a_time, values
from seg_l1.errors import UserError, did_you_mean, first_line, short

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

_REMOVABLE = "only arguments of the optimizer can be taken away, as ~optimizer.betas"
_KEPT = ("optimizer._target_", "optimizer.lr")


def check_overrides(flags: Namespace, overrides: Sequence[Override]) -> DictConfig:
    """Checks every override of a run or a sweep, and every value of a sweep.

    Returns:
        The configuration that hydra composes of them, its own section `hydra` included; of a sweep
        that of the first values.

    Raises:
        UserError: on an unknown group, option or key, and on a value that makes no sense.
    """
    _check_sweep(flags, overrides)
    groups = [o for o in overrides if o.key_or_group in config_groups(*config_folders(flags))]
    for override in groups:
        _check_option(override, flags)
    others = [o for o in overrides if o not in groups and not re.match(r"hydra\b", o.key_or_group)]
    for override in overrides:
        _check_hydra(override)
    composer = Composer(flags, [o.key_or_group for o in overrides if o.is_sweep_override()])

    def check_keys() -> None:
        for chosen in one_at_a_time(groups):
            _check_keys(others, without_hydra(composer(chosen)))

    def composed(chosen: Sequence[Override]) -> DictConfig:
        try:
            return composer(chosen)
        except UserError:
            check_keys()  # has the better message
            raise

    if not all(map(_is_plain, others)):
        check_keys()
    first = composed(next(one_at_a_time(overrides)))
    _check_hydra_section(first.hydra, flags)
    if flags.cfg:
        return first
    for override in others:
        _check_value(override, override.key_or_group, override.value())
    targets = False
    for chosen in one_at_a_time(overrides):
        with _naming_the_job(overrides, chosen):
            config = plain(composed(chosen))
            limits.check(config)
            check_hyperparameters(config["regularizer"], *config_folders(flags))
            targets |= bool(config["target"]["measure"])
    if not targets:
        _check_target([o.key_or_group for o in overrides])
    return first


def _check_target(typed: Sequence[str]) -> None:
    """Rejects keys of a target where none was chosen; target=none may be given with them."""
    keys = [key for key in typed if key.startswith("target.")]
    if keys and "target" not in typed:
        measures = "multiply_adds, parameters, latency_ms or nonzeros"
        raise UserError(f"{keys[0]}: there is no target; give target={measures} too")


@contextmanager
def _naming_the_job(overrides: Sequence[Override], chosen: Sequence[Override]) -> Iterator[None]:
    """Context manager: adds to an error of one job of a sweep the values that lead to it."""
    try:
        yield
    except UserError as error:
        swept = [str(c.input_line) for o, c in zip(overrides, chosen, strict=True) if o is not c]
        if not swept or all(word.partition("=")[0] in str(error) for word in swept):
            raise
        raise UserError(f"{error} (in the job with {' '.join(swept)})", error.details) from error


def _check_sweep(flags: Namespace, overrides: Sequence[Override]) -> None:
    swept = [override for override in overrides if override.is_sweep_override()]
    if swept and not flags.multirun:
        line = swept[0].input_line
        raise UserError(f"{line}: several values make a sweep, which takes the flag -m")
    if math.prod(len(values(override)) for override in swept) > MAX_JOBS:
        raise UserError(f"{swept[0].input_line}: a sweep has at most {MAX_JOBS} jobs")


def _check_option(override: Override, flags: Namespace) -> None:
    group = override.key_or_group
    options = group_options(group, *config_folders(flags))
    if override.is_delete():
        raise UserError(f"{override.input_line}: {_REMOVABLE}")
    if override.package is not None:
        raise UserError(f"{override.input_line}: no package can be given; write {group}=<option>")
    for option in values(override):
        if option not in options:
            raise UserError(
                f"{group}: there is no option {short(option)}."
                f"{did_you_mean(option, options)} Options: {', '.join(options)}"
            )


def _check_hydra(override: Override) -> None:
    key, value = override.key_or_group, override.value()
    if key == "hydra.mode":
        raise UserError("hydra.mode: a sweep takes the flag -m")
    if key in ("hydra.run.dir", "hydra.sweep.dir") and value in (None, ""):
        raise UserError(f"{key}: got {short(value)}, expected a folder")


def _check_hydra_section(section: DictConfig, flags: Namespace) -> None:
    """Refuses a mode and a launcher that would fail later, and makes ~ the home in folders.

    All of these may come from a file of the user's.
    """
    if section.mode is not None and section.mode.name == "MULTIRUN" and not flags.multirun:
        raise UserError(
            "hydra.mode: is MULTIRUN in a file of yours; take it out there, and type the flag -m"
        )
    for node in (section.run, section.sweep):
        folder = OmegaConf.to_container(node, resolve=False)["dir"]  # type: ignore[call-overload,index]
        node.dir = str(Path(folder).expanduser()) if str(folder).startswith("~") else folder
    if "joblib" not in str(section.launcher.get("_target_")):
        return
    from joblib import Parallel

    options = {k: v for k, v in section.launcher.items() if k not in ("_target_", "backend")}
    try:
        Parallel(**options)([])  # joblib checks its options by itself
    except Exception as error:
        raise UserError(
            f"hydra.launcher: joblib refuses its options ({first_line(error)}); hydra.launcher."
            "n_jobs=2 runs two jobs at a time"
        ) from None


def _is_plain(override: Override) -> bool:
    """Whether an override gives a single key its value, so that hydra refuses it by itself."""
    changes = not (override.is_add() or override.is_force_add() or override.is_delete())
    return changes and override.key_or_group in limits.LIMITS


def _check_value(override: Override, key: str, value: object) -> None:
    """Checks the value that an override gives to `key`, if it is already a value."""
    line = str(override.input_line)
    if not (override.is_delete() or override.is_sweep_override() or "${" in line):
        limits.check_value(key, value)


def _check_keys(overrides: Sequence[Override], config: DictConfig) -> None:
    """Refuses keys that `config`, composed of the options alone, does not have."""
    content: Any = OmegaConf.to_container(config, resolve=False)
    known = [key for key, _ in flatten(content)]
    parents = {".".join(key.split(".")[:depth]) for key in known for depth in (1, 2)} - {*known}
    for override in overrides:
        key, value = override.key_or_group, override.value()
        if override.is_delete() and (not key.startswith("optimizer.") or key in _KEPT):
            raise UserError(f"~{key}: {_REMOVABLE}")
        if key in parents and not isinstance(value, dict):
            names = ", ".join(name for name in known if name.startswith(f"{key}."))
            raise UserError(f"{key}: holds keys, not a value: {names}")
        inside = dict(flatten({key: value})) if key in parents else {key: value}
        for name, one in inside.items():
            if name in known:
                _check_value(
                    override, name, one
                )  # before hydra rejects it with a message of its own
            elif not _accepts(config, name):
                raise UserError(_unknown(name, known))
            elif not (override.is_add() or override.is_force_add()):
                raise UserError(_unknown(name, known, added=f"+{override.input_line}"))


def _unknown(key: str, known: Sequence[str], added: str = "") -> str:
    """Returns a message: which option defines `key`, or which key is similar.

    Args:
        added: how to type the key as an additional argument, where that is possible.
    """
    group, _, name = key.partition(".")
    owners: dict[str, list[str]] = {}
    for option in group_options(group) if name else ():
        config: Any = OmegaConf.to_container(compose_lines([f"{group}='{option}'"]), resolve=False)
        for inside, _ in flatten(config.get(group) or {}, f"{group}."):
            owners.setdefault(inside, []).append(f"{group}={option}")
    if key in owners:
        return f"{key}: belongs to {', '.join(owners[key])}; choose it, or leave this key out"
    if added:
        return f"{key}: conf/ does not list this argument; give it as {added}"
    groups = sorted(path.name for path in CONF.iterdir() if path.is_dir())
    choices = [*known, *owners] if name else [*groups, *(k for k in known if "." not in k)]
    choices = [choice for choice in choices if not choice.endswith("._target_")]
    hint = did_you_mean(key, choices)
    if not name:  # the end of a longer key
        ends = [choice for choice in known if choice.endswith(f".{key}")]
        ends.sort(key="optimizer.alpha".__eq__)  # alpha is the strength of the penalty first
        hint = f" Did you mean '{ends[0]}'?" if ends else hint
    every = command_line("train", "--cfg", "job")
    return f"there is no key or group {short(key)}.{hint} (all of them: {every})"


def _accepts(config: DictConfig, key: str) -> bool:
    """Whether `key` names a further argument of what its node builds, as optimizer.foreach does."""
    from hydra.utils import get_object

    if key == "optimizer.metric":  # see `training/optimizer.py`
        return True

    parent, _, name = key.rpartition(".")
    target = OmegaConf.select(config, f"{parent}._target_") if parent else None
    given_by_build = ("params", "in_channels", "num_classes", "total", "differentiable")
    if target is None or name in given_by_build:
        return False
    return name in inspect.signature(get_object(target)).parameters
