"""Compares runs over regularizer, α and seed: tables, figures, tests, as one HTML file.

    seg-l1 report <sweep or run folders> [output=<folder>]

Takes sweeps (outputs/sweeps/<sweep>), single runs and folders full of them, together. Writes
report.html (it holds its figures and needs nothing else), runs.csv, best.csv and each figure as
PNG into `output`, without it into report/ in the first folder.

Exit codes: 0 done, 1 failed while running, 2 the input was wrong, 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path

from seg_l1.cli.arguments import at_home, key_values
from seg_l1.config.commands import command_line
from seg_l1.errors import UserError


def run(words: list[str]) -> int:
    """Writes the report; returns the exit code."""
    folders = [w for w in words if not w.startswith("-") and ("=" not in w or Path(w).is_dir())]
    typed = key_values([word for word in words if word not in folders], ("output",))
    folders = [at_home(folder) for folder in folders]
    if not all(folders) or not folders:
        example = f"{command_line('report')} outputs/sweeps/<sweep>"
        raise UserError(f"give one or more folders: {example}")
    from seg_l1 import report

    found = report.collect(folders)
    page = report.write(found, Path(typed.get("output") or Path(folders[0]) / "report"))
    left_out = f", {len(found.unfinished)} without a result" if found.unfinished else ""
    count = f"{len(found.runs)} run{'s' * (len(found.runs) != 1)}"
    sys.stdout.write(f"wrote {page} ({count}{left_out})\n")
    return 0
