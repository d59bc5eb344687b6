"""Training speed in images/s: eager float32 against bf16, channels-last and compile.

    python benchmarks/throughput.py [--models unet segnet lraspp_mobilenet_v3_large]
                                    [--size 144 192] [--batch 8] [--rounds 7] [--compile]

All variants of a network take their steps in turn, in one process; the table gives the median of
the rounds, and its ratio to eager float32. A step is the whole one: forward, loss, backward, Adam,
proximal L1. The first steps, in which a compiled network is compiled, are not counted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import product

import torch

from seg_l1 import attach
from seg_l1.config.compose import compose_plain
from seg_l1.losses import CrossEntropy, data_term
from seg_l1.training.network import build_model

CLASSES = 11


def variant(name: str, size: tuple[int, int], batch: int, precision: str, last: bool, fused: bool):
    """Returns a function that takes one training step."""
    torch.manual_seed(0)
    config = compose_plain([f"model={name}", f"dataset.image_size=[{size[0]},{size[1]}]"])
    layout = torch.channels_last if last else torch.contiguous_format
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = build_model(config, 3, CLASSES).to(device, memory_format=layout)
    images = torch.randn(batch, 3, *size, device=device).to(memory_format=layout)
    masks = torch.randint(0, CLASSES, (batch, *size), device=device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, eps=1e-5)
    attach(optimizer, model, alpha=1e-5)
    criterion = CrossEntropy()
    if fused:
        model.compile()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            output = model(images)
        data_term(criterion, output, masks).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--models", nargs="+", default=["unet", "segnet", "lraspp_mobilenet_v3_large"]
    )
    parser.add_argument("--size", nargs=2, type=int, default=[144, 192])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true")
    chosen = parser.parse_args()
    for name in chosen.models:
        choices = product(("fp32", "bf16"), (False, True), (False, True)[: 1 + chosen.compile])
        steps = {
            choice: variant(name, tuple(chosen.size), chosen.batch, *choice) for choice in choices
        }
        for step in steps.values():
            step()
            step()
        seconds: dict[tuple, list[float]] = {choice: [] for choice in steps}
        for _ in range(chosen.rounds):
            for choice, step in steps.items():
                started = time.perf_counter()
                step()
                seconds[choice].append(time.perf_counter() - started)
        base = seconds["fp32", False, False]
        print(f"{name}, {chosen.batch} x {chosen.size[0]}x{chosen.size[1]}")
        for (precision, last, fused), times in seconds.items():
            ratios = [a / b for a, b in zip(base, times, strict=True)]
            label = " ".join(
                [precision, *["channels-last"] * last, *["compile" if fused else "eager"]]
            )
            speed = chosen.batch / statistics.median(times)
            print(f"  {label:<28}{speed:8.1f} images/s  x {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
