"""Compares runs over regularizer, α and seed: tables, figures, tests, as one HTML file.

    python scripts/report.py <sweep or run folders> [output=<folder>]

Takes sweeps (outputs/sweeps/<sweep>), single runs and folders full of them, together. Writes
report.html (it holds its figures and needs nothing else), runs.csv, best.csv and each figure as
PNG into `output`, without it into report/ in the first folder.

Exit codes as `train.py`: 0 done, 2 the input was wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path

from seg_l1.cli.scripting import script
from seg_l1.errors import UserError

KEYS = ("output",)


def work(folders: list[str], typed: dict[str, str]) -> int:
    from seg_l1 import report

    if not all(folders) or not folders:
        raise UserError("give one or more folders: python scripts/report.py outputs/sweeps/<sweep>")
    found = report.collect(folders)
    page = report.write(found, Path(typed.get("output") or Path(folders[0]) / "report"))
    left_out = f", {len(found.unfinished)} without a result" if found.unfinished else ""
    print(f"{len(found.runs)} runs{left_out}: {page}")
    return 0


def main(words: list[str]) -> int:
    folders = [w for w in words if not w.startswith("-") and ("=" not in w or Path(w).is_dir())]
    rest = [word for word in words if word not in folders]
    return script(rest, lambda typed: work(folders, typed), help_text=__doc__, keys=KEYS, needed=())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
