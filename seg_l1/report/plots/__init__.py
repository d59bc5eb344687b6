"""The figures of the report.

Colors are safe for color-blind readers, and every regularizer has its own color and marker.

Scores in [0, 1] are drawn as they are, shares of zeros in percent. Spread is one standard deviation
over seeds. A function returns None where there is nothing to draw.
"""

from seg_l1.report.plots.class_table import class_table
from seg_l1.report.plots.curves import against_alpha
from seg_l1.report.plots.histograms import histograms
from seg_l1.report.plots.trade_off import trade_off

__all__ = ["against_alpha", "class_table", "histograms", "trade_off"]
