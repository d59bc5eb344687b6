"""Which names of code a file may contain: runs and checkpoints may be untrusted."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from seg_l1.errors import UserError, short
from seg_l1.runs.files import read_yaml

TARGETS = {
    "model": r"seg_l1\.models\.\w+\.[A-Z]\w+",
    "dataset": r"seg_l1\.data\.((digits|folder)\.load|standard\.(mnist|voc|oxford_pet|cityscapes))",
    "augmentation": r"seg_l1\.data\.augment\.Augmentation|None",
    "loss": r"seg_l1\.losses\.[A-Z]\w+",
    "optimizer": r"torch\.optim\.[A-Z]\w+",
    "scheduler": r"seg_l1\.schedules\.[A-Z]\w+",
    "regularizer.penalty": r"seg_l1\.penalties\.[A-Z]\w+",
}
"""Accepted `_target_` names of configurations in files, unless `TRUST` is set."""

TRUST = "SEG_L1_TRUST"


def check_targets(config: Mapping[str, Any], source: object) -> None:
    """Rejects the configuration in the file `source` if it would call foreign code.

    What a user types is trusted; a run or checkpoint may come from anybody.

    Raises:
        UserError: naming the section and what it would call, unless `trusted`.
    """
    if trusted():
        return
    for key, name in _foreign(config):
        raise UserError(
            f"{source}: {key} calls {short(name)}, which is not of this program. If you trust that"
            f" file, set the environment variable {TRUST}=1."
        )


def check_folder(folder: Path, source: object) -> None:
    """Rejects the configuration folder that the file `source` names if it might call foreign code.

    Raises:
        UserError: with the flag by which the user trusts that folder, unless `trusted`.
    """
    for file in () if trusted() else sorted(folder.rglob("*.yaml")):
        text = file.read_text("utf-8", errors="replace")
        with suppress(Exception):  # broken YAML is refused elsewhere
            text += repr(read_yaml(file))
        if re.search(r"_target_|hydra|\.\.", text):
            raise UserError(
                f"{source}: was made with --config-dir={folder}, where {file.name} may call code of"
                " its own. If you trust that folder, give the flag again."
            )


def needs_trust(config: Mapping[str, Any]) -> bool:
    """Returns whether `check_targets` refuses a file with this configuration unless `trusted`."""
    return any(_foreign(config))


def trusted() -> bool:
    """Returns whether the user trusts all files, by the environment variable `TRUST`."""
    return os.environ.get(TRUST) == "1"


def _foreign(config: Any) -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, name) of everything that would be called and is not of this program."""
    for key, name in _calls(config):
        if not re.fullmatch(TARGETS.get(key.removesuffix("._target_"), ""), str(name)):
            yield key, name


def _calls(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, name) of everything that would be called."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node)
    for key, value in items:
        if key == "_target_" or (f"{prefix}{key}" == "optimizer.metric" and value is not None):
            yield f"{prefix}{key}", value
        elif isinstance(value, Mapping | list):
            yield from _calls(value, f"{prefix}{key}.")
