"""Compaction: from a network with zeros to a smaller one with the same outputs."""

from seg_l1.compaction.capture import CaptureError
from seg_l1.compaction.compact import CompactionError, CompactModel, LayerChannels, compact

__all__ = ["CaptureError", "CompactModel", "CompactionError", "LayerChannels", "compact"]
