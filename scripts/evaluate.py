"""Scores the best weights of a run, under the keys that training uses, as JSON.

    python scripts/evaluate.py run=<run directory> [split=val|test] [dataset.root=...] [device=...]

Without `split` it is test, or val where the data set has no test split.

Exit codes as `train.py`: 0 done, 2 the input was wrong.
"""

from __future__ import annotations

import json
import sys

from seg_l1.cli.scripting import script
from seg_l1.runs.files import finite
from seg_l1.training.saved import evaluate_run

KEYS = ("run", "split", "dataset.root", "device")


def work(typed: dict[str, str]) -> int:
    root, device = typed.get("dataset.root"), typed.get("device")
    scores = evaluate_run(typed["run"], typed.get("split"), root=root, device=device)
    print(json.dumps(finite(scores), indent=2))
    return 0


def main(words: list[str]) -> int:
    return script(words, work, help_text=__doc__, keys=KEYS, needed=("run",))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
