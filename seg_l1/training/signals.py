"""Signals that ask a run to stop: Ctrl-C, and the warnings of a cluster."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

WARNINGS: tuple[int, ...] = (signal.SIGUSR1, signal.SIGUSR2)
"""Signals by which a cluster warns that a job's time is nearly over; launchers handle them too."""

NUMBERS: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM, *WARNINGS)
"""Signals that stop a run."""


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Context manager: yields a function that returns whether one of `NUMBERS` has arrived.

    After the first signal, SIGINT raises KeyboardInterrupt, as Python does by default. `WARNINGS`
    that arrived are passed on, at the end, to the launcher, which may have the job requeued.
    """
    received: list[int] = []

    def handle(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.getsignal(number) for number in NUMBERS}
    try:
        for number in NUMBERS:
            signal.signal(number, handle)
    except ValueError:  # not in the main thread: the caller keeps its handlers
        before = {}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in {*received} & {*WARNINGS}:
            if callable(before.get(number)):
                signal.raise_signal(number)
