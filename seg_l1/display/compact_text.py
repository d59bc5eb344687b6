"""What `seg-l1 compact` prints: channels per layer, sizes, times, equality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from seg_l1.compaction import LayerChannels
from seg_l1.display.run_text import changed_pixels
from seg_l1.display.terminal import render

if TYPE_CHECKING:
    from seg_l1.training.compact_run import Candidate, Compacted, Equality, Timing


def compact_text(done: Compacted) -> str:
    """Returns tables and sentences, with an empty line between them."""
    parts = [
        layers_table(done.found.layers),
        _sizes_table(done),
        candidates_table(done.candidates, done.multiple) if done.candidates else "",
        timings_table(done.timings),
        equality_text(done.equality),
        _whole_text(done.found.whole),
        *(f"note: {note}" for note in done.notes),
    ]
    return "\n\n".join(part for part in parts if part)


def layers_table(layers: Sequence[LayerChannels], *, longest: int = 40) -> str:
    """Returns a table with a row per layer, or per layer that lost channels if they are many."""
    shown = layers
    if len(layers) > longest:
        shown = [layer for layer in layers if layer.kept < layer.total][:longest]
    table = Table(title="output channels of each layer", title_justify="left")
    table.add_column("layer")
    for name in ("before", "live", "constant", "unread", "after"):
        table.add_column(name, justify="right")
    for layer in shown:
        numbers = (layer.total, layer.live, layer.constant, layer.unread, layer.kept)
        table.add_row(layer.name, *map(str, numbers))
    table.add_section()
    sums = (sum(getattr(layer, name) for layer in layers)
            for name in ("total", "live", "constant", "unread", "kept"))  # fmt: skip
    table.add_row(f"all {len(layers)}", *map(str, sums))
    return render(table)


def _sizes_table(done: Compacted) -> str:
    table = Table(title="size", title_justify="left")
    for name in ("", "before", "after", "smaller"):
        table.add_column(name, justify="right" if name else "left")
    rows = [
        ("parameters", done.found.parameters),
        ("multiply-adds per image", done.found.multiply_adds),
        ("bytes of model.safetensors", done.file_bytes),
    ]
    for name, (before, after) in rows:
        table.add_row(name, f"{before:,}", f"{after:,}", f"{before / max(1, after):.2f}x")
    return render(table)


def candidates_table(candidates: Sequence[Candidate], chosen: int) -> str:
    """Returns a table of the multiples that were measured."""
    title = f"channels kept up to a multiple: {chosen} is chosen (one image, one thread)"
    table = Table(title=title, title_justify="left", min_width=len(title))
    for name in ("multiple", "parameters", "multiply-adds", "torch ms", "onnxruntime ms"):
        table.add_column(name, justify="right")
    for one in candidates:
        times = (one.torch_ms, one.onnx_ms)
        numbers = (
            f"{one.parameters:,}",
            f"{one.multiply_adds:,}",
            *("-" if ms is None else f"{ms:.2f}" for ms in times),
        )
        table.add_row(str(one.multiple), *numbers)
    return render(table)


def timings_table(timings: Sequence[Timing]) -> str:
    """Returns a table of the times of both networks."""
    title = "time of a batch in ms, medians in alternation"
    table = Table(title=title, title_justify="left", min_width=len(title))
    for name in ("runtime", "batch", "threads", "before", "after", "faster"):
        table.add_column(name, justify="left" if name == "runtime" else "right")
    for one in timings:
        ratio = f"{one.dense / one.compact:.2f}x"
        numbers = (f"{one.dense:.2f}", f"{one.compact:.2f}", ratio)
        table.add_row(one.runtime, str(one.batch), str(one.threads or "-"), *numbers)
    return render(table)


def equality_text(equality: Equality) -> str:
    """Returns a sentence on how far the outputs of both networks are from each other."""
    return (
        f"outputs on {equality.images} validation images: the largest difference of a logit is"
        f" {equality.difference:.1e}\n(the largest logit is {equality.scale:.3g});"
        f" {changed_pixels(equality.changed, equality.pixels)}"
    )


def _whole_text(whole: Sequence[tuple[str, str, str]]) -> str:
    if not whole:
        return ""
    lines = [f"  {operator} in {layer or 'the network'}: {why}" for operator, layer, why in whole]
    more = [f"  and {len(lines) - 10} more (compact.json)"] if len(lines) > 10 else []
    return "\n".join(["operators whose inputs keep all channels:", *lines[:10], *more])
