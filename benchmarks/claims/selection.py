"""(g) K-fold cross-validation chooses the strength: its regret on the test split."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

from benchmarks.claims.claim import Claim, Row
from benchmarks.claims.compare import Comparison, Results
from benchmarks.claims.measure import Measured, measured
from benchmarks.claims.trials import COMMON, SETTINGS, SIZES, Study, Trial
from seg_l1.display.style import BLUE, ORANGE, RED, new_figure, styled
from seg_l1.errors import RunError
from seg_l1.runs import files
from seg_l1.runs.directory import RunDirectory

ROOT = Path(__file__).parents[2]
IMAGES, FOLDS, SEEDS = 128, 5, range(3)
ACCEPTED = 0.02
"""A mean regret above this refutes the claim."""


def work(study: Study) -> None:
    """Follows the path on the folds, and that on all images at the same α, of each seed."""
    for seed in SEEDS:
        with study.alone(f"path_{seed}") as free:
            if free:
                folded = _path(study, seed, "folds", [f"path.folds={FOLDS}", "path.rule=best"])
                alphas = files.read_json(folded / "path.json")["alphas"]
                every = ",".join(f"{alpha:.9g}" for alpha in alphas)
                words = [f"path.alphas=[{every}]", f"dataset.parts={FOLDS}"]
                _path(study, seed, "all", words)


def _path(study: Study, seed: int, name: str, words: list[str]) -> Path:
    """Follows a path, or goes on with it; returns its folder.

    Raises:
        RunError: if it fails.
    """
    folder = study.folder / "paths" / f"{name}_s{seed}"
    if not (folder / "selection.json").is_file():
        common = [word for word in (*SETTINGS["digits"], *COMMON) if "compact" not in word]
        size = [f"limit.train={IMAGES}", f"limit.seed={seed}"]
        repeats = f"dataset.repeats={SIZES['digits'][-1] // IMAGES}"
        command = [
            sys.executable, str(ROOT / "scripts/path.py"), *common, *size, repeats,
            "regularizer=l1", f"seed={seed}", *words, f"path.folder={folder.absolute()}",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RunError((done.stderr.strip().splitlines() or ["path.py failed"])[-1])
    return folder


def along(study: Study, seed: int) -> list[tuple[float, Measured]]:
    """Returns (α, run) along the path on all images; [] where it is not finished."""
    folder = study.folder / "paths" / f"all_s{seed}"
    if not (folder / "selection.json").is_file():
        return []
    found = []
    for path in sorted((folder / "path").iterdir()):
        record = RunDirectory(path)
        if record.last.is_file() and record.best.is_file():
            alpha = float(record.read_config()["regularizer"]["alpha"])
            found.append((alpha, measured(record, study.folder / "measured" / f"path_s{seed}")))
    return found


def regrets(study: Study) -> list[Row]:
    """Returns a row per seed and rule: the α that is chosen, its test mIoU, and the regret."""
    rows = []
    for seed in SEEDS:
        path = along(study, seed)
        if not path:
            continue
        best_alpha, best = max(path, key=lambda pair: pair[1].numbers["test_miou"])
        choice = files.read_json(study.folder / "paths" / f"folds_s{seed}" / "selection.json")
        for rule, key in (("best mean", "best_alpha"), ("one standard error", "one_se_alpha")):
            alpha = float(choice[key])
            _, run = min(path, key=lambda pair: abs(pair[0] / alpha - 1))
            rows.append(
                {
                    "seed": seed, "rule": rule, "alpha": alpha,
                    "test_miou": run.numbers["test_miou"], "zeros": run.numbers["zeros"],
                    "best_alpha": best_alpha, "best_test_miou": best.numbers["test_miou"],
                    "regret": best.numbers["test_miou"] - run.numbers["test_miou"],
                }
            )  # fmt: skip
    return rows


def scores(results: Results, study: Study) -> list[Row]:
    return regrets(study)


def answer(rows: list[Row]) -> str:
    """Returns the verdict of the protocol."""
    by_rule = {
        rule: [r["regret"] for r in rows if r["rule"] == rule] for rule in {r["rule"] for r in rows}
    }
    if not by_rule:
        return "not tested"
    good = [fmean(regret) <= ACCEPTED for regret in by_rule.values()]
    return "true here" if all(good) else "false here" if not any(good) else "mixed"


def no_trials(study: Study) -> list[Trial]:
    return []


def no_comparisons(results: Results, study: Study) -> list[Comparison]:
    return []


@styled
def picture(results: Results, study: Study) -> Figure | None:
    """Test mIoU along the path of each seed, and what the rules choose."""
    rows = regrets(study)
    if not rows:
        return None
    figure = new_figure(7.2, 2.9)
    for axes, seed in zip(
        figure.subplots(1, len(SEEDS), sharey=True, squeeze=False)[0], SEEDS, strict=True
    ):
        path = along(study, seed)
        if not path:
            continue
        axes.plot([a for a, _ in path], [r.numbers["test_miou"] for _, r in path], "o-", ms=3.5,
                  color=BLUE)  # fmt: skip
        for row in rows:
            if row["seed"] == seed:
                color = ORANGE if row["rule"] == "best mean" else RED
                axes.axvline(row["alpha"], color=color, lw=1.2, label=row["rule"])
        axes.set_xscale("log")
        axes.set_xlabel("alpha")
        axes.set_title(f"seed {seed}: test mIoU")
    figure.axes[0].legend(fontsize=7)
    return figure


CLAIMS = [
    Claim("g", "folds choose the strength", no_trials, no_comparisons, scores, picture, work=work)
]
