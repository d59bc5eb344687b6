"""Solvers: how a penalty meets an optimizer."""

from __future__ import annotations

from typing import Any, Protocol


class Solver(Protocol):
    """Carries out the penalty around `optimizer.step()`; `strength` is α·λ(t)."""

    def before_step(self, strength: float) -> None:
        """Called when the gradients of the data term are complete and unscaled, before clipping."""
        ...

    def after_step(self, strength: float) -> None:
        """Called once after every optimizer step that was not skipped."""
        ...

    def flush(self) -> None:
        """Called at the end of an epoch, before weights are evaluated: restores exact zeros."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
