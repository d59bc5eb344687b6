"""What a pixel of a mask may hold besides a class."""

from __future__ import annotations

IGNORE = 255
"""The mask value of a pixel that has no label; it counts in no loss and in no metric."""
