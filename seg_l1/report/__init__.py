"""Compares runs over regularizer, α and seed."""

from seg_l1.report.page import write
from seg_l1.report.reading import collect

__all__ = ["collect", "write"]
