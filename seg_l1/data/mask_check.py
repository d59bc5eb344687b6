"""Whether the masks of a data set mean what the user said; with the key that reads them if not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from seg_l1.data.labels import IGNORE
from seg_l1.data.mask_census import Census, FileValues
from seg_l1.data.mask_remedies import Remedies, some
from seg_l1.data.mask_values import FIRST_COLOR, VOID, Key, text
from seg_l1.data.masks import UNKNOWN, MaskReading, reading_of
from seg_l1.errors import UserError


def check_masks(
    every: Sequence[FileValues], reading: MaskReading, classes: Sequence[str]
) -> tuple[MaskReading, list[str]]:
    """Refuses masks that `reading` does not read, or reads in a way that cannot be meant.

    Returns:
        The reading: the one given, or another where the values are beyond doubt; notes about it.

    Raises:
        UserError: with what the masks hold and the key that would read them; its details are a line
            per file.
    """
    census, key = Census.of(every), reading.key
    if key is None:
        _check_values(every, census, reading, None)
        return reading, []
    levels = _levels(census, key, len(classes))
    if levels is not None:
        pairs = ", ".join(f"{text(v)} = {name}" for v, name in zip(levels, classes, strict=True))
        own = Key(levels)
        note = f"the gray levels of the masks are taken as classes: {pairs} ({own.typed()})"
        return reading_of(own, len(classes)), [note]
    if len(classes) == 1:
        _refuse_one_class(census, classes[0], every[0].path.parent)
    remedies = Remedies(census, key, classes)
    _check_lossy(census, key, remedies)
    _check_palettes(census, key, remedies)
    _check_kinds(census, reading, key, remedies)
    _check_values(every, census, reading, remedies)
    _check_sides(census, reading, remedies, every[0].path.parent)
    return reading, []


def _levels(census: Census, key: Key, num_classes: int) -> list[int] | None:
    """The gray levels of the classes where they are beyond doubt: one per class, none an id."""
    if key != Key() or num_classes < 2 or census.pixels.keys() != {"levels"} or census.lossy:
        return None
    values = sorted(census.pixels["levels"])
    doubtful = {*range(1, num_classes + 1), VOID}
    return values if len(values) == num_classes and not doubtful & {*values} else None


def _refuse_one_class(census: Census, name: str, masks: Path) -> None:
    found = census.codes(by_color=False, white=1)
    more = Remedies(census, Key(), ["background", name]).advice()
    more = "" if found.keys() <= {0, 1} and not census.has_colors else f" {more}."
    raise UserError(
        f"{masks}: the data set has one class, '{name}', so that all labeled pixels would be of"
        f" this class. Name the background too, by the two lines background and {name} in"
        f" classes.txt, or by dataset.num_classes=2 where there is no such file.{more}"
    )


def _check_lossy(census: Census, key: Key, remedies: Remedies) -> None:
    if not census.lossy or key.threshold is not None:
        return
    soft = remedies.threshold()
    remedy = f", or give {remedies.changes(soft)} to cut black from white" if soft else ""
    more = f" ({len(census.lossy)} bad files in all, listed above)" if census.lossy[1:] else ""
    raise UserError(
        f"{census.lossy[0]}: JPEG changes class ids{more}; export the masks from their source as"
        f" PNG{remedy}",
        details=[f"{path}: JPEG changes class ids" for path in census.lossy] if more else [],
    )


def _check_palettes(census: Census, key: Key, remedies: Remedies) -> None:
    """Refuses palettes that give an index several meanings, unless ids were typed."""
    if not census.clash or key.mask_values is not None or key.threshold is not None:
        return
    ids = Key(list(range(len(remedies.classes))), key.unlabeled_values)
    remedy = remedies.advice()
    if census.fits(ids, len(remedies.classes)):
        words = remedies.changes(ids)
        remedy += f", or {words} if the indices are class ids, whatever their colors"
    raise UserError(f"{census.clash}. {remedy}")


def _check_kinds(census: Census, reading: MaskReading, key: Key, remedies: Remedies) -> None:
    """Refuses kinds of files to which one key gives different meanings."""
    bits, levels = census.pixels.get("bits", Counter()), census.pixels.get("levels", Counter())
    if bits and reading.white is None:
        raise UserError(
            "dataset.mask_values: names both 1 and 255, and white in a 1-bit mask could be either;"
            " save the 1-bit masks as 8-bit PNG"
        )
    by_default = key.mask_values is None and key.threshold is None
    if by_default and 1 in bits and VOID in levels and 1 not in levels:
        ids = remedies.changes(Key(list(range(len(remedies.classes))), key.unlabeled_values))
        raise UserError(
            "masks: some are 1-bit (black and white), others 8-bit with 255 but without 1."
            f" {remedies.advice()}, or {ids} if white in the 1-bit masks is class 1 and 255 is not"
            " labeled"
        )
    in_color = {"colors", "palette"} & census.pixels.keys()
    if reading.plain is not reading.colored and in_color and levels:
        raise UserError(
            "dataset.mask_values: three numbers are a color in some of these masks, and three ids"
            f" in others, which are grayscale. If they are colors, give {key.quoted()}"
        )


def _check_values(
    every: Sequence[FileValues], census: Census, reading: MaskReading, remedies: Remedies | None
) -> None:
    """Refuses values that are no class, naming every file."""
    if UNKNOWN not in census.classes(reading):
        return
    lines = []
    for values in every:
        unknown = Census.of([values]).classes(reading).get(UNKNOWN)
        if unknown:
            held = some(sorted(unknown), 5)
            lines.append(f"{values.path}: holds the value {held}; expected {_expected(reading)}")
    more = f" ({len(lines)} bad files in all, listed above)" if lines[1:] else ""
    advice = "" if remedies is None else f". {remedies.listing()}. {remedies.advice()}"
    raise UserError(f"{lines[0]}{more}{advice}", details=lines if more else [])


def _expected(reading: MaskReading) -> str:
    meaning = reading.colored if reading.by_color else reading.plain
    allowed = sorted(code for code, index in meaning.class_of.items() if index != IGNORE)
    void = sorted(code for code, index in meaning.class_of.items() if index == IGNORE)
    expected = some(allowed, 8) if meaning.threshold is None else "gray levels"
    is_range = len(allowed) > 1 and allowed[-1] - allowed[0] == len(allowed) - 1
    if is_range and allowed[-1] < FIRST_COLOR:
        expected = f"{allowed[0]} to {allowed[-1]}"
    return f"{expected}, or {some(void, 5)} for not labeled" if void else expected


def _check_sides(census: Census, reading: MaskReading, remedies: Remedies, masks: Path) -> None:
    """Refuses a threshold, or a 255 unlabeled by default, that leaves a single class."""
    key, found = remedies.key, census.classes(reading)
    if len(found.keys() - {IGNORE}) != 1:
        return
    if key.threshold is not None:
        other = Remedies(census, Key(), remedies.classes)
        raise UserError(
            f"dataset.mask_threshold={key.threshold:g}: has all pixels on one side."
            f" {other.listing()}. Leave this key out. {other.advice()}"
        )
    if IGNORE in found and not _is_named(found, key):
        advice = remedies.advice().removeprefix("Give ")
        raise UserError(
            f"{masks}: the masks hold one class and 255 (not labeled) only. If 255 is a class"
            f" there, give {advice}"
        )


def _is_named(found: Mapping[int, set[int]], key: Key) -> bool:
    """Whether the values that are not labeled are so because the user said it."""
    return key.unlabeled_values is not None or VOID not in found[IGNORE]
