"""seg_l1: image segmentation with a penalty on the weights, and what the penalty did.

For other programs: `from seg_l1 import attach, compact, load, Rule, penalties`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seg_l1 import penalties
    from seg_l1.compaction import compact
    from seg_l1.scope import Rule
    from seg_l1.training.attach import attach
    from seg_l1.training.segmenter import load

__all__ = ["Rule", "attach", "compact", "load", "penalties"]
__version__ = "0.1.0"

_MODULES = {
    "attach": "seg_l1.training.attach",
    "compact": "seg_l1.compaction",
    "load": "seg_l1.training.segmenter",
    "Rule": "seg_l1.scope",
}


def __getattr__(name: str) -> Any:
    """Imports on demand, so that the command answers a typing error without torch."""
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    if name in __all__:
        return import_module(f"seg_l1.{name}")
    raise AttributeError(f"module 'seg_l1' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
