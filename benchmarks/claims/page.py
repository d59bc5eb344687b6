"""The answer of docs/study.md: a table that is made of the comparisons in docs/study.

python -m benchmarks.claims.page
"""

from __future__ import annotations

import csv
import math
import re
from dataclasses import fields
from pathlib import Path

from benchmarks.claims.claim import Row
from benchmarks.claims.compare import Comparison
from benchmarks.claims.selection import SEEDS, answer
from benchmarks.claims.trials import Study, unique
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


def _signed(number: float) -> str:
    return f"{number:+.3f}".replace("-", "−")


def _p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def said_of(letter: str, folder: Path) -> str:
    """Returns the verdict on a claim, and how many of its runs there are if some are missing."""
    claim = CLAIMS[letter]
    if letter == "g":
        rows = regrets(folder)
        found, planned = {row["seed"] for row in rows}, SEEDS
        said = answer(rows)
    else:
        compared = read(folder / f"{letter}_comparisons.csv")
        planned = unique(claim.trials(Study(folder, folder, camvid="-")))
        measured = folder / "measured"
        found = [one for one in planned if (measured / f"{one.name}.json").is_file()]
        said = claim.verdict(compared)
    if said == "not tested":
        return "not yet"
    whole = len(found) == len(planned)
    return said if whole else f"so far: {said} ({len(found)} of {len(planned)} runs)"


def regrets(folder: Path) -> list[Row]:
    """Reads the regrets of claim (g); [] where there are none yet."""
    path = folder / "g_scores.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [{**row, "regret": float(row["regret"])} for row in csv.DictReader(file)]


def table(folder: Path) -> str:
    """Returns the table of verdicts, and that of all differences, in Markdown."""
    lines = ["| | claim | verdict |", "|---|---|---|"]
    lines += [f"| {c.letter} | {c.text} | {said_of(c.letter, folder)} |" for c in CLAIMS.values()]
    return "\n".join([*lines, "", *differences(folder)])


def differences(folder: Path) -> list[str]:
    """Returns the lines of a table with a row for each comparison, which can be unfolded."""
    lines = ["<details><summary>All differences, with their intervals</summary>", ""]
    head = "| | data | n | comparison | score | difference | 95 % interval | adjusted p | |"
    lines += [head, 9 * "|---" + "|"]
    for letter in CLAIMS:
        for row in read(folder / f"{letter}_comparisons.csv"):
            known = math.isfinite(row.low)
            cells = [
                letter, row.data, str(row.images), f"{row.first} − {row.second}", row.score,
                _signed(row.difference), f"{_signed(row.low)} to {_signed(row.high)}" * known,
                _p_value(row.adjusted) if math.isfinite(row.adjusted) else "",
                {1: "as claimed", 0: "", -1: "against it"}[row.direction],
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    for rule in dict.fromkeys(str(row["rule"]) for row in regrets(folder)):
        some = [float(row["regret"]) for row in regrets(folder) if row["rule"] == rule]
        lines.append(f"| g | digits | 128 | {rule} | regret | {sum(some) / len(some):.3f} | | | |")
    return [*lines, "", "</details>"]


def filled(page: str, folder: Path) -> str:
    """Returns the page with the table of what is in `folder`."""
    pattern = rf"{re.escape(BEGIN)}.*?{re.escape(END)}"
    return re.sub(pattern, lambda _: f"{BEGIN}\n\n{table(folder)}\n\n{END}", page, flags=re.DOTALL)


if __name__ == "__main__":
    text = PAGE.read_text("utf-8")
    PAGE.write_text(filled(text, PAGE.parent / "study"), "utf-8")
