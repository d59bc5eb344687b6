"""The main job, as a user runs it: time, first progress, mIoU and zeros over three seeds.

    python benchmarks/default_run.py

Targets: at most 120 s on 2 CPU cores, first progress within 10 s, validation mIoU of at least 0.80
at 85 % exact zeros or more, and at most 0.01 below the same budget without a penalty. Runs of both
kinds alternate, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def measure(overrides: list[str], folder: Path) -> dict[str, float]:
    """One run: wall time, seconds to the first line about a training step, and its best row."""
    started = time.perf_counter()
    command = [sys.executable, "-u", "train.py", *overrides, f"hydra.run.dir={folder}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    first = None
    for line in process.stdout:
        if first is None and line.startswith("step "):
            first = time.perf_counter() - started
    if process.wait():
        raise SystemExit(f"{' '.join(command)} failed")
    wall = time.perf_counter() - started
    summary = json.loads((folder / "summary.json").read_text())
    best = summary["best"]
    return {
        "wall_s": wall,
        "first_step_s": first,
        "val_miou": best["val/miou"],
        "zeros": best["sparsity/exact"],
        "gap": best["gap/miou"],
        "boundary_f1": best["val/boundary_f1"],
        "test_miou": summary.get("test", {}).get("test/miou", float("nan")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--contenders", nargs="*", default=["", "regularizer=none"])
    parser.add_argument("overrides", nargs="*", help="added to every run, such as dataset=camvid")
    options = parser.parse_args()
    contenders = {words or "default": words.split() for words in options.contenders}
    results = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            for number, (name, overrides) in enumerate(contenders.items()):
                words = [*options.overrides, *overrides, f"seed={seed}"]
                row = measure(words, Path(folder) / f"{number}_{seed}")
                results[name].append(row)
                print(name, seed, {key: round(value, 4) for key, value in row.items()}, flush=True)
    for name, rows in results.items():
        print(f"\n{name}: mean ± standard deviation over {len(rows)} seeds")
        for key in rows[0]:
            values = [row[key] for row in rows]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            print(f"  {key:<14} {statistics.mean(values):.4f} ± {spread:.4f}")


if __name__ == "__main__":
    main()
