"""The hyperparameters of a run in TensorBoard's table: a column for each key that was typed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from seg_l1.config.hyperparameters import hyperparameters, penalty_name
from seg_l1.config.identity import flatten
from seg_l1.config.words import key_of
from seg_l1.display.run_text import class_name, network_name

COLUMNS = {
    "regularizer.alpha": "alpha",
    "regularizer.solver": "solver",
    "optimizer.lr": "lr",
}
"""Keys with a shorter name. These columns are there whatever was typed, and so are `regularizer`,
`optimizer`, `network` and `seed`."""

_ASIDE = r"-|[+]*(hydra|resume|resume_sweep|sweep|path|start|debug|traceback|experiment)\b"

Value = float | str


def columns(config: Mapping[str, Any], words: Sequence[str]) -> dict[str, Value | None]:
    """Returns the value of each column, None where it has no meaning in this run.

    All jobs of a sweep have the same columns. A run without penalty has no alpha, and no run has
    the hyperparameters of another penalty than its own.

    Args:
        config: the resolved configuration.
        words: what was typed.
    """
    section = config["regularizer"]
    flat = dict(flatten(config))
    found: dict[str, Value | None] = {
        "regularizer": penalty_name(section),
        "optimizer": class_name(config["optimizer"]).lower(),
        "network": network_name(config["model"]),
        "seed": config["seed"],
    }
    for key, name in COLUMNS.items():
        found[name] = _value(flat[key]) if _matters(key, section) else None
    for word in words:
        key, typed = key_of(word), word.partition("=")[2]
        if typed and key not in COLUMNS and not re.match(_ASIDE, word):
            value = _value(flat[key]) if key in flat else typed.strip("'\"")
            found[key] = value if _matters(key, section) else None
    return found


def _matters(key: str, section: Mapping[str, Any]) -> bool:
    group, _, name = key.partition(".")
    if group != "regularizer" or name in ("", "dropout", "drop_connect"):
        return True
    if name in hyperparameters(section):
        return name in section["penalty"]
    return not section["penalty"]["_target_"].endswith(".Zero")


def _value(value: Any) -> Value:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return value if isinstance(value, int | float | str) else str(value)
