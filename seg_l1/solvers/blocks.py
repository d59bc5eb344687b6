"""Blocks: the arrays that a penalty takes, of which axis 0 counts the groups.

Most penalties take each tensor by itself. One whose groups go across tensors (`ChannelL1`) takes
all weights of a channel as one row, whichever tensors they are in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seg_l1.penalties import Penalty
from seg_l1.scope import ScopedTensor


@dataclass(frozen=True)
class Block:
    """One penalized tensor; `penalty.value(block.gather(weights))` is its R.

    Attributes:
        tensors: all penalized tensors; the arguments `values` below have one entry for each of
            them, of its shape.
        indices: the positions of those that are in the block.
        factor: ω > 0, multiplies α for the block.
    """

    tensors: Sequence[ScopedTensor]
    indices: tuple[int, ...]
    factor: float

    def gather(self, values: Sequence[Tensor]) -> Tensor:
        """Returns the values of the block, axis 0 counting groups: a view."""
        return self.tensors[self.indices[0]].along(values[self.indices[0]])

    def store(
        self, array: Tensor, values: Sequence[Tensor], only: Sequence[bool] | None = None
    ) -> None:
        """Writes what `gather` returned, changed since, where `values` do not share its memory.

        Args:
            only: which of `values` may be written; None = all.
        """

    def join(self, steps: Sequence[float | Tensor]) -> float | Tensor:
        """Returns the steps of the members, in the order of `indices`, as one step of the block."""
        return steps[0]

    def along(self, step: float | Tensor) -> float | Tensor:
        """Returns what `join` returned in the shape of `gather`: a view."""
        return self.tensors[self.indices[0]].along(step)


@dataclass(frozen=True)
class Part:
    """The slices of one tensor that are in a block.

    Attributes:
        index: of the tensor.
        rows: (groups·m,) int64: m positions per group along the axis of the tensor that counts
            channels; None if these are all, in their order.
    """

    index: int
    rows: Tensor | None


@dataclass(frozen=True)
class ChannelBlock(Block):
    """Groups of equal shape across tensors, as a matrix (groups, weights of one group)."""

    groups: int
    parts: tuple[Part, ...]

    def gather(self, values: Sequence[Tensor]) -> Tensor:
        """Returns the values of the block as a matrix: a copy."""
        found = []
        for part in self.parts:
            value = self.tensors[part.index].along(values[part.index])
            value = value if part.rows is None else value.index_select(0, part.rows)
            found.append(value.reshape(self.groups, -1))
        return torch.cat(found, 1)

    def store(
        self, array: Tensor, values: Sequence[Tensor], only: Sequence[bool] | None = None
    ) -> None:
        """Writes the matrix into `values`."""
        begin = 0
        for part in self.parts:
            value = self.tensors[part.index].along(values[part.index])
            slices = len(value) if part.rows is None else len(part.rows)
            width = value[:1].numel() * slices // self.groups
            new = array[:, begin : begin + width].reshape(slices, *value.shape[1:])
            begin += width
            if only is not None and not only[part.index]:
                continue
            if part.rows is None:
                value.copy_(new)
            else:
                value.index_copy_(0, part.rows, new)

    def join(self, steps: Sequence[float | Tensor]) -> float | Tensor:
        """Returns a number if all steps are the same one, else a matrix."""
        if not any(isinstance(step, Tensor) for step in steps) and len({*steps}) == 1:
            return steps[0]
        values = [scoped.tensor for scoped in self.tensors]
        for index, step in zip(self.indices, steps, strict=True):
            if not isinstance(step, Tensor):
                step = values[index].new_tensor(step)
            values[index] = step.expand_as(values[index])
        return self.gather(values)

    def along(self, step: float | Tensor) -> float | Tensor:
        """Returns the step as it is."""
        return step


def blocks(penalty: Penalty, tensors: Sequence[ScopedTensor]) -> list[Block]:
    """Returns what `penalty` takes as one array each; every weight is in one block.

    Args:
        tensors: the penalized ones.

    Raises:
        ValueError: if the groups of the penalty go across tensors whose channels are not known, or
            whose weights are of several kinds or on several devices.
    """
    if not getattr(penalty, "across_tensors", False):
        return [Block(tensors, (i,), scoped.factor) for i, scoped in enumerate(tensors)]
    kinds = {(scoped.tensor.dtype, scoped.tensor.device) for scoped in tensors}
    if len(kinds) > 1:
        raise ValueError(
            f"{type(penalty).__name__} needs all weights in one dtype on one device, but they are"
            f" {', '.join(sorted(f'{dtype} on {device}' for dtype, device in kinds))}"
        )
    where: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, scoped in enumerate(tensors):
        if scoped.channels is None:
            raise ValueError(
                f"{type(penalty).__name__} needs to know which weights go together with the"
                f" channels of {scoped.name}: see seg_l1.compaction.channel_groups"
            )
        for row, channel in enumerate(scoped.channels):
            where[channel][index].append(row)
    alike: dict[tuple[tuple[int, int], ...], list[dict[int, list[int]]]] = defaultdict(list)
    for rows in where.values():
        alike[tuple((index, len(found)) for index, found in rows.items())].append(rows)
    return [_channel_block(tensors, groups) for groups in alike.values()]


def _channel_block(
    tensors: Sequence[ScopedTensor], groups: list[dict[int, list[int]]]
) -> ChannelBlock:
    """A block of groups that have equally many slices of each tensor; ω is the mean by weights."""
    parts, total, weighted = [], 0, 0.0
    for index in groups[0]:
        scoped = tensors[index]
        rows = [row for group in groups for row in group[index]]
        size = len(rows) * scoped.groups_first[:1].numel()
        total, weighted = total + size, weighted + size * scoped.factor
        whole = rows == list(range(len(scoped.groups_first)))
        device = scoped.tensor.device
        parts.append(Part(index, None if whole else torch.tensor(rows, device=device)))
    return ChannelBlock(tensors, (*groups[0],), weighted / total, len(groups), (*parts,))
