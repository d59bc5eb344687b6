"""The latency of the compact network of present weights, and weights within a budget of it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seg_l1 import distributed
from seg_l1.compaction import Compactor
from seg_l1.compaction.budget import CostModel
from seg_l1.deployment.timing import NetworkTimer
from seg_l1.penalties import Penalty
from seg_l1.scope import ScopedTensor

SHARES = (0.5, 0.25, 0.125)
"""Shares of the multiply-adds at which the latency is measured first, beside the least."""

NEAR = 0.98
"""A network fills a budget well enough if it uses at least this share of it."""

SECONDS = 1.0
"""How long each network is timed, in alternation with the dense one."""

ATTEMPTS = 8
"""Networks that are timed to meet a budget, at most."""


class LatencyModel:
    """Measured milliseconds for one image through the compact network, with one thread.

    A network is timed in alternation with the dense one, so that what slows the machine down slows
    both down. Between the sizes that were measured the latency is interpolated in the number of
    multiply-adds: the same weights have the same latency until something is measured anew.

    Args:
        model: that `torch.export` can capture.
        example: an image (1, C, H, W) on the device of the model.
        runtime: see `NetworkTimer`.
        penalty, tensors: decide which channels go first where a size is measured.

    Attributes:
        dense: milliseconds of the network as it is built.
        points: multiply-adds -> milliseconds, of the networks that were measured.

    Raises:
        CaptureError: if `torch.export` cannot capture the network.
        UserError: if onnxruntime is asked for and not installed.
        ExportError: if onnxruntime is asked for and the network has no ONNX file.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Tensor,
        *,
        runtime: str,
        penalty: Penalty,
        tensors: Sequence[ScopedTensor],
    ) -> None:
        self.counts = CostModel(model, example, "multiply_adds")
        self._compactor = Compactor(model, example)
        self._timer = NetworkTimer({"dense": deepcopy(model).eval()}, example, runtime)
        self.dense = float(distributed.broadcast_object(self._timer.ms(seconds=SECONDS)["dense"]))
        self.points = {self.counts.dense: self.dense}
        least = self.counts.least(penalty, tensors)
        sizes = [share * self.counts.dense for share in SHARES]
        for size in [*(size for size in sizes if size > 1.5 * least), 1.1 * least]:
            self._measure_at(round(size), penalty, tensors)

    def cost(self) -> float:
        """Returns the milliseconds of the compact network of the present weights."""
        return self._latency(self.counts.cost())

    def least(self, penalty: Penalty, tensors: Sequence[ScopedTensor]) -> float:
        """Returns the milliseconds of the smallest network that was measured, for any penalty."""
        return self._latency(min(self.points))

    def fit(
        self, budget: float, penalty: Penalty, tensors: Sequence[ScopedTensor]
    ) -> dict[str, Tensor]:
        """Removes channels until the compact network is as fast as `budget`; changes the model.

        Networks of several sizes are timed, see `CostModel.fit`; the largest is taken that was fast
        enough.

        Args:
            budget: in milliseconds.

        Returns:
            See `CostModel.fit`.

        Raises:
            ValueError: if none was fast enough.
        """
        below, above = (self.counts.least(penalty, tensors), 0.0), (self.counts.dense, self.dense)
        size, masks, largest = self._size(budget), None, 0
        for _ in range(ATTEMPTS):
            found, latency, tried = self._measure_at(round(size), penalty, tensors)
            if latency > budget:
                above = (found, latency)
            else:
                below = (found, latency)
                masks, largest = (tried, found) if found > largest else (masks, largest)
            if NEAR * budget <= latency <= budget or above[0] <= (2 - NEAR) * below[0]:
                break
            size = _between(below, above, 0.5 * (1 + NEAR) * budget)
        if masks is None:
            raise ValueError(f"no network that was timed takes {budget:.3g} ms or less")
        self.counts.remove(masks)
        return masks

    @torch.no_grad()
    def _measure_at(
        self, size: int, penalty: Penalty, tensors: Sequence[ScopedTensor]
    ) -> tuple[int, float, dict[str, Tensor]]:
        """Times a network of at most `size` multiply-adds.

        Returns:
            its size, its milliseconds, and the masks that lead to it.
        """
        with self.counts.restored():
            masks = self.counts.fit(size, penalty, tensors)
            found, small = self.counts.cost(), self._compactor.compact().model.eval()
        times = self._timer.beside("compact", small).ms(seconds=SECONDS)
        latency = self.dense * times["compact"] / times["dense"]
        self.points[found] = float(distributed.broadcast_object(latency))
        return found, self.points[found], masks

    def _latency(self, size: int) -> float:
        return self.points.get(size) or float(np.interp(size, *self._curve()))

    def _size(self, latency: float) -> float:
        """The multiply-adds at which the latency is reached."""
        sizes, latencies = self._curve()
        return float(np.interp(latency, latencies, sizes))

    def _curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Sizes and latencies that were measured; a larger network is no faster."""
        sizes = np.array(sorted(self.points))
        latencies = np.array([self.points[size] for size in sizes])
        return sizes, np.maximum.accumulate(latencies)

    def state_dict(self) -> dict[str, Any]:
        """Returns what was measured."""
        return {"dense": self.dense, "points": dict(self.points)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.dense, self.points = state["dense"], dict(state["points"])


def _between(below: tuple[float, float], above: tuple[float, float], latency: float) -> float:
    """The size at a latency on the line through two points, away from both."""
    (small, fast), (large, slow) = below, above
    share = (latency - fast) / (slow - fast)
    return small + min(max(share, 0.1), 0.9) * (large - small)
