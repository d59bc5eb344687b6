"""Composes a configuration from overrides; the only module that calls hydra for it."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Collection, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seg_l1.config.folders import CONF, config_folders, config_groups
from seg_l1.config.hyperparameters import store_defaults
from seg_l1.config.words import parse
from seg_l1.errors import UserError, first_line

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

ALONE = ("seed", "regularizer.alpha")
"""Keys on which no other value of the program's own files depends."""

_ENDLESS = "refers to itself, or is nested too deeply; write it out"


def compose_lines(lines: Sequence[str], folder: Path | None = None) -> DictConfig:
    """Returns what hydra composes of overrides as they are typed, its own section `hydra` too.

    Args:
        folder: the user's --config-dir.

    Raises:
        UserError: if they do not compose.
    """
    from hydra import compose, initialize_config_dir

    store_defaults(CONF, *([folder] if folder else []))
    if folder:
        lines = [*lines, f"hydra.searchpath=['{folder.absolute()}']"]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3", job_name="train"):
            return compose("config", list(lines), return_hydra_config=True)
    except UserError:
        raise
    except RecursionError:
        raise UserError(f"a value or a defaults list {_ENDLESS}") from None
    except (
        Exception
    ) as error:  # any error here comes from the overrides or from a YAML of the user's
        cause = f" ({first_line(error.__cause__)})" if error.__cause__ else ""
        raise UserError(f"{first_line(error)}{cause}") from error


class Composer:
    """Composes combinations of overrides, with the user's --config-dir of `flags`.

    Those that differ only in plain values of the keys `varying` are composed once.
    """

    def __init__(self, flags: Namespace, varying: Collection[str] = ()) -> None:
        self.folder = Path(flags.config_dir) if flags.config_dir else None
        groups = config_groups(*config_folders(flags))
        self.varying = {key for key in varying if key not in groups}
        self.composed: dict[tuple[str, ...], DictConfig] = {}
        self.resolved: dict[tuple[str, ...], dict[str, Any] | None] = {}

    def __call__(self, overrides: Sequence[Override]) -> DictConfig:
        """Returns the configuration of `overrides`, the section `hydra` included.

        Raises:
            UserError: if they do not compose; a file of the user's that is broken is named.
        """
        late = [
            override
            for override in overrides
            if override.key_or_group in self.varying
            and not (override.is_add() or override.is_force_add() or override.is_delete())
        ]
        early = tuple(str(o.input_line) for o in overrides if o not in late)
        if early not in self.composed:
            self.composed[early] = self._compose(early)
        config = self.composed[early].copy()
        for override in late:
            try:
                OmegaConf.update(config, override.key_or_group, override.value())
            except OmegaConfBaseException as error:
                raise UserError(first_line(error)) from error
        return config

    def plain(self, overrides: Sequence[Override]) -> dict[str, Any]:
        """Returns the resolved configuration of `overrides`, see `plain`.

        Those that differ only in the keys of `ALONE` are resolved once: a sweep of thousands of
        jobs mostly varies these.
        """
        alone = [o for o in overrides if o.key_or_group in ALONE and _is_number(o)]
        early = tuple(o.key_or_group if o in alone else str(o.input_line) for o in overrides)
        if early not in self.resolved:
            config = self(overrides)
            self.resolved[early] = None if _refers(config, ALONE) else plain(config)
        if (found := self.resolved[early]) is None:
            return plain(self(overrides))
        found = deepcopy(found)
        for override in alone:
            group, _, name = override.key_or_group.rpartition(".")
            (found[group] if group else found)[name] = override.value()
        return found

    def _compose(self, lines: Sequence[str]) -> DictConfig:
        try:
            return compose_lines(lines, self.folder)
        except UserError:
            for path in sorted(self.folder.rglob("*.yaml")) if self.folder else ():
                _check_yaml(path)
            raise


def _is_number(override: Override) -> bool:
    plain_word = not (override.is_add() or override.is_force_add() or override.is_delete())
    return plain_word and type(override.value()) in (int, float)


def _refers(config: DictConfig, keys: Collection[str]) -> bool:
    """Whether an interpolation may refer to one of the keys."""
    names = "|".join(key.rpartition(".")[2] for key in keys)
    text = OmegaConf.to_yaml(without_hydra(config), resolve=False)
    return re.search(rf"\$\{{[^}}]*\b({names})\b", text) is not None


def _check_yaml(path: Path) -> None:
    try:
        OmegaConf.load(path)
    except RecursionError:
        raise UserError(f"{path}: {_ENDLESS}") from None
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read as YAML ({reason})") from None


def compose_plain(lines: Sequence[str]) -> dict[str, Any]:
    """Returns the resolved configuration that overrides give, for programs that start no run.

    Args:
        lines: overrides, and --config-dir=<folder> where there is one.
    """
    flags, overrides = parse(lines)
    return plain(Composer(flags)(overrides))


def unresolved(typed: Any) -> list[str]:
    """Returns the words in a list of hydra's as they were typed, interpolations included."""
    found: Any = OmegaConf.to_container(typed, resolve=False)
    return [str(word) for word in found]


def without_hydra(config: DictConfig) -> DictConfig:
    """Returns a composed configuration without hydra's own section."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def plain(config: DictConfig) -> dict[str, Any]:
    """Returns the plain dicts, lists and values of a composed configuration, without hydra's.

    Raises:
        UserError: if a value that must be given is missing, or refers to nothing.
    """
    try:
        content = OmegaConf.to_container(without_hydra(config), resolve=True, throw_on_missing=True)
    except RecursionError:
        raise UserError(f"a value {_ENDLESS}") from None
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        if "Missing mandatory" in str(error):
            raise UserError(f"{key}: must be given, as {key}=<value>") from None
        hint = "; give that key a value" if "not found" in str(error) else ""
        raise UserError(f"{key}: {first_line(error)}{hint}") from None
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}
