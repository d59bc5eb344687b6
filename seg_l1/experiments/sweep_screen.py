"""The progress of a sweep: a live table on a terminal, elsewhere a line for each job that ends."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from seg_l1.config.commands import command_line
from seg_l1.config.short_names import explained, short_names, shortened
from seg_l1.display.run_text import compact_cost
from seg_l1.display.terminal import new_console
from seg_l1.errors import Interrupted
from seg_l1.experiments.sweep import went_wrong
from seg_l1.runs.directory import RunDirectory

WIDTH = 100
"""Columns that the table may fill before it leaves out what the compact networks cost."""

ENDED = ("completed", "failed")
STYLES = {"completed": "green", "failed": "red", "running": "cyan", "interrupted": "yellow"}


class Runs(Protocol):
    """Runs whose progress can be shown: a sweep, or the plan of a path."""

    path: Path

    def rows(self) -> list[dict[str, Any]]:
        """Returns a row per job: index, "swept" values, "same_as", and the row of its run."""

    def run(self, index: int) -> RunDirectory:
        """Returns the run directory of a job."""


class SweepScreen:
    """Context manager that shows the progress of runs, whatever process they are in.

    Args:
        sweep: the runs.
        again: the command that goes on with them.
        every: seconds between two looks at the run directories.
    """

    kind = "sweep"

    def __init__(self, sweep: Runs, *, again: str = "", every: float = 1.0) -> None:
        self.sweep, self.again, self.every = sweep, again, every
        rows = sweep.rows()
        self.names = short_names(row["swept"] for row in rows)
        self.console = console = new_console()
        self.started = time.monotonic()
        self.stop = threading.Event()
        self.closed: Interrupted | None = None
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self.before = work_done(rows)
        self.reported = {row["index"] for row in rows if row["status"] in ENDED}

    def __enter__(self) -> SweepScreen:
        self.say("\n".join([f"{self.kind}: {self.sweep.path}", *explained(self.names)]))
        self.say(counts(self.rows()))
        if self.live is not None:
            self.live.start()
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop.set()
        self.thread.join()
        if self.closed is not None and exception[0] is None:  # the signal came to nothing
            raise self.closed
        self._show()
        if self.live is not None:
            self.live.stop()
        rows = self.rows()
        self.say(f"\n{counts(rows)}")
        for row in rows:
            if went_wrong(row) and row["same_as"] is None:
                log = self.sweep.run(row["index"]).log
                sys.stderr.write(f"error: job {row['index']} {describe(row)} (see {log})\n")
        self.say(self.closing())

    def closing(self) -> str:
        """Returns the text that is printed at the end."""
        path = self.sweep.path
        statuses = {row["status"] for row in self.sweep.rows()}
        commands = [self.again] if self.again and statuses != {"completed"} else []
        if "completed" in statuses:
            commands.append(command_line("report", path))
        if statuses != {"pending"}:
            commands.append(f"tensorboard --logdir {shlex.quote(str(path))}")
        return "\n  ".join(
            [f"\nall results are in {path}\n  sweep.csv  sweep.json\n\nnext:", *commands]
        )

    def _watch(self) -> None:
        while not self.stop.wait(self.every):
            try:
                self._show()
            except Interrupted as error:  # the output was closed: stop the jobs, as Ctrl-C does
                self.closed = error
                os.kill(os.getpid(), signal.SIGINT)
                return

    def rows(self) -> list[dict[str, Any]]:
        """Returns the rows of the sweep, with short names of long values."""
        rows = self.sweep.rows()
        return [{**row, "swept": shortened(row["swept"], self.names)} for row in rows]

    def _show(self) -> None:
        rows = self.rows()
        if self.live is not None:
            self.live.update(Group(table(rows, max_rows=self.console.height - 5), self._line(rows)))
            self.live.refresh()
            return
        for row in rows:
            if row["status"] in ENDED and row["index"] not in self.reported:
                self.reported.add(row["index"])
                done = sum(r["status"] in ENDED for r in rows)
                self.say(f"[{done}/{len(rows)}] {describe(row)}")

    def say(self, text: str) -> None:
        """Prints a text, above the live table."""
        self.console.print(text)

    def _line(self, rows: list[dict[str, Any]]) -> Text:
        text, done = counts(rows), work_done(rows)
        if self.before < done < 1:
            left = (time.monotonic() - self.started) / (done - self.before) * (1 - done)
            text += f"; about {duration(left)} left"
        return Text(text)


def progress(row: dict[str, Any]) -> float:
    """Returns the share of a job that is done, by its epochs."""
    if row["status"] in ENDED:
        return 1.0
    return row["last_epoch"] / row["epochs"] if row["last_epoch"] and row["epochs"] else 0.0


def work_done(rows: list[dict[str, Any]]) -> float:
    """Returns the share of all jobs that is done, by epochs where their number is known of all."""
    distinct = [row for row in rows if row["same_as"] is None]
    by_epochs = all(row["epochs"] for row in distinct)
    work = [row["epochs"] if by_epochs else 1 for row in distinct]
    done = sum(n * progress(row) for n, row in zip(work, distinct, strict=True))
    return done / max(1, sum(work))


def table(rows: list[dict[str, Any]], max_rows: int) -> Table:
    """Returns a row per job; where there are more than `max_rows`, those that run or ended last."""
    if len(rows) > max_rows:
        rank = {"running": 0, "failed": 1, "interrupted": 1, "completed": 2, "pending": 3}
        kept = sorted(rows, key=lambda row: (rank[row["status"]], -row["index"]))[
            : max(1, max_rows)
        ]
        rows = sorted(kept, key=lambda row: row["index"])
    costs = [compact_cost(row["compact/multiply_adds"], row["multiply_adds"]) for row in rows]
    if any(costs):
        shown = _table(rows, costs)
        if Console(width=1000).measure(shown).maximum <= WIDTH:
            return shown
    return _table(rows, [])


def _table(rows: list[dict[str, Any]], costs: list[str]) -> Table:
    """Returns a row per job; with `costs`, of the compact networks, in a column of their own."""
    best = max((row["val/miou"] or 0 for row in rows), default=0)
    left_aligned = {*rows[0]["swept"], "status"}
    shown = Table(box=None, pad_edge=False)
    for name in (
        "#",
        *rows[0]["swept"],
        "status",
        "epoch",
        "val mIoU",
        "zeros",
        *["multiply-adds"][: len(costs)],
    ):
        shown.add_column(name, justify="left" if name in left_aligned else "right")
    for place, row in enumerate(rows):
        score, zeros = row["val/miou"], row["sparsity/exact"]
        same = "" if row["same_as"] is None else f" (= {row['same_as']})"
        epoch = f"{row['last_epoch'] or 0}/{row['epochs']}" if row["epochs"] else ""
        shown.add_row(
            str(row["index"]),
            *row["swept"].values(),
            Text(row["status"] + same, STYLES.get(row["status"], "dim")),
            epoch,
            "" if score is None else Text(f"{score:.4f}", "bold" if score == best else ""),
            "" if zeros is None else f"{100 * zeros:.1f} %",
            *costs[place : place + 1],
        )
    return shown


def describe(row: dict[str, Any]) -> str:
    """Returns one line about a job that has ended."""
    swept = " ".join(f"{key}={value}" for key, value in row["swept"].items())
    if row["status"] != "completed":
        return f"{row['status']} {swept}: {row['error']}"
    same = "" if row["same_as"] is None else f", the same run as job {row['same_as']}"
    return (
        f"completed {swept}: mIoU val {row['val/miou']:.4f},"
        f" {100 * row['sparsity/exact']:.1f} % zeros{same}"
    )


def counts(rows: list[dict[str, Any]]) -> str:
    """Returns how many jobs have each status, and the best score so far."""
    statuses = ("completed", "running", "failed", "interrupted", "pending")
    numbers = Counter(row["status"] for row in rows)
    parts = (f"{numbers[status]} {status}" for status in statuses if numbers[status])
    text = f"{len(rows)} jobs: {', '.join(parts)}"
    scored = [row for row in rows if row["val/miou"] is not None and row["status"] == "completed"]
    if scored:
        best = max(scored, key=lambda row: row["val/miou"])
        swept = " ".join(f"{key}={value}" for key, value in best["swept"].items())
        text += f"; best {best['val/miou']:.4f} with {swept}"
    return text


def duration(seconds: float) -> str:
    """Returns minutes and seconds, or hours and minutes.

    >>> duration(75), duration(7500)
    ('1:15 min', '2:05 h')
    """
    minutes = round(seconds) // 60
    if minutes < 60:
        return f"{minutes}:{round(seconds) % 60:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"
