"""The answer of docs/study.md: a table that is made of the comparisons in docs/study.

python -m benchmarks.claims.page
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from benchmarks.claims.compare import Comparison, verdict
from benchmarks.claims.selection import answer
from benchmarks.claims.trials import Study
from benchmarks.study import CLAIMS

PAGE = Path(__file__).parents[2] / "docs/study.md"
BEGIN, END = "<!-- made by benchmarks/claims/page.py -->", "<!-- end -->"


def read(path: Path) -> list[Comparison]:
    """Reads the comparisons of a claim; [] where there are none yet."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    kinds = {field.name: str(field.type) for field in fields(Comparison)}
    return [
        Comparison(**{name: _value(row[name], kind) for name, kind in kinds.items()})
        for row in rows
    ]


def _value(text: str, kind: str) -> object:
    if kind == "int":
        return int(text)
    if kind == "float":
        return float(text or "nan")
    return text or None if "None" in kind else text


def effects(rows: Sequence[Comparison]) -> str:
    """Returns the differences in words: one with its interval, several as a range over n."""
    groups: dict[tuple[str, str, str, str], list[Comparison]] = {}
    for row in rows:
        groups.setdefault((row.data, row.first, row.second, row.score), []).append(row)
    texts = []
    for (data, first, second, score), some in groups.items():
        name = f"{data}, {first} − {second}, {score}"
        if len(some) == 1:
            (row,) = some
            interval = f" [{_signed(row.low)}, {_signed(row.high)}]" * math.isfinite(row.low)
            texts.append(f"{name}: {_signed(row.difference)}{interval}")
            continue
        low, high = (f(row.difference for row in some) for f in (min, max))
        ahead, behind = (sum(row.direction == sign for row in some) for sign in (1, -1))
        seen = f"{ahead} of {len(some)} sizes as claimed" + f", {behind} against it" * bool(behind)
        texts.append(f"{name}: {_signed(low)} to {_signed(high)}, {seen}")
    return "<br>".join(texts) or "–"


def _signed(number: float) -> str:
    return f"{number:+.3f}".replace("-", "−")


def table(folder: Path) -> str:
    """Returns the table of verdicts, in Markdown."""
    lines = ["| | claim | | differences |", "|---|---|---|---|"]
    everything = Study(folder, folder, camvid="camvid")
    for letter, claim in CLAIMS.items():
        rows = read(folder / f"{letter}_comparisons.csv")
        said, effect = verdict(rows) if rows else "not yet", effects(rows)
        planned = {(trial.data, trial.seed) for trial in claim.trials(everything)}
        seeds = Counter(data for data, _ in planned)
        if early := [row for row in rows if row.seeds < seeds[row.data]]:
            least = min(row.seeds for row in early)
            said = f"so far: {said} ({least} seeds)" if least > 1 else "one seed so far"
        if letter == "g" and (path := folder / "g_scores.csv").is_file():
            with path.open(newline="", encoding="utf-8") as file:
                regrets = [{**row, "regret": float(row["regret"])} for row in csv.DictReader(file)]
            said = answer(regrets)
            effect = "<br>".join(
                f"{rule}: regret {sum(some) / len(some):.3f} mIoU"
                for rule in dict.fromkeys(row["rule"] for row in regrets)
                if (some := [row["regret"] for row in regrets if row["rule"] == rule])
            )
        lines.append(f"| {letter} | {claim.text} | {said} | {effect} |")
    return "\n".join(lines)


def filled(page: str, folder: Path) -> str:
    """Returns the page with the table of what is in `folder`."""
    pattern = rf"{re.escape(BEGIN)}.*?{re.escape(END)}"
    return re.sub(pattern, lambda _: f"{BEGIN}\n\n{table(folder)}\n\n{END}", page, flags=re.DOTALL)


if __name__ == "__main__":
    text = PAGE.read_text("utf-8")
    PAGE.write_text(filled(text, PAGE.parent / "study"), "utf-8")
