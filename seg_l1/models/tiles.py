"""Images larger than memory: overlapping tiles, each pixel from the tile it lies deepest in.

That is the overlap-tile strategy of Ronneberger et al. (2015). Where half of the overlap is at
least the reach of a pixel's input, the logits are those of the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

ALIGN = 32
"""Tiles start at multiples of this, so that poolings fall on the same pixels as in the whole."""

Network = Callable[[Tensor], Tensor]
"""(N, C, H, W) -> logits (N, K, H, W)."""


def tiled(
    model: Network, images: Tensor, tile: Sequence[int] | None, overlap: float = 0.25
) -> Tensor:
    """Returns the logits (N, K, H, W) of whole `images`, computed tile by tile.

    Args:
        tile: (H, W), at least 64, multiples of 32 are best; none = one tile.
        overlap: share of a tile that its neighbour covers too (at most all but 32 pixels).
    """
    pieces = tiles(model, images, tile, overlap)
    if tile is None or (images.shape[-2] <= tile[0] and images.shape[-1] <= tile[1]):
        return next(pieces)[2]
    result = None
    for rows, columns, logits in pieces:
        if result is None:
            result = logits.new_empty(*logits.shape[:2], *images.shape[-2:])
        result[..., rows, columns] = logits
    return result


def tiles(
    model: Network, images: Tensor, tile: Sequence[int] | None, overlap: float = 0.25
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yields (rows, columns, logits there), which together cover `images` once.

    `images` may lie on another device than the model needs: wrap the model to move each tile.
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

    The last one is up to 31 pixels longer, so that it too starts at a multiple of 32.

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
