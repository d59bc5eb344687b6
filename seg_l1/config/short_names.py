"""Short names of long values, such as "scope A", for tables, legends and folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

LONG = 30
"""Letters from which on a value gets a short name."""


def short_names(settings: Iterable[Mapping[str, str]]) -> dict[tuple[str, str], str]:
    """Returns the short name of each long value in `settings`, by key and value.

    It is the last part of the key with a letter, in the order of appearance.

    >>> short_names([{"regularizer.scope": "x" * 40}, {"regularizer.scope": "y" * 40}]).values()
    dict_values(['scope A', 'scope B'])
    """
    names: dict[tuple[str, str], str] = {}
    counts: dict[str, int] = {}
    for setting in settings:
        for key, value in setting.items():
            if len(value) >= LONG and (key, value) not in names:
                part = key.rpartition(".")[2]
                counts[part] = counts.get(part, 0) + 1
                names[key, value] = f"{part} {_letters(counts[part])}"
    return names


def shortened(setting: Mapping[str, str], names: Mapping[tuple[str, str], str]) -> dict[str, str]:
    """Returns `setting` with the names of its long values."""
    return {key: names.get((key, value), value) for key, value in setting.items()}


def explained(names: Mapping[tuple[str, str], str]) -> list[str]:
    """Returns a line for each name: what it stands for."""
    return [f"{name}: {key}={value}" for (key, value), name in names.items()]


def _letters(number: int) -> str:
    """1 is A, 26 is Z, 27 is AA."""
    text = ""
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("A") + rest) + text
    return text
