"""The search space: which arguments define it, and which are the same for every trial."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seg_l1.config.check import check_overrides
from seg_l1.config.compose import compose_plain
from seg_l1.config.folders import config_folders, config_groups
from seg_l1.config.words import parse, prepared
from seg_l1.errors import UserError, did_you_mean
from seg_l1.experiments.recipe import expanded

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from seg_l1.runs.files import Config

CONFIG_DIR = "--config-dir"
"""The one flag that a search has; it is kept among its arguments, like a key."""

DEFAULTS = {"trials": "20", "objectives": "miou", "pruner": "median"}
OPTIONS = {"objectives": ("miou", "miou,zeros"), "pruner": ("median", "none")}

SPACES = (
    "log(a,b) with 0 < a < b, uniform(a,b) with a < b, int(a,b) with whole numbers a < b,"
    " or choice(a,b,...)"
)


def read_words(words: Mapping[str, str]) -> tuple[dict[str, BaseDistribution], Config]:
    """Returns the search space, and the configuration at its lower ends and first choices.

    Raises:
        UserError: if `train.py` or a search does not accept an argument; both ends of a range and
            all choices are checked.
    """
    for key, known in OPTIONS.items():
        if words[key] not in known:
            hint = did_you_mean(words[key], known)
            raise UserError(f"{key}: got '{words[key]}', expected {' or '.join(known)}.{hint}")
    if not words["trials"].isdecimal() or int(words["trials"]) < 1:
        raise UserError(f"trials: got '{words['trials']}', expected a whole number of at least 1")
    typed = overrides(words)
    _check_keys(typed)
    found = {key: distribution(key, value) for key, value in sorted(typed.items())}
    space = {key: spanned for key, spanned in found.items() if spanned is not None}
    if not space:
        raise UserError(f"nothing to search: give a key whose value is {SPACES}")
    for override in parse(lines({k: v for k, v in typed.items() if k not in space}))[1]:
        if override.is_sweep_override():
            line = override.input_line
            raise UserError(f"{line}: a search takes several values as choice(a,b,...)")
    ends = {key: _ends(spanned) for key, spanned in space.items()}
    joined = {key: ",".join(map(str, values)) for key, values in ends.items()}
    check_overrides(*parse(["-m", *lines({**typed, **joined})]))
    first = {key: values[0] for key, values in ends.items()}
    return space, compose_plain(lines({**typed, **first}))


def with_recipe(words: Mapping[str, str]) -> dict[str, str]:
    """Returns the arguments of a search, with those that `experiment=own` stands for."""
    fixed = {k: v for k, v in overrides(words).items() if distribution(k, v) is None}
    if fixed.get("experiment") != "own":
        return dict(words)
    added = [str(o.input_line).partition("=") for o in expanded(*parse(lines(fixed)))]
    return {**{key: value for key, _, value in added}, **words}


def _ends(spanned: Any) -> Sequence[Any]:
    """Returns both ends of a range, or all choices."""
    return getattr(spanned, "choices", None) or (spanned.low, spanned.high)


def distribution(key: str, value: str) -> BaseDistribution | None:
    """Returns the distribution that `value` describes, or None for a fixed value.

    Raises:
        UserError: if it looks like a distribution and is not valid.
    """
    from optuna import distributions

    found = re.match(r"(log|uniform|int|choice)\(", value)
    if not found:
        return None
    kind, inside = found[1], value[found.end() : -1]
    try:
        if kind == "choice":
            (override,) = parse([f"{key}={value}"])[1]
            if not override.is_sweep_override():
                raise ValueError
            return distributions.CategoricalDistribution(list(override.sweep_string_iterator()))
        first, last = inside.split(",")
        low, high = float(first), float(last)
        if not (value.endswith(")") and low < high and math.isfinite(high - low)):
            raise ValueError
        if kind == "int":
            return distributions.IntDistribution(int(first), int(last))
        return distributions.FloatDistribution(low, high, log=kind == "log")
    except (ValueError, OverflowError):
        raise UserError(f"{key}={value}: expected {SPACES}") from None


def _check_keys(typed: Mapping[str, str]) -> None:
    """Rejects options of `train.py` that a search does not have, and misspelled keys."""
    flag = {key: value for key, value in typed.items() if key == CONFIG_DIR}
    folders = config_folders(parse(lines(flag))[0])
    known = {*config_groups(*folders), *compose_plain(lines(flag))}
    for key in typed:
        if key.startswith("-") and key not in flag:
            raise UserError(f"{key}: there is no such flag (see --help)")
        if re.match(r"[+~]*(hydra\b|resume|sweep\.(job|plan_only)$)", key):
            raise UserError(f"{key}: a search plans its runs and their folders; see study=<folder>")
        if re.fullmatch(r"\w+", key) and key not in known:
            hint = did_you_mean(key, ["study", *DEFAULTS, *known])
            raise UserError(f"there is no key or group '{key}'.{hint}")


def overrides(words: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in words.items() if key not in DEFAULTS}


def lines(words: Mapping[str, Any]) -> list[str]:
    lines = (f"{k}={v}" if v != "" or not k.startswith("~") else k for k, v in words.items())
    return [prepared(line) for line in lines]
