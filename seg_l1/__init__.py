"""seg_l1: image segmentation with a penalty on the weights, and what the penalty did."""

__version__ = "0.1.0"
