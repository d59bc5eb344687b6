"""Files of every kind: YAML, CSV, JSON, written whole or not at all."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import yaml
from omegaconf import OmegaConf

from seg_l1.errors import RunError, UserError, first_line, short

Config = dict[str, Any]
"""A resolved configuration: plain dicts, lists, numbers and strings."""


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Writes `path` through a temporary file beside it: a reader sees the old file or the new.

    Raises:
        UserError, RunError: see `write_error`; the old file is still there then.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Context manager: a temporary file beside `path`, which takes its place at the end.

    Raises:
        UserError, RunError: in place of any OSError, see `write_error`; the old file is still there
            then, as after any other error.
    """
    # containers on several machines have the same process ids
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise write_error(error, path) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 as `write_bytes` does; names of files that are no text keep their bytes."""
    write_bytes(path, text.encode(errors="surrogateescape"))


def read_text(path: Path) -> str:
    """Returns the UTF-8 text of a file that other machines may be replacing.

    Raises:
        OSError: if it cannot be read.
    """
    for _ in range(9):
        try:
            return path.read_text("utf-8")
        except OSError as error:  # replaced between opening and reading, on NFS
            if error.errno != errno.ESTALE:
                raise
    return path.read_text("utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Returns the mapping in a JSON file; a missing or damaged one is a `UserError`."""
    with blame_file(path):
        return dict(json.loads(read_text(path)))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON; NaN and infinities become null, which every reader understands."""
    write_text(path, json.dumps(finite(dict(content)), indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Writes a table, a line per row below the `header`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_yaml(path: Path, content: Config | list[str]) -> None:
    """Writes a configuration, or a list of overrides."""
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(content)))


def make_folder(path: Path) -> None:
    """Makes the folder `path`, and those above it, where they are missing.

    Raises:
        UserError, RunError: see `write_error`.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(error, path) from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Context manager: names the file, or else `path`, that cannot be written inside.

    Raises:
        UserError, RunError: in place of any OSError, see `write_error`.
    """
    try:
        yield
    except OSError as error:
        raise write_error(error, error.filename or path) from error


def write_error(error: OSError, path: object) -> UserError | RunError:
    """What to raise where the system refuses to write `path`.

    A full disk ends what is running (`RunError`); anything else is a matter of choosing another
    place (`UserError`).
    """
    kind = RunError if error.errno in (errno.ENOSPC, errno.EDQUOT) else UserError
    name = short(str(path))[1:-1]
    return kind(f"{name}: cannot be written ({error.strerror or error}).")


def finite(content: Any) -> Any:
    """`content` with None for NaN and infinities, which JSON does not have."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def read_yaml(path: Path) -> Any:
    """Reads back what `write_yaml` wrote.

    Raises:
        UserError: if there is no such file, or it is no YAML.
    """
    try:
        content = _plain(yaml.load(path.read_text("utf-8"), _Loader))
        if not isinstance(content, dict | list | None):
            raise ValueError("it holds a single value")
        return content
    except Exception as error:
        raise UserError(
            f"{path}: is not a configuration ({first_line(error)}). Restore a copy of it, or"
            " train again."
        ) from None


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Reads what OmegaConf writes, in a tenth of its time: 1e-5 is a number, and no text a date."""

    yaml_implicit_resolvers: ClassVar = {
        first: [pair for pair in pairs if not pair[0].endswith(":timestamp")]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        if twice := [name for name, count in Counter(map(str, names)).items() if count > 1]:
            raise ValueError(f"there are two keys {twice[0]}")
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?\d+(_\d+)*(\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


def _plain(content: Any) -> Any:
    """Returns `content` if it is made of what a configuration is made of.

    Raises:
        ValueError: if it is not.
    """
    if isinstance(content, dict):
        for value in content.values():
            _plain(value)
    elif isinstance(content, list):
        for value in content:
            _plain(value)
    elif not isinstance(content, str | int | float | None):
        raise ValueError(f"a {type(content).__name__} is no value of a configuration")
    return content


@contextmanager
def blame_file(path: Path) -> Iterator[None]:
    """Context manager: reports any error inside as a `UserError` about the file `path`.

    Raises:
        UserError: in place of any error.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        reason = " ".join(reason.split())
        raise UserError(
            f"{path}: does not fit this run ({reason[:160]}). It is damaged, or of another model or"
            " version; restore a copy of it, or train again."
        ) from error
