"""seg_l1: image segmentation with a penalty on the weights, and what the penalty did.

For other programs: `from seg_l1 import attach, Rule, penalties`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_ROOMS = {"attach": "seg_l1.solvers.attach", "Rule": "seg_l1.scope"}


def __getattr__(name: str) -> Any:
    """Imports on demand: the command answers a typing error without torch."""
    if name in _ROOMS:
        return getattr(import_module(_ROOMS[name]), name)
    raise AttributeError(f"module 'seg_l1' has no attribute '{name}'")
