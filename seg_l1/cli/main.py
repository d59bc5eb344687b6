"""The command `seg-l1`, and what its commands have in common.

seg-l1 train regularizer=l1 regularizer.alpha=1e-5
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib import import_module

from seg_l1.cli import torchrun
from seg_l1.cli.frame import exit_code
from seg_l1.config.commands import command_line, started
from seg_l1.display.console import reopen
from seg_l1.errors import UserError, did_you_mean

COMMANDS = {
    "train": "train one network, or a sweep with -m; resume either",
    "look": "show a data set before training: what is in it, and what is odd",
    "path": "choose alpha: a regularization path, cross-validation, and a refit",
    "search": "search hyperparameters with optuna",
    "report": "compare runs and sweeps: tables, figures and tests in one HTML file",
    "compact": "remove the channels of a trained network that do nothing",
    "export": "write the network of a run as an ONNX file",
    "evaluate": "score the best weights of a run on a split",
    "predict": "segment new images with a trained network",
    "convert": "make masks from annotations of COCO, LabelMe, YOLO or CVAT",
}
"""Each is the function `run(words)` of a module of this package, whose docstring is its help."""


def main(arguments: Sequence[str] | None = None, *, checkout: bool = False) -> int:
    """Runs the command that `arguments` name first, by default those of the process.

    Args:
        checkout: whether this was started as `python train.py` or `python scripts/<name>.py`; the
            commands that are printed for the next steps then have that form.

    Returns:
        The exit code, see `frame`.
    """
    name, *words = [*(sys.argv[1:] if arguments is None else arguments)] or ["--help"]
    traceback = bool({"debug=true", "debug='true'", "traceback=true"} & {*words})
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a table must not end a run
    reopen()
    with started(checkout=checkout):
        if name == "train" and torchrun.launched() > 1:
            torchrun.run_as_rank(lambda: _run(name, words), traceback=traceback)
        to_stderr = name not in ("train", "path")
        return exit_code(lambda: _run(name, words), traceback=traceback, to_stderr=to_stderr)


def train() -> int:
    """The command `seg-l1-train`, which is `seg-l1 train`."""
    return main(["train", *sys.argv[1:]])


def _run(name: str, words: list[str]) -> int:
    if name in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS)
        if "=" in name or name.startswith("-"):
            hint = f" Did you mean '{command_line('train', name)}'?"
        raise UserError(f"there is no command '{name}'.{hint} Commands: {', '.join(COMMANDS)}")
    module = import_module(f"seg_l1.cli.{name}")
    if {"-h", "--help"} & {*words}:
        page = module.help_text() if name == "train" else f"{module.__doc__}"
        commands = re.compile(rf"\bseg-l1 ({'|'.join(COMMANDS)})\b")
        sys.stdout.write(commands.sub(lambda found: command_line(found[1]), page))
        return 0
    code: int = module.run(words)
    return code


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {about}" for name, about in COMMANDS.items()]
    return "\n".join(
        ["usage: seg-l1 <command> [key=value ...]", "", *lines, "", "seg-l1 <command> --help", ""]
    )
