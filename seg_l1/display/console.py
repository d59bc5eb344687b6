"""Standard output, which a reader such as `head` may close while a command is still at work."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from rich.console import Console

from seg_l1.errors import Interrupted

CLOSED = "standard output was closed"
"""What a command says when its reader has gone away."""

_closed = False


class Screen(Console):
    """A console that stops the command when its output is closed.

    Raises:
        Interrupted: in place of BrokenPipeError; what is printed later goes nowhere.
    """

    def on_broken_pipe(self) -> NoReturn:
        close_output()
        raise Interrupted(CLOSED)


def close_output() -> None:
    """Discards whatever is printed from now on; otherwise Python would complain on exit."""
    global _closed
    _closed = True
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def why_interrupted(text: str) -> str:
    """Returns a message of an interruption; it begins with `CLOSED` where that is the reason."""
    return f"{CLOSED}; {text}" if _closed else text


def reopen() -> None:
    """Forgets that the output of an earlier command of this process was closed."""
    global _closed
    _closed = False
