"""The Python examples of README.md and docs/: found in the text, and run.

A block runs when its fence says ``python``; further words behind it are for this module:

* ``python no-run``: the block is only shown;
* ``python continue``: the block goes on where the one before it in the same file ended.

Every other block starts anew, with the names of `stand_ins` for what it takes from its reader.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>```+)python\b(?P<words>[^\n`]*)\n"
    r"(?P<code>.*?)^(?P=indent)(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)
FLAGS = {"no-run", "continue"}


class Block(NamedTuple):
    """One example: its code, the line of the file on which that begins, and its flags."""

    code: str
    line: int
    flags: frozenset[str]


def blocks(text: str) -> list[Block]:
    """Returns the Python blocks of a Markdown text, those that do not run too.

    Raises:
        ValueError: on a flag that is not known.
    """
    found = []
    for match in FENCE.finditer(text):
        line, flags = (
            text.count("\n", 0, match.start("code")) + 1,
            frozenset(match["words"].split()),
        )
        if flags - FLAGS:
            raise ValueError(f"line {line - 1}: unknown flags {sorted(flags - FLAGS)}")
        found.append(Block(dedent(match["code"]), line, flags))
    return found


def stand_ins() -> dict[str, Any]:
    """What a reader is assumed to have: a small network, its optimizer, a criterion and data."""
    import torch

    class MyOptimizer(torch.optim.SGD):
        """An optimizer of the reader's own."""

    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 5, 1)
    )
    images, masks = torch.randn(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.long)
    return {
        "model": model,
        "optimizer": torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-5),
        "MyOptimizer": MyOptimizer,
        "criterion": torch.nn.CrossEntropyLoss(),
        "images": images,
        "masks": masks,
        "loader": [(images, masks), (images, masks)],
    }


def run(path: Path) -> None:
    """Runs the blocks of a file in order; what one of them raises is raised, warnings too."""
    namespace: dict[str, Any] = {}
    for block in blocks(path.read_text("utf-8")):
        if "no-run" in block.flags:
            continue
        if "continue" not in block.flags or not namespace:
            namespace = {"__name__": "__main__", **stand_ins()}
        padded = "\n" * (block.line - 1) + block.code  # so that a traceback names the file's lines
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            exec(compile(padded, str(path), "exec"), namespace)
