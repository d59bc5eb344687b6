"""Compaction: from a network with zeros to a smaller one with the same outputs."""

from seg_l1.compaction.capture import CaptureError
from seg_l1.compaction.channel_groups import channel_groups
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
    "channel_groups",
    "compact",
    "set_shapes",
]
