"""The words of the commands that compose no configuration: key=value."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from seg_l1.cli import torchrun
from seg_l1.errors import UserError, did_you_mean

DEBUG = ("debug", "traceback")
"""Keys that every command has; with `true`, errors come with Python's traceback."""


def key_values(
    words: Sequence[str], keys: Sequence[str], *, required: Sequence[str] = ()
) -> dict[str, str]:
    """Returns the values of `words` by key, with a leading ~ expanded to the home directory.

    Raises:
        UserError: under torchrun, on an unknown key, and if a required key or a value is missing.
    """
    torchrun.refuse("this command", "start it without torchrun")
    typed = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{word}: words look like {' '.join(f'{key}=...' for key in keys)}")
        if key not in (*keys, *DEBUG):
            raise UserError(f"there is no key '{key}'.{did_you_mean(key, keys)}")
        typed[key] = value
    for key in dict.fromkeys((*required, *typed)):
        if not typed.get(key):
            raise UserError(f"{key}: must be given, as {key}=...")
    return {key: at_home(value) for key, value in typed.items() if key not in DEBUG}


def say(text: str) -> None:
    """Prints a line about what is going on, to stderr: stdout has the results."""
    sys.stderr.write(f"{text}\n")


def at_home(value: str) -> str:
    """Returns a path in which a ~ at the beginning is the home; other values as they are."""
    return str(Path(value).expanduser()) if value.startswith("~") else value
