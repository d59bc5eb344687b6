"""The report: what runs say when they are compared over α and seeds."""

from seg_l1.report.page import write
from seg_l1.report.reading import collect

__all__ = ["collect", "write"]
