"""Kills training processes at random moments and compares what they end with, bit for bit.

    python benchmarks/kills.py [kills=50]

Runs on tiny digits scenes, of every kind in `tests/kills.py` in turn, and a path with two folds:
each is started, killed with SIGKILL (at a random time, or before or after a file takes its place),
resumed, killed again, and at last finished, and then compared with a run that was left alone:
weights, optimizer, solver, random generators, metrics.csv, summary.json (times aside).
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.kills import (
    BASE,
    KINDS,
    PATH,
    differences,
    finished,
    moments,
    outcome,
    path_outcome,
    path_with_kills,
    run_with_kills,
)  # fmt: skip


def main(words: list[str]) -> int:
    wanted = int(dict(word.split("=") for word in words).get("kills", 50))
    each = -(-wanted // (len(KINDS) + 1))
    kills, wrong = 0, []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        log = root / "log"
        for number, (kind, special) in enumerate(KINDS.items()):
            words = [*BASE, *special]
            whole, other = root / f"{kind} whole", root / f"{kind} killed"
            finished([*words, f"hydra.run.dir='{whole}'"], log)
            done = run_with_kills(words, other, moments(2 * each, 1.5, 12, seed=number), log)
            found = differences(outcome(whole), outcome(other))
            print(f"{kind}: {done} kills, {len(found)} differences", *found[:5], flush=True)
            kills, wrong = kills + done, wrong + found
        for name, count in (("whole", 0), ("killed", 2 * each)):
            (root / name).mkdir()
            os.chdir(root / name)
            done = path_with_kills(PATH, count, 6.0, log)
        found = differences(path_outcome(root / "whole/p"), path_outcome(root / "killed/p"))
        print(f"path: {done} kills, {len(found)} differences", *found[:5], flush=True)
        kills, wrong = kills + done, wrong + found
        os.chdir("/")
    print(f"{kills} kills in all, {len(wrong)} differences")
    return int(bool(wrong) or kills < wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
