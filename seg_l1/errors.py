"""The three ways in which a command ends early, each with its exit code."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable
from numbers import Real
from typing import Any


class UserError(ValueError):
    """The input is wrong, not the program: the message says what, where, and what was expected.

    `details` are further lines for a person who wants to mend everything at once.
    """

    exit_code = 2

    def __init__(self, message: str, details: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.details = list(details)


class RunError(RuntimeError):
    """A run ended early for a reason that is not in the input, such as a full disk."""

    exit_code = 1

    can_go_on = True
    """Whether the run can go on from its last checkpoint when the reason is gone."""


class Diverged(RunError):
    """The loss is no longer a finite number."""

    can_go_on = False


class Stopped(Exception):
    """Training was asked to stop; the state of the loop is that of the step just finished."""


class Interrupted(Exception):
    """The user or the system asked to stop; all was saved, and the message says how to go on."""

    exit_code = 130


def can_go_on(error: BaseException) -> bool:
    """Returns whether a run that ended in `error` is interrupted rather than failed."""
    if isinstance(error, RunError):
        return error.can_go_on
    return isinstance(error, Interrupted | KeyboardInterrupt)


def did_you_mean(word: str, choices: Iterable[str], cutoff: float = 0.5) -> str:
    """Returns " Did you mean 'x'?" for the choice closest to `word`, or "" when none is close."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=cutoff)
    return f" Did you mean '{close[0]}'?" if close else ""


def decode_hint(value: object) -> str:
    """Returns what to write where `value` is a text that would be a number, a flag or a list."""
    literal = r"\s*([-+\d.][-+\w.]*|true|false|null|\[.*\])\s*"
    if not (isinstance(value, str) and re.fullmatch(literal, value)):
        return ""
    return ". It is a text: leave out the quotes; of the environment, ${oc.decode:${oc.env:NAME}}"


def first_line(error: BaseException) -> str:
    """Returns what an error says, in one line; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def is_for_user(error: BaseException) -> bool:
    """Returns whether the message of an error was written for the user, and needs no type."""
    return type(error) in (UserError, RunError)


def described(error: BaseException) -> str:
    """Returns an error in one line: with its type, unless its message was written for the user."""
    prefix = "" if is_for_user(error) else f"{type(error).__name__}: "
    return prefix + first_line(error)


def short(value: object) -> str:
    """Returns Python's notation of a value, without the middle of a very long one."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:80]} ... {text[-20:]}"


def printable(text: str) -> str:
    """Returns text in one line; bytes of a file name that are no text become question marks."""
    return " ".join(text.encode(errors="surrogateescape").decode(errors="replace").split())


def as_scalar(value: Any) -> Any:
    """Returns a numpy scalar or a 0-d array or tensor as Python's own number; the rest as it is."""
    return value.item() if getattr(value, "shape", None) == () else value


def finite_number(name: str, value: Any, *, positive: bool = False) -> float:
    """Returns a number (also of numpy, or a 0-d tensor) as a float.

    Raises:
        UserError: if it is none, NaN, infinite or negative; with `positive` also for 0.
    """
    scalar = as_scalar(value)
    if isinstance(scalar, Real) and not isinstance(scalar, bool):
        number = float(scalar)
        if math.isfinite(number) and (number > 0 if positive else number >= 0):
            return number
    expected = "above 0" if positive else "of at least 0"
    raise UserError(f"{name}: got {short(value)}, expected a finite number {expected}")
