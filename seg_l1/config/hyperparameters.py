"""Hyperparameters of penalties, as the options in `conf/regularizer` declare them.

An option declares a hyperparameter by a key with its default, and by the same key under `penalty:`,
as in `tau: ${regularizer.tau}`. Every option gets the hyperparameters of all others, by way of
`_base.yaml`, so that a sweep over regularizers and hyperparameters composes. The class of the
penalty decides which values are allowed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from seg_l1.config.limits import LIMITS
from seg_l1.errors import UserError, decode_hint, did_you_mean, first_line

GROUP = "regularizer"


@dataclass(frozen=True)
class Option:
    """What a file of `conf/regularizer` says about its penalty.

    Attributes:
        name: of the option, the stem of the file.
        target: dotted path of the class of the penalty, "" where another file names it.
        defaults: the default of each hyperparameter.
    """

    name: str
    target: str
    defaults: dict[str, Any]


def options(*folders: Path) -> list[Option]:
    """Returns the options that lie in configuration folders; files that cannot be read have none.

    Args:
        folders: `conf/`, and the user's --config-dir where there is one.
    """
    files = [file for folder in folders for file in sorted((folder / GROUP).glob("[!_]*.yaml"))]
    return [option for file in files if (option := _read(file, file.stat().st_mtime_ns))]


@cache
def _read(file: Path, modified: int) -> Option | None:
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
        penalty = content.get("penalty") or {}
        names = [key for key in penalty if content.get(key, "???") != "???"]
        return Option(
            file.stem, penalty.get("_target_", ""), {name: content[name] for name in names}
        )
    except Exception:  # whatever is wrong with a file, hydra says it if the file is chosen
        return None


def store_defaults(*folders: Path) -> None:
    """Stores the configuration `regularizer/_hyperparameters`, which `_base.yaml` includes.

    It holds the defaults of the hyperparameters of all options in `folders`. Hydra hands what is
    stored to the processes of a launcher.
    """
    from hydra.core.config_store import ConfigStore

    defaults: dict[str, Any] = {}
    for option in options(*folders):
        defaults = {**option.defaults, **defaults}
    ConfigStore.instance().store("_hyperparameters", defaults, group=GROUP)


def hyperparameters(regularizer: Mapping[str, Any]) -> set[str]:
    """Returns the keys of a section `regularizer` that are hyperparameters of some penalty.

    Those of the chosen penalty are repeated in its node `penalty`, and the others have no effect.
    """
    return {key for key in regularizer if f"{GROUP}.{key}" not in LIMITS} - {"penalty"}


def penalty_name(regularizer: Mapping[str, Any]) -> str:
    """Returns the name of a regularizer: its key `name`, or else the class of its penalty.

    >>> penalty_name({"penalty": {"_target_": "seg_l1.penalties.ElasticNet"}})
    'elastic_net'
    """
    if regularizer.get("name"):
        return str(regularizer["name"])
    kind = str(regularizer["penalty"]["_target_"]).rsplit(".", 1)[-1]
    return "none" if kind == "Zero" else re.sub("(?<=[a-z])(?=[A-Z])", "_", kind).lower()


def check_hyperparameters(regularizer: Mapping[str, Any], *folders: Path) -> None:
    """Checks the hyperparameters in a composed section `regularizer`.

    Classes are imported, and torch with them, only if a value differs from its default.

    Raises:
        UserError: if a class refuses a value, no penalty has a key, or a choice belongs to another
            penalty.
    """
    declared = options(*folders)
    known = {name for option in declared for name in option.defaults}
    penalty = {key: value for key, value in regularizer["penalty"].items() if key != "_target_"}
    target = regularizer["penalty"]["_target_"]
    for key in sorted(hyperparameters(regularizer) - known - penalty.keys()):
        others = [f"{GROUP}.{name}" for name in {*known, *regularizer} - {key}]
        hint = did_you_mean(f"{GROUP}.{key}", sorted(others))
        raise UserError(f"{GROUP}.{key}: nothing reads this key.{hint}")
    for option in declared:
        values = {name: regularizer.get(name) for name in option.defaults}
        if values != option.defaults and option.target:
            _construct(option.target, values, GROUP)
        _check_choices(option, regularizer, penalty)
        if option.target == target and penalty not in (values, option.defaults):
            _construct(target, penalty, f"{GROUP}.penalty")


def _construct(target: str, values: Mapping[str, Any], where: str) -> None:
    """Makes a penalty, which checks its hyperparameters."""
    from hydra.utils import get_object

    try:
        kind = get_object(target)
    except Exception as error:  # whatever importing a module of the user's raises
        raise UserError(f"{GROUP}.penalty._target_: {first_line(error)}") from error
    try:
        kind(**values)
    except (TypeError, ValueError) as error:
        hint = next(filter(None, map(decode_hint, values.values())), "")
        raise UserError(f"{where}.{first_line(error)}{hint}") from error


def _check_choices(
    option: Option, regularizer: Mapping[str, Any], penalty: Mapping[str, Any]
) -> None:
    """Refuses a choice that the chosen penalty would ignore; numbers are swept over all."""
    for name, default in option.defaults.items():
        value = regularizer.get(name)
        if isinstance(value, str) and value != default and name not in penalty:
            kind = regularizer["penalty"]["_target_"].rsplit(".", 1)[-1]
            raise UserError(
                f"{GROUP}.{name}={value}: belongs to {GROUP}={option.name}, not to {kind}"
            )
