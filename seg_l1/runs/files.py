"""Files of every kind: YAML, CSV, JSON, written whole or not at all."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from seg_l1.errors import UserError, first_line

Config = dict[str, Any]
"""A resolved configuration: plain dicts, lists, numbers and strings."""


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Writes `path` through a temporary file beside it: a reader sees the old file or the new.

    Raises:
        OSError: naming `path`, if the system says no; the old file is still there then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:
            error.filename = str(path)
        raise


def csv_text(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def finite(content: Any) -> Any:
    """`content` with None for NaN and infinities, which JSON does not have."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def to_yaml(config: Config | list[str]) -> str:
    """The text of `config.yaml` and `overrides.yaml`."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(config))


def from_yaml(path: Path) -> Any:
    """Reads back what `to_yaml` wrote: a configuration, or a list of overrides.

    Raises:
        UserError: if the file is not such a text.
    """
    from omegaconf import OmegaConf

    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except Exception as error:
        raise UserError(
            f"{path}: is not a configuration ({first_line(error)}). Take a copy of it, or train"
            " again."
        ) from None
