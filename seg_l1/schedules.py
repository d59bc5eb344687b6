"""Schedules: functions of the step. λ(t) multiplies the penalty, and a factor the learning rate.

Shapes are functions of u in [0, 1], the part of the way that is done.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda u: u,
    "cosine": lambda u: (1 - math.cos(math.pi * u)) / 2,
}


def ramp_epochs(schedule: str, start: float, length: float | None, *, epochs: float) -> float:
    """Returns the number of epochs after `start` in which λ(t) reaches 1.

    Args:
        schedule: name of the schedule; "constant" has no ramp and gives 0.
        start: number of epochs before the ramp.
        length: the result for the other schedules; None = half of the epochs that follow `start`.
        epochs: number of epochs of the whole training.

    >>> ramp_epochs("linear", 0, None, epochs=20), ramp_epochs("cosine", 8, None, epochs=20)
    (10.0, 6.0)
    """
    if schedule == "constant":
        return 0.0
    return (epochs - start) / 2 if length is None else length


@dataclass(frozen=True)
class Constant:
    """λ(t) = 0 before `start`, then 1."""

    start: int = 0

    def __call__(self, step: int) -> float:
        return float(step >= self.start)


@dataclass(frozen=True)
class Ramp:
    """λ(t) = 0 before `start`, then from 0 to 1 within `length` steps, then 1.

    `shape` is "linear" or "cosine".
    """

    start: int
    length: int
    shape: str = "linear"

    def __call__(self, step: int) -> float:
        if step < self.start:
            return 0.0
        return SHAPES[self.shape](min(1.0, (step - self.start) / max(1, self.length)))


@dataclass(frozen=True)
class Decay:
    """λ(t) = 0 before `start`, then from `multiple` > 0 to 1, geometrically, within `length` steps.

    With a large `multiple` the network goes from sparse to dense, as along a regularization path.
    """

    start: int
    length: int
    multiple: float

    def __call__(self, step: int) -> float:
        if step < self.start:
            return 0.0
        return self.multiple ** (1 - min(1.0, (step - self.start) / max(1, self.length)))


@dataclass(frozen=True)
class LearningRate:
    """The factor of the learning rate at a step: warm-up, then from 1 to `final`.

    Args:
        total: optimizer steps of the whole training.
        warmup: share of `total` in which the factor rises from `initial` to 1, as a cosine.
        initial: the factor at step 0 where there is a warm-up.
        final: the factor at the end.
        power: the way from 1 to `final` after the warm-up is a cosine for None, else
            (1 − u)^power; 0 keeps the factor at 1.
    """

    total: int
    warmup: float = 0.0
    initial: float = 0.04
    final: float = 0.0
    power: float | None = None

    def __call__(self, step: int) -> float:
        rise = self.warmup * self.total
        if step < rise:
            return self.initial + (1 - self.initial) * SHAPES["cosine"](step / rise)
        u = min(1.0, (step - rise) / max(1.0, self.total - rise))
        left = 1 - SHAPES["cosine"](u) if self.power is None else (1 - u) ** self.power
        return self.final + (1 - self.final) * left
