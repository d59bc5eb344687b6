"""What the readers of other tools' annotations return: classes, images, and what lies on them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seg_l1.data.convert.regions import Region
from seg_l1.data.labels import IGNORE
from seg_l1.data.masks import UNKNOWN
from seg_l1.errors import UserError, first_line, short

BACKGROUND = ("background", "_background_")
"""Names, in any case, of the class 0."""

UNLABELED = "__ignore__"
"""The name that LabelMe's scripts give to what is not labeled."""


class Remarks:
    """Counts of what was met, by kind, with the first example of each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def add(self, kind: str, example: str) -> None:
        self.counts[kind] += 1
        self.examples.setdefault(kind, example)

    def say(self, text: str) -> None:
        """Adds a line that counts nothing."""
        self.examples[text] = ""

    def lines(self) -> list[str]:
        """Returns a line per kind, in the order of their first examples."""
        return [
            f"{kind}: {self.counts[kind]:,} (first: {example})" if example else kind
            for kind, example in self.examples.items()
        ]


@dataclass(frozen=True)
class Instance:
    """An object of an image.

    Attributes:
        label: class id, or `IGNORE`.
        region: the pixels that it covers.
        where: how messages name it.
        group: parts of an object have the same group; "" = the object has one part.
    """

    label: int
    region: Region
    where: str
    group: str = ""


@dataclass
class Item:
    """An image and what lies on it.

    Attributes:
        name: relative path, with the separators of the source.
        image: the file, or its content; None = missing.
        size: (width, height) that the source gives it; None = unknown.
        instances: in the order in which they are drawn.
        split: "train" and so on; "" = the source has no splits.
    """

    name: str
    image: Path | bytes | None
    size: tuple[int, int] | None = None
    instances: list[Instance] = field(default_factory=list)
    split: str = ""


@dataclass
class Source:
    """What a reader found.

    Attributes:
        classes: the names of the classes 0, 1, ...
        by_area: whether smaller objects lie in front, whatever the order of `Item.instances`.
        colors: the colors (r, g, b) that the source gives to class names.
        skipped: what is left out.
        notes: what is worth knowing.
    """

    classes: list[str]
    by_area: bool
    items: list[Item] = field(default_factory=list)
    colors: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    skipped: Remarks = field(default_factory=Remarks)
    notes: Remarks = field(default_factory=Remarks)


class Classes:
    """The names of the classes 0, 1, ... for the names that a source gives.

    Class 0 is the background, under the name that the source has for it.

    Raises:
        UserError: if there are too many, or if one cannot stand in `classes.txt`.

    >>> classes = Classes(["cat", "Background"], Path("labels.json"))
    >>> classes.names, classes.id_of("cat"), classes.id_of("dog")
    (['Background', 'cat'], 1, None)
    """

    def __init__(self, names: Iterable[object], where: Path) -> None:
        given = dict.fromkeys(map(tidy, names))
        zero = [name for name in given if name.lower() in BACKGROUND]
        others = [name for name in given if name not in zero and name != UNLABELED]
        self.names = [zero[0].strip("_") if zero else BACKGROUND[0], *others]
        self._ids = {name: index for index, name in enumerate(self.names)}
        if len(self.names) > UNKNOWN:
            raise UserError(
                f"{where}: names {len(self.names)} classes with the background. A mask holds at"
                f" most {UNKNOWN}, since {IGNORE} means not labeled; merge classes."
            )
        for name in self.names:
            if not name or len(name) > 100 or not name.isprintable():
                raise UserError(
                    f"{where}: the class name {short(name)} cannot be used; expected 1 to 100"
                    " letters. Rename the class."
                )
            if re.fullmatch(r".*,\s*\d+\s*,\s*\d+\s*,\s*\d+", name):
                raise UserError(
                    f"{where}: the class name {short(name)} would be read as a name and a color."
                    " Rename the class."
                )

    def id_of(self, name: object) -> int | None:
        """Returns the class id of a name of the source, `IGNORE`, or None for an unknown one."""
        text = tidy(name)
        if text == UNLABELED:
            return IGNORE
        return 0 if text.lower() in BACKGROUND else self._ids.get(text)


def tidy(name: object) -> str:
    """Returns a name without line breaks, and without blanks at its ends."""
    return " ".join(str(name).split())


@contextmanager
def blame(path: Path, kind: str) -> Iterator[None]:
    """Context manager: reports content that is not as expected as a `UserError` about `path`."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        if isinstance(error, UserError):
            raise
        reason = f"it lacks {error}" if isinstance(error, KeyError) else first_line(error)
        raise UserError(f"{path}: is not as {kind} writes it ({reason[:160]}).") from error


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file.

    Raises:
        UserError: if it is not valid JSON.
    """
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    except (ValueError, RecursionError) as error:
        reason = first_line(error) if path.stat().st_size else "it is empty"
    raise UserError(f"{path}: is no JSON ({reason}). Export it again.")


def size_of(width: object, height: object) -> tuple[int, int] | None:
    """Returns (width, height), or None if they are not given."""
    numbers = [n for n in (width, height) if isinstance(n, int | float) and n > 0]
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 else None


def listed(names: Sequence[object], count: int = 4) -> str:
    """Returns the first names, and how many more there are."""
    more = f", and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(map(str, names[:count])) + more
