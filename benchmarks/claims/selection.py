"""(g) K-fold cross-validation chooses the strength: its regret on the test split."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

from benchmarks.claims.claim import Claim, Row
from benchmarks.claims.compare import Comparison, Results
from benchmarks.claims.measure import measured
from benchmarks.claims.trials import COMMON, SETTINGS, SIZES, Study, Trial
from seg_l1.display.style import BLUE, ORANGE, RED, new_figure, styled
from seg_l1.errors import RunError
from seg_l1.runs import files
from seg_l1.runs.directory import RunDirectory

ROOT = Path(__file__).parents[2]
IMAGES, FOLDS, SEEDS = 128, 5, range(2)
RULES = {"best mean": "best_alpha", "one standard error": "one_se_alpha"}
ACCEPTED = 0.02
"""A mean regret above this refutes the claim."""


def work(study: Study) -> None:
    """Follows the path on the folds, and that on all images at the same α, of each seed."""
    for seed in SEEDS:
        with study.alone(f"path_{seed}") as free:
            if free and not _file(study, seed).is_file():
                folded = _path(study, seed, "folds", [f"path.folds={FOLDS}", "path.rule=best"])
                choice = files.read_json(folded / "selection.json")
                _measure(study, seed, choice, whole_path(study, seed, folded, choice))


def whole_path(study: Study, seed: int, folded: Path, choice: Row) -> list[Path]:
    """Returns the runs of the path on all images at every α of the folds."""
    if choice["best_alpha"] == min(choice["alphas"]):  # the refit has followed it to its end
        return [*(folded / "all").iterdir(), folded / "refit"]
    every = ",".join(f"{alpha:.9g}" for alpha in choice["alphas"])
    words = [f"path.alphas=[{every}]", f"dataset.parts={FOLDS}"]
    return list((_path(study, seed, "all", words) / "path").iterdir())


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


def along(study: Study, seed: int) -> list[dict[str, float]]:
    """Returns the scores along the path on all images; [] where it is not finished."""
    path = _file(study, seed)
    return files.read_json(path)["path"] if path.is_file() else []


def _file(study: Study, seed: int) -> Path:
    return study.measured / f"path_s{seed}.json"


def _measure(study: Study, seed: int, choice: Row, runs: list[Path]) -> None:
    """Writes what the folds chose, and the scores of each α along the path on all images."""
    path = []
    for record in map(RunDirectory, runs):
        if record.last.is_file() and record.best.is_file():
            run = measured(record, study.folder / "paths" / f"measured_s{seed}", boundaries=False)
            path.append({"alpha": float(record.read_config()["regularizer"]["alpha"]),
                         **run.numbers})  # fmt: skip
    path.sort(key=lambda run: -run["alpha"])
    chosen = {rule: float(choice[key]) for rule, key in RULES.items()}
    study.measured.mkdir(parents=True, exist_ok=True)
    files.write_json(_file(study, seed), {"chosen": chosen, "path": path})


def regrets(study: Study) -> list[Row]:
    """Returns a row per seed and rule: the α that is chosen, its test mIoU, and the regret."""
    rows = []
    for seed in SEEDS:
        path = along(study, seed)
        if not path:
            continue
        best = max(path, key=lambda run: run["test_miou"])
        for rule, alpha in files.read_json(_file(study, seed))["chosen"].items():
            run = min(path, key=lambda run: abs(run["alpha"] / alpha - 1))
            rows.append(
                {
                    "seed": seed, "rule": rule, "alpha": alpha,
                    "test_miou": run["test_miou"], "zeros": run["zeros"],
                    "best_alpha": best["alpha"], "best_test_miou": best["test_miou"],
                    "regret": best["test_miou"] - run["test_miou"],
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


def needs(row: Comparison) -> str | None:
    return None


def no_comparisons(results: Results, study: Study) -> list[Comparison]:
    return []


@styled
def picture(results: Results, study: Study) -> Figure | None:
    """Test mIoU along the path of each seed, and what the rules choose."""
    rows = regrets(study)
    if not rows:
        return None
    figure = new_figure(5.4, 2.9)
    for axes, seed in zip(
        figure.subplots(1, len(SEEDS), sharey=True, squeeze=False)[0], SEEDS, strict=True
    ):
        path = along(study, seed)
        if not path:
            continue
        alphas, scores = zip(*((run["alpha"], run["test_miou"]) for run in path), strict=True)
        axes.plot(alphas, scores, "o-", ms=3.5, color=BLUE)
        for row in rows:
            if row["seed"] == seed:
                best = row["rule"] == "best mean"
                style = {"color": ORANGE, "lw": 2.4} if best else {"color": RED, "ls": "--"}
                axes.axvline(row["alpha"], label=row["rule"], **style)
        axes.set_xscale("log")
        axes.set_xlabel("alpha")
        axes.set_title(f"seed {seed}: test mIoU")
    figure.axes[0].legend(fontsize=7)
    return figure


CLAIMS = [
    Claim(
        "g",
        "folds choose the strength",
        no_trials,
        no_comparisons,
        needs,
        scores,
        picture,
        work=work,
    )
]
