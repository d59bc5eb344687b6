"""What the modules of the claims have in common: their tables and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.claims.compare import Comparison, Results, Runs, values, verdict
from benchmarks.claims.trials import Study, Trial
from seg_l1.display.style import BLUE, GREEN, INK, OLIVE, ORANGE, PURPLE, RED, SKY

COLORS = {
    "none": INK, "l1": BLUE, "l2": ORANGE, "elastic_net": GREEN, "group_l1": PURPLE, "mcp": SKY,
    "dropout": RED, "drop_connect": OLIVE,
}  # fmt: skip

Row = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """A claim of the article.

    Attributes:
        letter: its letter in the protocol.
        text: what is claimed.
        trials: the trainings that it needs.
        comparisons: the differences that are tested; [] where there are none yet.
        needs: of a comparison, the name of the condition of the claim that it decides about, such
            as its score; None = it is shown, but has no part in the verdict.
        scores: rows of its table of scores.
        picture: draws it.
        before: (trial) -> what is called with the loop before the trial is trained.
        work: what is to be done beside the trials.
    """

    letter: str
    text: str
    trials: Callable[[Study], list[Trial]]
    comparisons: Callable[[Results, Study], list[Comparison]]
    needs: Callable[[Comparison], str | None]
    scores: Callable[[Results, Study], list[Row]]
    picture: Callable[[Results, Study], Figure | None]
    before: Callable[[Study, Trial], Callable[[Any], None]] = lambda study, trial: lambda loop: None
    work: Callable[[Study], None] = lambda study: None

    def verdict(self, comparisons: Sequence[Comparison]) -> str:
        """Returns what the comparisons say, in the words of the protocol."""
        groups: dict[str, list[Comparison]] = {}
        for row in comparisons:
            if need := self.needs(row):
                groups.setdefault(need, []).append(row)
        return verdict(groups.values())


def score_row(
    data: str, images: int, contender: str, strength: str | None, runs: Runs,
    columns: Iterable[str], variant: str = "",
) -> Row:  # fmt: skip
    """Returns a row of means and standard deviations over the seeds."""
    row: Row = {
        "data": data, "images": images, "contender": contender, "variant": variant,
        "strength": strength, "seeds": len(runs),
    }  # fmt: skip
    for column in columns:
        numbers = values(runs, column)
        row[column] = fmean(numbers)
        row[f"{column} sd"] = stdev(numbers) if len(numbers) > 1 else None
    return row


def score_rows(
    results: Results, cells: Iterable[tuple[str, int, str]], columns: Sequence[str]
) -> list[Row]:
    """Returns a row per strength of each (data, images, contender)."""
    return [
        score_row(*cell, strength, runs, columns)
        for cell in cells
        for strength, runs in results.strengths(*cell).items()
    ]


def comparison_rows(comparisons: Sequence[Comparison]) -> list[Row]:
    """Returns comparisons as rows of a table."""
    return [asdict(one) for one in comparisons]


def intervals(
    axes: Axes, rows: Sequence[Comparison], labels: Sequence[str], color: str = BLUE
) -> None:
    """Draws differences with their intervals, one below the other, and a line at 0."""
    places = range(len(rows))[::-1]
    for place, row in zip(places, rows, strict=True):
        axes.plot([row.low, row.high], [place, place], color=color, lw=1.5)
        filled = color if row.adjusted < 0.05 else "white"
        axes.plot(row.difference, place, "o", color=color, mfc=filled, ms=5)
    axes.axvline(0, color=INK, lw=0.8)
    axes.set_yticks(list(places), labels)
