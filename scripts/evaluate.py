"""Scores the best weights of a run, under the keys that training uses, as JSON.

    python scripts/evaluate.py run=<run directory> [split=val|test] [dataset.root=...] [device=...]

Without `split` it is test, or val where the data set has no test split.

Exit codes as `train.py`: 0 done, 2 the input was wrong.
"""

from __future__ import annotations

import json
import sys

from seg_l1.errors import UserError, did_you_mean
from seg_l1.run import evaluate_run

KEYS = ("run", "split", "dataset.root", "device")


def main(words: list[str]) -> int:
    if {"-h", "--help"} & set(words):
        print(__doc__.strip())
        return 0
    try:
        typed = dict(word.split("=", 1) if "=" in word else (word, "") for word in words)
        for key in typed:
            if key not in KEYS:
                raise UserError(f"there is no key '{key}'.{did_you_mean(key, KEYS)}")
        if not typed.get("run"):
            raise UserError("run: must be given, as run=<run directory>")
        scores = evaluate_run(
            typed["run"],
            typed.get("split"),
            root=typed.get("dataset.root"),
            device=typed.get("device"),
        )
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    print(json.dumps(scores, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
