"""A look at a data set before training: what is in it, what is odd, what the network sees."""

from seg_l1.experiments.look.page import write

__all__ = ["write"]
