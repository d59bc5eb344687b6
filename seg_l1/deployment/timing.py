"""The time that networks take for a batch, in torch and in onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from copy import deepcopy
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from seg_l1.compaction.latency import median_ms
from seg_l1.compaction.latency import threads as with_threads
from seg_l1.deployment import onnx_file

Key = TypeVar("Key", bound=Hashable)

RUNTIMES = ("torch", "onnxruntime")


class NetworkTimer:
    """Times networks in alternation.

    Args:
        networks: in eval mode.
        example: one image (1, C, H, W), on their device.
        runtime: "torch" computes on this device, "onnxruntime" on the CPU.

    Raises:
        UserError: if onnxruntime is not installed.
        ExportError: if a network has no ONNX file.
    """

    def __init__(
        self, networks: Mapping[Key, nn.Module], example: Tensor, runtime: str = "torch"
    ) -> None:
        self._networks, self._example, self._runtime = networks, example, runtime
        self._files: dict[Any, bytes] = {}
        if runtime == "onnxruntime":
            self._example = example.cpu()
            for key, network in networks.items():
                self._files[key] = onnx_file.to_onnx(deepcopy(network).cpu(), self._example)

    def beside(self, key: Key, network: nn.Module) -> NetworkTimer:
        """Returns a timer of these networks and another one."""
        both = NetworkTimer({key: network}, self._example, self._runtime)
        both._networks = {**self._networks, **both._networks}
        both._files = {**self._files, **both._files}
        return both

    def ms(self, *, batch: int = 1, threads: int = 1, seconds: float) -> dict[Any, float]:
        """Returns the median milliseconds of a batch, by network.

        Args:
            batch: images at once.
            threads: of the CPU.
            seconds: how long to measure in all.
        """
        images = self._example.expand(batch, -1, -1, -1).contiguous()
        if self._files:
            callers = {k: onnx_file.caller(f, threads=threads) for k, f in self._files.items()}
            calls = {key: partial(caller, images) for key, caller in callers.items()}
            return median_ms(calls, seconds=seconds)
        with with_threads(threads):
            return median_ms(
                {key: _call(network, images) for key, network in self._networks.items()},
                seconds=seconds,
            )


def _call(model: nn.Module, images: Tensor) -> Callable[[], Any]:
    """Returns a function that computes the outputs, and waits for them."""

    @torch.no_grad()
    def call() -> None:
        model(images)
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)

    return call
