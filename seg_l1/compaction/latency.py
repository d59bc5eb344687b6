"""Time that networks take, compared fairly on a noisy machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch

Key = TypeVar("Key", bound=Hashable)

MIN_ROUNDS = 7
"""At least as many calls of each, however long they take."""


def median_ms(
    calls: Mapping[Key, Callable[[], object]],
    *,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Key, float]:
    """Returns the median time of each call in milliseconds.

    The calls take turns, so that what slows the machine down slows all of them down.

    Args:
        seconds: how long to measure in all, apart from a call of each to warm up.
        clock: returns seconds; for calls that compute in the calling thread, `time.thread_time`
            leaves out the time that other processes take.
    """
    for call in calls.values():
        call()
    times: dict[Key, list[float]] = {key: [] for key in calls}
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < MIN_ROUNDS or time.perf_counter() < end:
        for key, call in calls.items():
            started = clock()
            call()
            times[key].append(clock() - started)
        rounds += 1
    return {key: 1e3 * statistics.median(values) for key, values in times.items()}


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Context manager: torch computes with `count` threads; denormals are flushed to 0 for good."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
