"""The settings of the training loop: a part of `conf/trainer/`."""

from __future__ import annotations

from dataclasses import dataclass

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def computes_bf16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16; without them it is many times slower."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = getattr(torch.cpu, "get_capabilities", dict)  # older versions lack it
        return any(value for name, value in capabilities().items() if name.endswith("bf16"))
    return False


@dataclass(frozen=True)
class Settings:
    """How long to train, how to step, and what to measure.

    Attributes:
        epochs: when the training ends.
        precision: of the network, a key of `DTYPES`, or "auto": bf16 if the device has instructions
            for it, else fp32. Weights and penalty stay float32.
        accumulate: micro-batches per optimizer step.
        clip_norm: largest gradient norm; the penalty is scaled with it. None = no clipping.
        clip_value: largest absolute value of a gradient entry. None = no clipping.
        early_stopping: epochs without a better validation mIoU after which it ends. None = never.
        boundary_tolerance: of the boundary scores, in pixels.
        compile: whether to use torch.compile.
        tile: (H, W) of the tiles in which larger images are evaluated. None = as a whole.
        tile_overlap: share of a tile that its neighbor covers too.
        log_every: steps between two calls of `on_step`.
        kkt_every: epochs between two certificates of optimality. None = none are computed.
    """

    epochs: int = 20
    precision: str = "fp32"
    accumulate: int = 1
    clip_norm: float | None = None
    clip_value: float | None = None
    early_stopping: int | None = None
    boundary_tolerance: int = 1
    compile: bool = False
    tile: list[int] | None = None
    tile_overlap: float = 0.25
    log_every: int = 10
    kkt_every: int | None = 5

    def autocast(self, device: torch.device) -> torch.autocast:
        """Returns the context in which the network computes."""
        name = self.precision
        if name == "auto":
            name = "bf16" if computes_bf16(device) else "fp32"
        return torch.autocast(device.type, DTYPES[name], enabled=name != "fp32")
