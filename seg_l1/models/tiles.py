"""Images larger than memory: overlapping tiles, each pixel from the tile it is deepest in.

This is the overlap-tile strategy of Ronneberger et al. (2015). Where half of the overlap is at
least the radius of the receptive field, the logits are those of the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

ALIGN = 32
"""Tiles start at multiples of this, so that pooling windows are those of the whole image."""

Network = Callable[["Tensor"], "Tensor"]
"""(N, C, H, W) -> logits (N, K, H, W)."""


def tiled(
    model: Network, images: Tensor, tile: Sequence[int] | None, overlap: float = 0.25
) -> Tensor:
    """Returns the logits (N, K, H, W) of whole `images`, computed tile by tile.

    Args:
        tile: (H, W), at least 64, preferably multiples of 32; None = one tile.
        overlap: share of a tile that its neighbor covers too (at most all but 32 pixels).
    """
    pieces = tiles(model, images, tile, overlap)
    rows, columns, logits = next(pieces)
    if logits.shape[-2:] == images.shape[-2:]:
        return logits
    result = logits.new_empty(*logits.shape[:2], *images.shape[-2:])
    result[..., rows, columns] = logits
    for rows, columns, logits in pieces:
        result[..., rows, columns] = logits
    return result


def tiles(
    model: Network, images: Tensor, tile: Sequence[int] | None, overlap: float = 0.25
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yields (rows, columns, logits there), which together cover `images` once.

    `images` may be on a device other than the model's: wrap the model to move each tile. NumPy
    arrays work too, if `model` maps arrays to arrays.
    """
    height, width = images.shape[-2:]
    for top, bottom, rows in spans(height, tile[0] if tile else height, overlap):
        for left, right, columns in spans(width, tile[1] if tile else width, overlap):
            logits = model(images[..., top:bottom, left:right])
            inner = (
                slice(rows.start - top, rows.stop - top),
                slice(columns.start - left, columns.stop - left),
            )
            yield rows, columns, logits[..., inner[0], inner[1]]


def spans(length: int, tile: int, overlap: float) -> list[tuple[int, int, slice]]:
    """Returns (start, stop, the part that is used) of the tiles along one axis.

    The last tile is up to 31 pixels longer, so that it too starts at a multiple of 32.

    >>> spans(100, 64, 0.5)
    [(0, 64, slice(0, 48, None)), (32, 100, slice(48, 100, None))]
    """
    if length <= tile:
        return [(0, length, slice(0, length))]
    step = max(ALIGN, int(tile * (1 - overlap)) // ALIGN * ALIGN)
    last = (length - tile) // ALIGN * ALIGN
    starts = [*range(0, last, step), last]
    stops = [*(start + tile for start in starts[:-1]), length]
    edges = [0, *((after + stop) // 2 for after, stop in zip(starts[1:], stops, strict=False))]
    return [
        (start, stop, slice(low, high))
        for start, stop, low, high in zip(starts, stops, edges, [*edges[1:], length], strict=True)
    ]
