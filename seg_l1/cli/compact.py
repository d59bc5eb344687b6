"""Removes the channels of a trained network that do nothing; the outputs stay the same.

    seg-l1 compact run=<run directory> [multiple=auto|1|4|8|16] [dataset.root=...] [device=...]

Writes <run>/compact, a run directory like any other: evaluate, predict, export, report and
train start=<run>/compact take it. compact.json in it has what is printed here: channels per layer,
parameters, multiply-adds and file size before and after, times in torch and onnxruntime, and the
largest difference over the validation images. compact.png shows the channels per layer.

Every run with zeros has such a folder already, with multiple=1 and without times. With
multiple=auto the number of channels kept is rounded up to a multiple of 1, 4, 8 or 16, whichever is
measured to be fastest on this machine (the smallest network within 3 % of that).

Exit codes: 0 done, 1 failed while running, 2 the input was wrong, 130 interrupted.
"""

from __future__ import annotations

import re
import sys

from seg_l1.cli.arguments import key_values, say
from seg_l1.config.commands import assignment, command_line
from seg_l1.errors import UserError

KEYS = ("run", "multiple", "dataset.root", "device")


def run(words: list[str]) -> int:
    """Writes the compact network; returns the exit code."""
    typed = key_values(words, KEYS, required=("run",))
    multiple = typed.get("multiple", "auto")
    if multiple != "auto" and not (multiple.isdecimal() and 1 <= int(multiple) <= 1024):
        raise UserError(f"multiple: got '{multiple}', expected auto or an integer from 1 to 1024")
    from seg_l1.display.compact_text import compact_text
    from seg_l1.training.compact_run import compact_run

    done = compact_run(
        typed["run"],
        multiple=None if multiple == "auto" else int(multiple),
        root=typed.get("dataset.root"),
        device=typed.get("device"),
        say=say,
    )
    sys.stdout.write(f"{compact_text(done)}\n\nthe compact network is in {done.record.path}\n")
    network = assignment("run", done.record.path)
    own = r"[+~]*(hydra|resume|start|sweep)\b"
    kept = [w for w in done.record.read_overrides() if not re.match(own, w)]
    sys.stdout.write("\nnext:\n")
    for command, *more in (
        ("evaluate", network),
        ("predict", network, "input=images", "output=predictions"),
        ("export", network, "format=onnx"),
        ("train", *kept, assignment("start", done.record.path)),
    ):
        sys.stdout.write(f"  {command_line(command, *more)}\n")
    return 0
