"""One path: the same problem at one strength after the other, each warm-started from the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

State = TypeVar("State")


def order(alphas: Sequence[float], direction: str) -> list[float]:
    """The strengths in the order of the path: falling for "down", rising for "up"."""
    return sorted(alphas, reverse=direction == "down")


def trace(
    alphas: Sequence[float],
    fit: Callable[[float, State | None], State],
    *,
    dead: Callable[[State], bool] = lambda state: False,
    merit: Callable[[State], float] | None = None,
    warm_start: bool = True,
    collapse: float = 0.0,
) -> Iterator[tuple[float, State]]:
    """Yields (strength, what `fit` returned), in the order of `alphas`.

    A dead network cannot be a start: in a network of several layers the gradient at zero is zero,
    so that it would stay dead at any strength. Where strengths fall, the next one starts cold
    instead; where they rise, the path ends, and it also ends where `merit` (larger is better,
    positive) falls below `collapse` times its best so far.

    Args:
        fit: (strength, the state to start from, None = cold) -> the state at this strength.
    """
    rising = len(alphas) > 1 and alphas[-1] > alphas[0]
    before, best = None, 0.0
    for alpha in alphas:
        state = fit(alpha, before)
        yield alpha, state
        lost = dead(state)
        if merit is not None:
            best = max(best, merit(state))
            lost |= rising and merit(state) < collapse * best
        if lost and rising:
            return
        before = state if warm_start and not lost else None
