"""A sweep on the screen: a live table on a terminal, elsewhere a line for each job that ends."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from seg_l1.experiments.sweep import Sweep, went_wrong

ENDED = ("completed", "failed")
STYLES = {"completed": "green", "failed": "red", "running": "cyan", "interrupted": "yellow"}


class SweepScreen:
    """Shows how far `sweep` is while the block lasts, whatever process its jobs run in.

    A thread looks at the run directories every `every` seconds.
    """

    kind = "sweep"

    def __init__(self, sweep: Sweep, *, every: float = 1.0) -> None:
        self.sweep, self.every, self.interrupted = sweep, every, False
        self.console = console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
        self.begun = time.monotonic()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        rows = sweep.rows()
        self.before = work_done(rows)
        self.told = {row["index"] for row in rows if row["status"] in ENDED}

    def __enter__(self) -> SweepScreen:
        self._print(f"{self.kind}: {self.sweep.path}\n{counts(self.sweep.rows())}")
        if self.live is not None:
            self.live.start()
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop.set()
        self.thread.join()
        self._show()
        if self.live is not None:
            self.live.stop()
        rows = self.sweep.rows()
        self._print(f"\n{counts(rows)}")
        for row in rows:
            if went_wrong(row) and row["same_as"] is None:
                log = self.sweep.run(row["index"]).log
                sys.stderr.write(f"error: job {row['index']} {describe(row)} (see {log})\n")
        self._print(self.closing())

    def closing(self) -> str:
        """What is said at the end."""
        path = self.sweep.path
        return (
            f"\neverything lies in {path}\n  sweep.csv  sweep.json\n\nnext:\n"
            f"  python scripts/report.py {path}\n  tensorboard --logdir {path}"
        )

    def _watch(self) -> None:
        while not self.stop.wait(self.every):
            self._show()

    def _show(self) -> None:
        rows = self.sweep.rows()
        if self.live is not None:
            self.live.update(Group(table(rows, room=self.console.height - 5), self._line(rows)))
            self.live.refresh()
            return
        for row in rows:
            if row["status"] in ENDED and row["index"] not in self.told:
                self.told.add(row["index"])
                done = sum(r["status"] in ENDED for r in rows)
                self._print(f"[{done}/{len(rows)}] {describe(row)}")

    def _print(self, text: str) -> None:
        self.console.print(text)

    def _line(self, rows: list[dict[str, Any]]) -> Text:
        text, done = counts(rows), work_done(rows)
        if self.before < done < 1:
            left = (time.monotonic() - self.begun) / (done - self.before) * (1 - done)
            text += f"; about {duration(left)} to go"
        return Text(text)


def progress(row: dict[str, Any]) -> float:
    """The share of a job that is done, by its epochs."""
    if row["status"] in ENDED:
        return 1.0
    return row["last_epoch"] / row["epochs"] if row["last_epoch"] and row["epochs"] else 0.0


def work_done(rows: list[dict[str, Any]]) -> float:
    """The share of all jobs that is done, by their epochs where those are known of each."""
    own = _own(rows)
    known = all(row["epochs"] for row in own)
    work = [row["epochs"] if known else 1 for row in own]
    return sum(n * progress(row) for n, row in zip(work, own, strict=True)) / max(1, sum(work))


def table(rows: list[dict[str, Any]], room: int) -> Table:
    """A row per job, of at most `room` rows: those that run or have just ended come first."""
    if len(rows) > room:
        rank = {"running": 0, "failed": 1, "interrupted": 1, "completed": 2, "pending": 3}
        kept = sorted(rows, key=lambda row: (rank[row["status"]], -row["index"]))[: max(1, room)]
        rows = sorted(kept, key=lambda row: row["index"])
    best = max((row["val/miou"] or 0 for row in rows), default=0)
    left = {*rows[0]["swept"], "status"}
    shown = Table(box=None, pad_edge=False)
    for name in ("#", *rows[0]["swept"], "status", "epoch", "val mIoU", "zeros"):
        shown.add_column(name, justify="left" if name in left else "right")
    for row in rows:
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
        )
    return shown


def describe(row: dict[str, Any]) -> str:
    """One line about a job that has ended."""
    words = " ".join(f"{key}={value}" for key, value in row["swept"].items())
    if row["status"] != "completed":
        return f"{row['status']} {words}: {row['error']}"
    same = "" if row["same_as"] is None else f", the same run as job {row['same_as']}"
    return (
        f"completed {words}: mIoU val {row['val/miou']:.4f},"
        f" {100 * row['sparsity/exact']:.1f} % zeros{same}"
    )


def counts(rows: list[dict[str, Any]]) -> str:
    """How many jobs are in which state, and the best so far."""
    states = ("completed", "running", "failed", "interrupted", "pending")
    found = [(sum(row["status"] == state for row in rows), state) for state in states]
    text = f"{len(rows)} jobs: " + ", ".join(f"{n} {state}" for n, state in found if n)
    scored = [row for row in rows if row["val/miou"] is not None and row["status"] == "completed"]
    if scored:
        best = max(scored, key=lambda row: row["val/miou"])
        words = " ".join(f"{key}={value}" for key, value in best["swept"].items())
        text += f"; best {best['val/miou']:.4f} with {words}"
    return text


def duration(seconds: float) -> str:
    """Minutes and seconds, or hours and minutes.

    >>> duration(75), duration(7500)
    ('1:15 min', '2:05 h')
    """
    minutes = round(seconds) // 60
    if minutes < 60:
        return f"{minutes}:{round(seconds) % 60:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def _own(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["same_as"] is None]
