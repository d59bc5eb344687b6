"""The study: what the claims of the article come to (docs/study.md is its protocol and answer).

    python benchmarks/study.py claim=a [seeds=0,1] [camvid=<CamVid>] [folder=outputs/study]
        [train=false] [output=docs/study]

Trains what is missing for the claims (`claim=a,b`, `claim=all`), reuses what is there, and writes
for each its scores, its comparisons and its picture to docs/study. What was measured of each run
lies there too, in `measured`: where it does, the run is not trained again. Another `output` starts
from nothing. Several processes can share one folder: each takes what no other is working on.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.claims import (
    borders,
    gradients,
    listing,
    overfitting,
    selection,
    sparsity,
    textures,
)
from benchmarks.claims.claim import Claim, Row, comparison_rows
from benchmarks.claims.compare import Results
from benchmarks.claims.measure import in_folder, measured
from benchmarks.claims.selection import answer
from benchmarks.claims.trials import Study, Trial, unique
from seg_l1.display.style import png
from seg_l1.errors import RunError, UserError
from seg_l1.runs.files import write_bytes

ROOT = Path(__file__).parents[1]
MODULES = (overfitting, borders, textures, sparsity, gradients, selection, listing)
CLAIMS: dict[str, Claim] = {
    claim.letter: claim
    for claim in sorted((c for m in MODULES for c in m.CLAIMS), key=lambda claim: claim.letter)
}
KEYS = ("claim", "seeds", "camvid", "folder", "train", "output")


def main(words: Sequence[str]) -> int:
    """Trains and tabulates the claims that are asked for; returns the exit code."""
    try:
        given = read(words)
        letters = list(CLAIMS) if given.get("claim", "all") == "all" else given["claim"].split(",")
        if unknown := [letter for letter in letters if letter not in CLAIMS]:
            raise UserError(f"claim={unknown[0]}: expected some of {','.join(CLAIMS)}, or all")
        claims = [CLAIMS[letter] for letter in letters]
        output = Path(given.get("output", ROOT / "docs/study"))
        folder = Path(given.get("folder", ROOT / "outputs/study"))
        study = Study(folder, output / "measured", given.get("camvid"))
        seeds = seeds_of(given["seeds"]) if "seeds" in given else None
        if given.get("train", "true") == "true":
            train(study, claims, seeds)
        for claim in claims:
            write(study, claim, output)
    except (UserError, RunError) as error:
        print(f"study: {error}", file=sys.stderr)
        return 2
    return 0


def seeds_of(text: str) -> set[int]:
    """Reads seeds such as "0,1".

    Raises:
        UserError: if they are not whole numbers.
    """
    try:
        return {int(seed) for seed in text.split(",")}
    except ValueError:
        raise UserError(f"seeds={text}: expected whole numbers, such as seeds=0,1") from None


def read(words: Sequence[str]) -> dict[str, str]:
    """Reads the command line.

    Raises:
        UserError: on a word that makes no sense.
    """
    pairs = [word.partition("=") for word in words]
    for key, equals, _ in pairs:
        if key not in KEYS or not equals:
            raise UserError(f"{key}: expected one of {', '.join(f'{k}=' for k in KEYS)}")
    return {key: value for key, _, value in pairs}


def train(study: Study, claims: Sequence[Claim], seeds: set[int] | None) -> None:
    """Trains and measures what is missing, the first seed of all claims before the second."""
    pairs = [(trial, claim) for claim in claims for trial in claim.trials(study)]
    first: dict[Trial, Claim] = {}
    for trial, claim in pairs:
        there = trial.data != "camvid" or study.camvid
        if there and (seeds is None or trial.seed in seeds):
            first.setdefault(trial, claim)
    order = sorted(first, key=lambda trial: trial.seed)
    for number, trial in enumerate(order, 1):
        with study.alone(trial.name) as free:
            if free and in_folder(trial.name, study.measured) is None:
                print(f"{number}/{len(order)}  {trial.name}", flush=True)
                study.train(trial, first[trial].before(study, trial))
                borders = trial.contender in ("none", "l1") and not trial.variant
                measured(study.run(trial), study.measured, boundaries=borders)
    for claim in claims:
        claim.work(study)


def found(study: Study, claims: Sequence[Claim]) -> Results:
    """Returns the trials of the claims that are measured."""
    trials = unique([trial for claim in claims for trial in claim.trials(study)])
    runs = {trial: in_folder(trial.name, study.measured) for trial in trials}
    return Results({trial: run for trial, run in runs.items() if run is not None})


def write(study: Study, claim: Claim, output: Path) -> None:
    """Writes scores, comparisons and picture of a claim, and says what they come to."""
    output.mkdir(parents=True, exist_ok=True)
    results = found(study, [claim])
    comparisons = claim.comparisons(results, study)
    scores = claim.scores(results, study)
    write_table(output / f"{claim.letter}_scores.csv", scores)
    write_table(output / f"{claim.letter}_comparisons.csv", comparison_rows(comparisons))
    if scores and (figure := claim.picture(results, study)) is not None:
        write_bytes(output / f"{claim.letter}.png", png(figure))
    said, count = claim.verdict(comparisons), f"{len(results.found)} runs"
    if claim.letter == "g":
        said, count = answer(scores), f"{len({row['seed'] for row in scores})} paths"
    print(f"({claim.letter}) {claim.text}: {said}  ({count})")


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Writes rows as a CSV file, numbers to 6 digits; nothing where there are none."""
    if rows:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            for row in rows:
                writer.writerow({key: _cell(value) for key, value in row.items()})


def _cell(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
