"""What the user did wrong, in words: every `UserError` becomes a short message and exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """The input is wrong, not the program: the message says what, where, and what was expected.

    `details` are further lines for a person who wants to mend everything at once.
    """

    def __init__(self, message: str, details: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.details = list(details)


class RunError(RuntimeError):
    """A run cannot go on for a reason outside of it, such as a full disk: exit code 1.

    The message says what happened to what. What was saved is whole, and can go on.
    """


class Interrupted(Exception):
    """The user or the system asked the run to stop; it was saved and can go on."""


def did_you_mean(word: str, choices: Iterable[str], cutoff: float = 0.5) -> str:
    """Returns " Did you mean 'x'?" for the choice closest to `word`, or "" when none is close."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=cutoff)
    return f" Did you mean '{close[0]}'?" if close else ""


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def described(error: BaseException) -> str:
    """An error in one line: with its type, unless its message was written for the user."""
    told = isinstance(error, UserError | RunError)
    return ("" if told else f"{type(error).__name__}: ") + first_line(error)


def short(value: object) -> str:
    """Python's notation of a value, without the middle of a very long one."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:80]} ... {text[-20:]}"
