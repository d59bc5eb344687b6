"""Shows a data set before training: what is in it, what is odd, what the network will see.

    seg-l1 look dataset=folder dataset.root=<folder> [output=<file.html>] [words of seg-l1 train]
    seg-l1 look experiment=own dataset.root=<folder>

Reads and checks all images and masks, and writes one HTML page that needs nothing else: sizes,
classes with their shares, copies and other oddities, and sixteen training images with their masks,
before and after augmentation. `output` is outputs/looks/<name of the folder>.html by default.

Exit codes: 0 done, 1 failed while running, 2 the input was wrong, 130 interrupted.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_l1.cli import torchrun
from seg_l1.cli.arguments import at_home
from seg_l1.config.check import check_overrides
from seg_l1.config.commands import command_line
from seg_l1.config.compose import plain
from seg_l1.config.words import parse
from seg_l1.errors import UserError
from seg_l1.experiments.recipe import expanded

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


def run(words: list[str]) -> int:
    """Writes the page; returns the exit code."""
    torchrun.refuse("a look at data", "start it with python, without torchrun")
    output = [word.partition("=")[2] for word in words if word.startswith("output=")]
    typed = [word for word in words if not word.startswith("output=")]
    if len(output) > 1 or output == [""]:
        raise UserError("output: expected one file, as output=look.html")
    flags, overrides = parse(typed)
    if flags.multirun or any(override.is_sweep_override() for override in overrides):
        raise UserError("look: shows one data set; give each key one value, without -m")
    config = plain(check_overrides(flags, expanded(flags, overrides)))
    from seg_l1.display.terminal import data_text
    from seg_l1.experiments.jobs import read_data
    from seg_l1.experiments.look import write

    data = read_data(config)
    own = config["dataset"]["_target_"] == "seg_l1.data.folder.load"
    recipe = ["experiment=own"] if own and not _typed(overrides, "experiment") else []
    train = [word for word in typed if not (recipe and word == "dataset=folder")]
    command = command_line("train", *recipe, *train)
    path = Path(at_home(output[0])) if output else Path("outputs/looks") / f"{_name(config)}.html"
    odd = write(path, config, data, command=command)
    lines = [data_text(data), *(f"odd: {sentence}" for sentence in odd)]
    lines += [f"wrote {path}", "", "next:", f"  {command}"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _typed(overrides: Sequence[Override], key: str) -> bool:
    return any(override.key_or_group == key for override in overrides)


def _name(config: dict[str, Any]) -> str:
    """The name of the data: that of its folder, or of its module."""
    spec = config["dataset"]
    name = Path(str(spec["root"])).resolve().name if "root" in spec else ""
    name = name or str(spec["_target_"]).split(".")[-2]
    return re.sub(r"[^\w.-]+", "-", name) or "data"
