"""Command lines to show, as they exist where this program was started."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

CHECKOUT = "SEG_L1_CHECKOUT"
"""The environment variable that is set while `python train.py` or a script of a checkout runs.

The processes of launchers inherit it."""


@contextmanager
def started(*, checkout: bool) -> Iterator[None]:
    """Context manager: commands to show are those of a checkout, or the installed ones."""
    before = os.environ.pop(CHECKOUT, None)
    if checkout:
        os.environ[CHECKOUT] = "1"
    try:
        yield
    finally:
        os.environ.pop(CHECKOUT, None)
        if before is not None:
            os.environ[CHECKOUT] = before


def command_line(command: str, *words: object) -> str:
    """Returns the command line, quoted for a shell, that runs `command` with `words`.

    >>> command_line("report", "my sweep")
    "seg-l1 report 'my sweep'"
    >>> with started(checkout=True):
    ...     command_line("report", "my sweep")
    "python scripts/report.py 'my sweep'"
    """
    program = ["seg-l1", command]
    if CHECKOUT in os.environ:
        program = ["python", "train.py" if command == "train" else f"scripts/{command}.py"]
    return shlex.join([*program, *map(str, words)])
