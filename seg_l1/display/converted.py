"""What `seg-l1 convert` prints, and its picture of some pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.patches import Patch
from rich.table import Table

from seg_l1.data.convert.write import Converted
from seg_l1.data.images import open_picture
from seg_l1.data.labels import IGNORE
from seg_l1.display.paint import palette
from seg_l1.display.style import literal, new_figure, png, styled
from seg_l1.display.terminal import render
from seg_l1.runs.files import write_bytes

MOST = 16
"""Pairs on a picture."""

SIDE = 480
"""The longer side, in pixels, at which a pair is drawn."""

LINES = 20
"""Lines about what was skipped."""

NAMED = 24
"""Classes in the legend of a picture."""


def converted_text(done: Converted) -> str:
    """Returns a sentence, a table of the classes, and what was skipped."""
    counts = {split: len(pairs) for split, pairs in done.pairs.items()}
    splits = ", ".join(f"{split} {count}" for split, count in counts.items() if split)
    total, objects = sum(counts.values()), sum(done.instances.values())
    empty = done.drawn.count(0)
    head = f"images: {total:,}{f' ({splits})' if splits else ''}, objects: {objects:,}"
    lines = [head + (f", images without an object: {empty:,}" if empty else "")]
    lines += ["", _classes(done)]
    for kind, remarks in (("skipped", done.skipped), ("note", done.notes)):
        lines += [f"{kind}: {line}" for line in remarks[:LINES]]
        if len(remarks) > LINES:
            lines.append(f"{kind}: and {len(remarks) - LINES} more kinds")
    unused = [n for i, n in enumerate(done.classes) if i and not done.instances[i]]
    if unused:
        more = f" and {len(unused) - 8} more" if len(unused) > 8 else ""
        lines.append(f"note: no object is of the class {', '.join(unused[:8])}{more}")
    return "\n".join(lines)


def _classes(done: Converted) -> str:
    table = Table()
    for name in ("id", "class", "objects", "pixels"):
        table.add_column(name, justify="left" if name == "class" else "right")
    whole = max(int(done.pixels.sum()), 1)
    rows = [*enumerate(done.classes)]
    if done.pixels[IGNORE] or done.instances[IGNORE]:
        rows.append((IGNORE, "(not labeled)"))
    for label, name in rows:
        count = f"{done.instances[label]:,}" if label or done.instances[0] else ""
        table.add_row(str(label), name, count, f"{100 * done.pixels[label] / whole:.2f} %")
    return render(table)


@styled
def save_pairs(path: Path, done: Converted) -> None:
    """Writes a PNG of up to 16 pairs, evenly over those with an object: masks over images."""
    every = [(split, *pair) for split, pairs in done.pairs.items() for pair in pairs]
    filled = [one for one, count in zip(every, done.drawn, strict=True) if count]
    chosen = np.linspace(0, len(filled) - 1, min(MOST, len(filled))).round().astype(int)
    colors = _colors(done)
    small = [_small(*filled[index][1:]) for index in chosen]
    seen = {*np.concatenate([np.unique(mask) for _, mask in small]).tolist()}
    handles = _handles(done, seen, colors)
    columns = min(4, len(chosen))
    rows = -(-len(chosen) // columns)
    width = max(2.6 * columns, 4)
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    in_a_row = max(1, min(len(handles), int(width / (0.8 + 0.08 * longest))))
    figure = new_figure(width, 2.4 * rows + 0.4 + 0.2 * -(-len(handles) // in_a_row))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, index, (image, mask) in zip(axes, chosen, small, strict=False):
        split, original, _ = filled[index]
        axis.imshow(_painted(image, mask, colors), interpolation="nearest")
        name = f"{split}/{original.name}" if split else original.name
        # in the middle, since it may be wider than the image
        axis.set_title(literal(_shortened(name)), size=7, loc="center")
    figure.legend(handles=handles, loc="outside lower center", ncols=in_a_row, fontsize=8)
    write_bytes(path, png(figure, dpi=120))


def _handles(done: Converted, seen: set[int], colors: np.ndarray) -> list[Patch]:
    """Returns the entries of the legend: the classes that are seen, and what is not labeled."""
    shown = [label for label in sorted(seen - {IGNORE}) if colors[label].any()]
    # matplotlib before 3.10 leaves out names that begin with _
    names = [f" {name}" if name.startswith("_") else name for name in done.classes]
    handles = [
        Patch(color=colors[label] / 255, label=literal(_shortened(names[label])))
        for label in shown[:NAMED]
    ]
    if len(shown) > NAMED:
        handles.append(Patch(color="none", label=f"and {len(shown) - NAMED} more"))
    if IGNORE in seen:
        handles.append(Patch(facecolor="white", edgecolor="black", label="not labeled"))
    return handles


def _shortened(name: str) -> str:
    return name if len(name) < 34 else f"{name[:15]}...{name[-15:]}"


def _colors(done: Converted) -> np.ndarray:
    """Returns (K, 3) uint8 colors: those of the source, if they differ from class to class."""
    colors = palette(done.classes)
    painted = colors.any(1)
    given = [done.colors.get(name) for name in np.array(done.classes)[painted]]
    # what is not painted is black here, and what is not labeled is white
    if len({*given} - {None, (0, 0, 0), (255, 255, 255)}) == painted.sum():
        colors[painted] = given
    return colors


def _small(image: Path, mask: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image (H, W, 3) and its mask at the size at which they are drawn."""
    picture, ids = open_picture(image).convert("RGB"), open_picture(mask, mask=True)
    zoom = min(1, SIDE / max(picture.size))
    size = (max(1, round(picture.width * zoom)), max(1, round(picture.height * zoom)))
    return np.asarray(picture.resize(size)), np.asarray(ids.resize(size, 0))


def _painted(image: np.ndarray, mask: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Returns the gray image with its classes in color, borders stronger, unlabeled in white."""
    gray = image.mean(-1, keepdims=True).astype(np.uint8).repeat(3, -1)
    paint = np.zeros((256, 3), dtype=np.uint8)
    paint[: len(colors)], paint[IGNORE] = colors, 255
    border = np.zeros(mask.shape, dtype=bool)
    below, right = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    for part, differs in (
        (border[1:], below),
        (border[:-1], below),
        (border[:, 1:], right),
        (border[:, :-1], right),
    ):
        part |= differs
    share = np.where(border, 0.95, 0.5)[..., None]
    painted = paint[mask].any(-1, keepdims=True)
    mixed = (1 - share) * gray + share * paint[mask]
    return np.where(painted, mixed, gray).astype(np.uint8)
