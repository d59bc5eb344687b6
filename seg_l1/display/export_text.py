"""What `seg-l1 export` prints: the file, how it agrees with torch, precision, size and time."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING

from rich.table import Table

from seg_l1.display.run_text import changed_pixels
from seg_l1.display.terminal import render

if TYPE_CHECKING:
    from seg_l1.training.export import Agreement, Exported


def export_text(done: Exported) -> str:
    """Returns sentences and a table, with an empty line between them."""
    parts = [
        _shapes(done),
        _versions(done),
        *(_agreement(one.precision, one.agreement) for one in done.versions),
        "operators: " + ", ".join(f"{name} {count}" for name, count in done.operators.items()),
    ]
    return "\n\n".join(parts)


def _shapes(done: Exported) -> str:
    channels, height, width = done.about.channels, *done.size
    batch = "N" if "batch" in done.dynamic else "1"
    size = "H, W" if "height" in done.dynamic else f"{height}, {width}"
    outputs = {
        "scores": f"scores float32 ({batch}, {len(done.about.classes)}, {size})",
        "classes": f"classes uint8 ({batch}, {size})",
    }
    kind, top = ("uint16", 65535) if done.about.bits == 16 else ("uint8", 255)
    colors = {1: "gray", 3: "RGB"}.get(channels, f"{channels} bands")
    lines = [
        f"input: images {kind} ({batch}, {channels}, {size}), pixels from 0 to {top}, {colors}",
        f"output: {outputs[done.output]}",
    ]
    if done.reason:
        fixed = [axis for axis in ("batch", "height", "width") if axis not in done.dynamic]
        lines.append(f"fixed: {', '.join(fixed)}, because {done.reason}")
    if done.about.image_size:
        height, width = done.about.image_size
        how = "padded" if done.about.fit == "pad" else "resized"
        lines.append(f"images are to be {how} to {height}x{width} (height x width), as in training")
    return "\n".join(lines)


def _versions(done: Exported) -> str:
    height, width = done.size
    title = f"ms per image of {height}x{width}, 1 thread, medians in alternation"
    table = Table(title=title, title_justify="left", min_width=len(title))
    for name in ("", "bytes", "ms", "mIoU (val)"):
        table.add_column(name, justify="right" if name else "left")
    miou = done.versions[0].agreement.torch_miou
    table.add_row("torch", "", f"{done.torch_ms:.2f}", f"{miou:.4f}")
    for one in done.versions:
        numbers = (f"{one.size:,}", f"{one.ms:.2f}", f"{one.agreement.onnx_miou:.4f}")
        table.add_row(f"onnxruntime {one.precision}", *numbers)
    return render(table)


def _agreement(precision: str, found: Agreement) -> str:
    words = changed_pixels(found.changed, found.pixels)
    if not isnan(found.difference):
        relative = found.difference / found.scale if found.scale else 0.0
        words = (
            f"the largest difference of a score is {found.difference:.1e} ({relative:.1e} of the"
            f" largest score); {words}"
        )
    return f"{precision} against torch in float32 on {found.images} validation images: {words}"
