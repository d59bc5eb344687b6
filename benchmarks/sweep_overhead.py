"""What a sweep of N jobs costs against N single runs of the same configurations.

    python benchmarks/sweep_overhead.py [--jobs 6] [--rounds 2] [--epochs 2]

Single runs pay Python's imports and the data each; a sweep pays them once, but plans, composes
every job several times and keeps its table. Both are timed as whole processes, in alternation; the
target is a sweep that takes at most 1.05 times as long. "outside" is the share of the sweep's
time that belongs to no job.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAIN = Path(__file__).parents[1] / "train.py"


def timed(folder: Path, *words: str) -> float:
    """Seconds that the command takes."""
    started = time.perf_counter()
    subprocess.run([sys.executable, str(TRAIN), *words], cwd=folder, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("jobs", 6), ("rounds", 2), ("epochs", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    chosen = parser.parse_args()
    common = [f"trainer.epochs={chosen.epochs}"]
    seeds = [str(seed) for seed in range(chosen.jobs)]
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index in range(chosen.rounds):
            where = f"hydra.sweep.dir=sweep{index}"
            sweep = timed(folder, "-m", *common, f"seed={','.join(seeds)}", where)
            single = sum(timed(folder, *common, f"seed={seed}") for seed in seeds)
            with open(folder / f"sweep{index}" / "sweep.csv", newline="", encoding="utf-8") as file:
                inside = sum(float(row["wall_time_s"]) for row in csv.DictReader(file))
            ratios.append(sweep / single)
            print(
                f"round {index}: sweep {sweep:.1f} s, {chosen.jobs} runs {single:.1f} s,"
                f" ratio {ratios[-1]:.2f}; outside {100 * (1 - inside / sweep):.0f} %",
                flush=True,
            )
    print(f"median ratio {statistics.median(ratios):.2f} (target at most 1.05)")


if __name__ == "__main__":
    main()
