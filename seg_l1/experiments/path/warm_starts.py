"""A regularization path: the same problem at one alpha after the other, with warm starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

State = TypeVar("State")


def path_order(alphas: Sequence[float], direction: str) -> list[float]:
    """Returns `alphas` in the order of the path: falling for "down", rising for "up"."""
    return sorted(alphas, reverse=direction == "down")


def regularization_path(
    alphas: Sequence[float],
    fit: Callable[[float, State | None], State],
    *,
    dead: Callable[[State], bool] = lambda state: False,
    merit: Callable[[State], float] | None = None,
    warm_start: bool = True,
    collapse: float = 0.0,
) -> Iterator[tuple[float, State]]:
    """Yields (alpha, what `fit` returned), in the order of `alphas`.

    A dead network cannot be a start: in a network of several layers the gradient at zero is zero,
    so that it would stay dead at any alpha. On a falling path the next fit is a cold start instead;
    a rising path ends, and it also ends where `merit` falls below `collapse` times its best so far.

    Args:
        fit: (alpha, the state to start from, None = cold start) -> the state at this alpha.
        dead: whether a state is one of a network whose outputs are constant.
        merit: score of a state, positive, larger is better; None = the path never ends early.
        warm_start: False fits each alpha from a cold start.
        collapse: share of the best merit.
    """
    rising = len(alphas) > 1 and alphas[-1] > alphas[0]
    start, best = None, 0.0
    for alpha in alphas:
        state = fit(alpha, start)
        yield alpha, state
        lost = dead(state)
        if merit is not None:
            best = max(best, merit(state))
            lost |= rising and merit(state) < collapse * best
        if lost and rising:
            return
        start = state if warm_start and not lost else None
