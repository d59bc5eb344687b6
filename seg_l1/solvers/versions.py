"""Detects weights that something other than the solver has written to since its last write."""

from __future__ import annotations

from collections.abc import Sequence

from seg_l1.scope import ScopedTensor


class Versions:
    """Compares the versions of tensors, which torch counts up at every in-place write.

    A checkpoint that is loaded, a rollback or a clamp is noticed; a write through `.data` is not.
    """

    def __init__(self, tensors: Sequence[ScopedTensor]) -> None:
        self._tensors = tensors
        self._recorded: list[int | None] = [None] * len(tensors)

    def record(self, index: int) -> None:
        """Takes the tensor at a position as it is now."""
        self._recorded[index] = self._tensors[index].local._version

    def record_all(self) -> None:
        """Takes all tensors as they are now."""
        for index in range(len(self._tensors)):
            self.record(index)

    def changed(self, index: int) -> bool:
        """Whether the tensor was written since it was recorded, or was never recorded."""
        return self._tensors[index].local._version != self._recorded[index]
