"""Scores the best weights of a run, under the keys that training uses, as JSON.

    seg-l1 evaluate run=<run directory> [split=val|test] [dataset.root=...] [device=...]

Without `split` it is test, or val where the data set has no test split.

Exit codes: 0 done, 1 failed while running, 2 the input was wrong, 130 interrupted.
"""

from __future__ import annotations

import json
import sys

from seg_l1.cli.arguments import key_values

KEYS = ("run", "split", "dataset.root", "device")


def run(words: list[str]) -> int:
    """Prints the scores; returns the exit code."""
    typed = key_values(words, KEYS, required=("run",))
    from seg_l1.runs.files import finite
    from seg_l1.training.saved import evaluate_run

    root, device = typed.get("dataset.root"), typed.get("device")
    scores = evaluate_run(typed["run"], typed.get("split"), root=root, device=device)
    sys.stdout.write(json.dumps(finite(scores), indent=2) + "\n")
    return 0
