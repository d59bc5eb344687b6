"""Compaction: from a network with zeros to a smaller one with the same outputs."""

from seg_l1.compaction.capture import CaptureError
from seg_l1.compaction.compact import (
    CompactionError,
    CompactModel,
    Compactor,
    LayerChannels,
    compact,
)
from seg_l1.compaction.slicing import set_shapes

__all__ = [
    "CaptureError",
    "CompactModel",
    "CompactionError",
    "Compactor",
    "LayerChannels",
    "compact",
    "set_shapes",
]
