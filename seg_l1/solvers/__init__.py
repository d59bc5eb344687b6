"""Solvers: how a penalty meets an optimizer."""

from seg_l1.solvers.base import Solver, weight_decay

__all__ = ["Solver", "weight_decay"]
