"""Weights of the classes in a loss, from their shares of the training pixels."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from seg_l1.data.split import SegmentationData


def class_weights(
    kind: str, pixel_shares: Sequence[float], present_shares: Sequence[float]
) -> list[float]:
    """Returns a weight per class from the labeled pixels of the training images.

    A class without training pixels has weight 0, which no training pixel uses.

    Args:
        kind: "inverse": 1/(share_c · number of classes present), so that the mean weight of a pixel
            is 1 and α keeps its meaning. "median": median(f)/f_c with f_c = `present_shares`
            (Eigen, Fergus, 2015); the mean weight of a pixel is then not 1.
        pixel_shares: pixels of each class / pixels of all.
        present_shares: pixels of each class / pixels of the images in which it occurs.

    Raises:
        ValueError: on an unknown kind.
    """
    if kind not in ("inverse", "median"):
        raise ValueError(f"class_weights: got {kind!r}, expected inverse or median")
    shares = pixel_shares if kind == "inverse" else present_shares
    present = [share for share in shares if share > 0]
    top = 1 / max(1, len(present)) if kind == "inverse" else median(present or [0.0])
    return [top / share if share > 0 else 0.0 for share in shares]


def resolve_class_weights(
    weights: str | Sequence[float] | None, data: SegmentationData
) -> list[float] | None:
    """Returns one weight per class of `data`, where `weights` may be a kind of `class_weights`.

    Raises:
        ValueError: if there are not as many as classes, or if all are 0.
    """
    if weights is None:
        return None
    if isinstance(weights, str):
        return class_weights(weights, data.pixel_shares, data.present_shares)
    if len(weights) != data.num_classes:
        raise ValueError(f"{len(weights)} numbers for {data.num_classes} classes")
    if not any(weights):
        raise ValueError("all are 0, so that nothing is learned; give some above 0")
    return list(weights)
