"""The tables: by multiply-adds, by zeros, and of paired tests."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from math import isnan

from benchmarks.budget.job import TOLERANCE
from benchmarks.budget.measure import Result
from benchmarks.budget.paired import Paired, paired

Groups = dict[str, list[Result]]
"""Name -> results, one per seed."""

NONE = "–"


def grouped(results: Iterable[Result]) -> Groups:
    """Groups results by name, in order of appearance."""
    groups: Groups = {}
    for result in results:
        groups.setdefault(result.name, []).append(result)
    return groups


def plus_minus(values: Sequence[float], digits: int = 3, factor: float = 1.0) -> str:
    """Returns mean ± standard deviation; without a deviation of one value.

    >>> plus_minus([0.5, 0.7])
    '0.600 ± 0.141'
    """
    values = [factor * value for value in values]
    text = f"{statistics.mean(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def difference(results: Sequence[Result], dense: Sequence[Result]) -> str:
    """Returns the paired difference of the test mIoU from the dense network of the same seed."""
    reference = {result.seed: result.test_miou for result in dense}
    gaps = [r.test_miou - reference[r.seed] for r in results if r.seed in reference]
    return plus_minus(gaps).replace("-", "−") if gaps else NONE


def faster(results: Sequence[Result]) -> str:
    """Returns how many times faster than the dense network; the median over seeds."""
    ratios = [r.dense_ms / r.latency_ms for r in results if r.latency_ms and r.dense_ms]
    return f"{statistics.median(ratios):.2f}×" if ratios else NONE


def row(name: str, results: list[Result], dense: list[Result]) -> list[str]:
    """Returns the cells of one contender with its target."""
    first = results[0]
    mean: Callable[[str], float] = lambda key: statistics.mean(getattr(r, key) for r in results)  # noqa: E731
    missed = any(
        r.share is not None and not (1 - TOLERANCE) * r.share <= r.share_got <= r.share
        for r in results
    )
    return [
        name if first.share is None and first.zeros_asked is None else name.rpartition(" ")[0],
        NONE if first.share is None else f"{first.share:g}",
        f"{mean('share_got'):.4f}" + " (missed)" * missed,
        f"{mean('parameters'):,.0f}",
        f"{100 * mean('zeros'):.1f} %",
        plus_minus([r.test_miou for r in results]),
        NONE if first.name == "dense" else difference(results, dense),
        faster(results),
        f"{mean('nonzero'):.3f}",
        str(len(results)),
    ]


HEADER = [
    "contender", "share asked", "share got", "parameters", "zeros", "test mIoU", "to dense",
    "onnxruntime", "non-zero", "seeds",
]  # fmt: skip


def tables(results: Sequence[Result], against: str) -> str:
    """Returns all tables as Markdown."""
    groups = grouped(results)
    dense = groups.get("dense", [])
    rows = [row(name, found, dense) for name, found in groups.items()]
    parts = [markdown(HEADER, rows), NOTE]
    if lines := _tests(groups, against):
        parts += [markdown(TESTED, lines), TEST_NOTE]
    return "\n\n".join(parts) + "\n"


NOTE = (
    "Mean ± standard deviation over seeds. Share: multiply-adds of the compact network relative to"
    " the dense one. Zeros: penalized weights of the dense network that are 0 or gone. To"
    " dense: paired difference of the test mIoU. onnxruntime: times faster than the dense network,"
    " batch 1, one thread. Non-zero: share of the compact network's multiply-adds that belong to"
    " weights other than 0."
)

TESTED = ["share", "difference", "test mIoU", "95 % interval", "p", "seeds", "images"]

TEST_NOTE = (
    "Differences of the pooled test mIoU; interval and p allow for other seeds and other images"
    " (benchmarks/budget/paired.py). p is not corrected for the number of tests."
)


def _tests(groups: Groups, against: str) -> list[list[str]]:
    """Returns the tests of `against` and each other contender at the same share, and dense."""
    lines = []
    for name, found in groups.items():
        if name != against and not name.startswith(f"{against} "):
            continue
        for other, results in groups.items():
            if other == name or (results[0].share != found[0].share and other != "dense"):
                continue
            test = paired(*({r.seed: r.confusions for r in some} for some in (found, results)))
            if test is not None:
                lines.append(_line(found[0], f"{against} − {results[0].name}", test))
    return lines


def _line(result: Result, pair: str, test: Paired) -> list[str]:
    return [
        NONE if result.share is None else f"{result.share:g}",
        pair,
        f"{test.difference:+.4f}",
        NONE if isnan(test.low) else f"[{test.low:+.4f}, {test.high:+.4f}]",
        NONE if isnan(test.p) else f"{test.p:.3f}" if test.p >= 0.001 else "< 0.001",
        str(test.seeds),
        str(test.images),
    ]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table whose columns are aligned in the text too."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    texts = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([texts[0], rule, *texts[1:]])
