"""Kinds of values that a configuration key may have: numbers, choices, lists of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Limit = tuple[type | tuple[type, ...], Callable[[Any], bool], str]
"""The types that fit, a test for values of these types, and what is expected, in words."""


HUGE = 1e30
"""The bound of numbers that have no other; messages leave it out."""


def number(low: float, *, above: bool = False, below: float = HUGE) -> Limit:
    """A finite number of at least `low`, or above it, and below `below`."""

    def fits(x: float) -> bool:
        return math.isfinite(x) and (x > low if above else x >= low) and x < below

    ceiling = "" if below == HUGE else f" and below {below:g}"
    return (int, float), fits, f"a number {'above' if above else 'of at least'} {low:g}{ceiling}"


def share(most: float = 1.0) -> Limit:
    """A number from 0 to `most`."""
    return (int, float), lambda x: 0 <= x <= most, f"a number from 0 to {most:g}"


def whole(low: int, most: int = 2**63 - 1) -> Limit:
    """A whole number from `low` to `most`."""
    ceiling = "" if most == 2**63 - 1 else f" and at most {most}"
    return int, lambda x: low <= x <= most, f"a whole number of at least {low}{ceiling}"


def choice(*options: str) -> Limit:
    """One of several texts."""
    return str, lambda x: x in options, f"one of {', '.join(options)}"


def list_of(of: Limit, length: int | None = None) -> Limit:
    """A list of `length` values of a kind, or of any length."""
    kind, fits, words = of
    many = "a list" if length is None else f"a list of {length}"
    return (
        list,
        lambda x: (
            (length in (None, len(x)))
            and all(isinstance(v, kind) and not isinstance(v, bool) and fits(v) for v in x)
        ),
        f"{many}, each {words}",
    )


def or_null(limit: Limit) -> Limit:
    """A value of a kind, or null."""
    _, fits, words = limit
    return (*types_of(limit), type(None)), lambda x: x is None or fits(x), f"{words}, or null"


def either(one: Limit, other: Limit) -> Limit:
    """A value of one of two kinds."""

    def fits(x: Any) -> bool:
        return any(isinstance(x, kind) and test(x) for kind, test, _ in (one, other))

    return (*types_of(one), *types_of(other)), fits, f"{one[2]}, or {other[2]}"


def types_of(limit: Limit) -> tuple[type, ...]:
    """Returns the types that fit."""
    kind = limit[0]
    return kind if isinstance(kind, tuple) else (kind,)


FLAG: Limit = (bool, lambda x: True, "true or false")
TEXT: Limit = (str, bool, "a text")
ANY_TEXT: Limit = (str, lambda x: True, "a text")
