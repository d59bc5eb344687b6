"""Command lines to show, as they can be typed where this program was started."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from seg_l1.config.words import can_be_read, key_of, parse_word
from seg_l1.runs.trust import TRUST

STARTED = "SEG_L1_STARTED"
"""The environment variable that says how this program was started.

It holds the interpreter and the folder of the checkout ("." for the current folder), or the
installed command, quoted for a shell. The processes of launchers inherit it."""

ROOT = Path(__file__).parents[2]
"""The folder of `train.py` and `scripts/`, in a checkout."""


@contextmanager
def started(*, checkout: bool) -> Iterator[None]:
    """Context manager: commands to show are those of a checkout, or the installed ones."""
    before = os.environ.get(STARTED)
    words = [_python(), "." if Path.cwd() == ROOT else str(ROOT)] if checkout else [_installed()]
    os.environ[STARTED] = shlex.join(words)
    try:
        yield
    finally:
        os.environ.pop(STARTED, None)
        if before is not None:
            os.environ[STARTED] = before


def command_line(command: str, *words: object, trust: bool = False) -> str:
    """Returns the command line, quoted for a shell, that runs `command` with `words`.

    Args:
        trust: whether it reads a file that calls code of the user's, see `runs.trust`.

    >>> command_line("report", "my sweep")
    "seg-l1 report 'my sweep'"
    """
    program = [*shlex.split(os.environ.get(STARTED, "seg-l1")), command]
    if len(program) == 3:
        python, folder, _ = program
        script = "train.py" if command == "train" else f"scripts/{command}.py"
        program = [python, str(Path(folder) / script)]
    return f"{TRUST}=1 " * trust + shlex.join([*program, *map(str, words)])


def assignment(key: str, value: object) -> str:
    """Returns the word that gives `key` a text, such as a path, in quotes where hydra needs them.

    >>> assignment("resume", "outputs/a run"), assignment("resume", "a,b")
    ('resume=outputs/a run', "resume='a,b'")
    """
    text = str(value)
    plain = f"{key}={text}"
    if can_be_read(plain):
        override = parse_word(plain)
        if not override.is_sweep_override() and override.value() == text and "${" not in text:
            return plain
    escaped = re.sub(r"(\\*)'", r"\1\1\'", text)
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f"{key}='{escaped}'"


def with_environment(words: Sequence[str], config: Mapping[str, Any]) -> list[str]:
    """Returns `words` with the values that they take from environment variables.

    Another shell may lack these variables.

    Args:
        config: the resolved configuration that `words` give.

    >>> with_environment(["seed=${oc.decode:${oc.env:SEED}}"], {"seed": 3})
    ['seed=3']
    """

    def written_out(word: str) -> str:
        key, node = key_of(word), OmegaConf.create(dict(config))
        value = OmegaConf.select(node, key) if "${oc.env:" in word else None
        if not isinstance(value, str | int | float):
            return word
        sign = word[: len(word) - len(word.lstrip("+"))]
        text = str(value)
        if isinstance(value, str):
            return sign + assignment(key, text)
        return f"{sign}{key}={text.lower() if isinstance(value, bool) else text}"

    return [written_out(word) for word in words]


def _python() -> str:
    """Returns the interpreter: its name where that leads to it, else its path."""
    here = Path(sys.executable)
    for name in ("python", "python3"):
        found = shutil.which(name)
        if found and Path(found).parent == here.parent and Path(found).samefile(here):
            return name
    return str(here)


def _installed() -> str:
    """Returns the command `seg-l1`: its name where that leads to it, else its path."""
    script = Path(sys.argv[0]).absolute().with_name("seg-l1")
    typed = Path(sys.argv[0]).name in ("seg-l1", "seg-l1-train")
    if typed and script.is_file() and shutil.which("seg-l1") != str(script):
        return str(script)
    return "seg-l1"
