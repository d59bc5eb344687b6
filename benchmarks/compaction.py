"""What the zeros of finished runs are worth: size, multiply-adds, time and equality.

    python -m benchmarks.compaction <run> ... [--rounds 15] [--height 144 --width 192] [--peer]

Compacts the best network of each run. Times are medians of one thread at batch 1, dense and compact
in alternation. The difference is the largest of a logit over the images, relative to the largest
logit; images are noise with the statistics of the training images unless --images names a folder.
--peer adds what Torch-Pruning makes of the same zeros (`pip install "seg-l1[peers]"`); twenty
untrained networks are in `benchmarks/compaction_networks.py`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.torch_pruning_peer import prune
from seg_l1.compaction import compact
from seg_l1.data.images import SUFFIXES, as_tensor, open_picture
from seg_l1.metrics.sparsity import multiply_adds, parameters
from seg_l1.training.prediction import Predictor, load_predictor


def images(predict: Predictor, size: tuple[int, int], folder: Path | None) -> Tensor:
    """Returns normalized images (N, C, H, W)."""
    channels = len(predict.mean)
    if folder is None:
        return torch.randn(8, channels, *size)
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    pixels = torch.stack([as_tensor(open_picture(file), channels, size) for file in files])
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (predict.mean, predict.std))
    return (pixels / 255 - mean) / std


@torch.no_grad()
def seconds(model: nn.Module, image: Tensor) -> float:
    """Seconds of one forward pass."""
    started = time.perf_counter()
    model(image)
    return time.perf_counter() - started


def peer(dense: nn.Module, x: Tensor, expected: Tensor) -> str:
    """One line on Torch-Pruning."""
    started = time.perf_counter()
    try:
        small = prune(dense, x[:1], expected.shape[1])
        took = time.perf_counter() - started
        with torch.no_grad():
            got = torch.cat([small(image[None]) for image in x])
    except Exception as error:  # whatever it raises is its result
        return f"  Torch-Pruning fails: {type(error).__name__}: {str(error)[:80]}"
    difference = float((got - expected).abs().max() / expected.abs().max())
    changed = int((got.argmax(1) != expected.argmax(1)).sum())
    return (
        f"  Torch-Pruning: {parameters(small):,} parameters, {multiply_adds(small, x[:1]):,}"
        f" multiply-adds; |Δlogit| {difference:.1e} of the largest, {changed} pixels changed;"
        f" {took:.1f} s"
    )


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--height", type=int, default=None)
    parser.add_argument("--width", type=int, default=None)
    parser.add_argument("--images", type=Path, default=None)
    parser.add_argument("--peer", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for run in chosen.runs:
        predict = load_predictor(run, device="cpu")
        size = predict.image_size or (128, 128)
        size = (chosen.height or size[0], chosen.width or size[1])
        x = images(predict, size, chosen.images)
        dense = predict.model.eval()
        started = time.perf_counter()
        found = compact(dense, x[:1])
        took = time.perf_counter() - started
        small = found.model
        expected = torch.cat([dense(image[None]) for image in x])
        got = torch.cat([small(image[None]) for image in x])
        difference = float((got - expected).abs().max() / expected.abs().max())
        changed = int((got.argmax(1) != expected.argmax(1)).sum())
        times = [(seconds(dense, x[:1]), seconds(small, x[:1])) for _ in range(chosen.rounds)]
        before, after = (statistics.median(column) for column in zip(*times, strict=True))
        print(
            f"{run.name}: {found}; |Δlogit| {difference:.1e} of the largest, {changed} of"
            f" {expected[:, 0].numel()} pixels changed; {1e3 * before:.1f} -> {1e3 * after:.1f} ms"
            f" ({before / after:.2f}x faster); compacted in {took:.1f} s",
            flush=True,
        )
        if chosen.peer:
            print(peer(dense, x, expected), flush=True)


if __name__ == "__main__":
    main()
