"""Runs that belong to a sweep, a search or a path: when one of them may go on by itself."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from seg_l1.config.commands import command_line
from seg_l1.errors import RunError, UserError
from seg_l1.experiments.lock import lock
from seg_l1.experiments.sweep import Sweep

COPY = "copy its folder to another place and resume the copy"


def check_alone(run: Path, changed: Collection[str]) -> None:
    """Checks that a table stays right if a run goes on by itself.

    Args:
        run: its folder.
        changed: the keys whose values would change.

    Raises:
        UserError: if it is a run of a path; or of a sweep or a search that varies one of `changed`.
    """
    run = run.resolve()
    for folder in (run.parent, run.parent.parent):
        if (folder / "path.json").is_file():
            _refuse_path(run, folder)
    sweep = _sweep(run)
    varied = {*sweep.jobs[0].swept} if sweep else _columns(run.parent / "trials.csv")
    for key in varied.intersection(changed):
        raise UserError(
            f"{key}: the table in {run.parent} says what this run was trained with; {COPY}"
        )


@contextmanager
def alone(run: Path) -> Iterator[None]:
    """Context manager: no other process works on a run of a sweep; it waits until that is so."""
    run = run.resolve()
    with nullcontext() if _sweep(run) is None else lock(run.parent, run.name, wait=True):
        yield


def update_table(run: Path) -> None:
    """Updates the table of the sweep to which a run belongs, if there is one."""
    sweep = _sweep(run.resolve())
    if sweep is not None:
        with suppress(UserError, RunError):  # a full disk ends a run with a message of its own
            sweep.update()


def _refuse_path(run: Path, folder: Path) -> None:
    from seg_l1.experiments.path.plan import Plan

    again = command_line("path", *Plan(folder).words)
    longer = f"; for more epochs, {COPY}" if run.parent == folder else ""
    raise UserError(f"resume: {run} is a run of a path; go on with it by {again}{longer}")


def _sweep(run: Path) -> Sweep | None:
    """Returns the sweep that a run is a job of."""
    if not (run.parent / "sweep.json").is_file():
        return None
    try:
        sweep = Sweep(run.parent)
    except UserError:
        return None
    return sweep if run.name in (job.folder for job in sweep.jobs) else None


def _columns(table: Path) -> set[str]:
    if not table.is_file():
        return set()
    with open(table, newline="", encoding="utf-8") as file:
        return {*next(csv.reader(file), [])}
