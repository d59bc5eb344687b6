"""Commands in forked processes, which need not import anything again."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import IO, NamedTuple, NoReturn

from seg_l1.cli.main import main

IMPORTED = (
    "torch._dynamo", "torch.utils.tensorboard", "sklearn.datasets",
    "safetensors.torch", "seg_l1.training.run", "seg_l1.models.unet", "seg_l1.data.digits",
    "seg_l1.experiments.path.figures",
)  # fmt: skip
"""What takes seconds to import: done once, before a process is forked."""

LIMIT = 600.0
"""Seconds after which a process that should have ended counts as hung."""


def signal_at(number: int, pattern: str, count: int) -> Callable[[], None]:
    """A `prepare` that sends the process the signal `number` when a file has been written.

    Args:
        pattern: the file has a path that matches, as `Path.match` says.
        count: it is the `count`-th time that such a file has its name.
    """

    def prepare() -> None:
        written, replace = 0, os.replace

        def replace_and_strike(source: Path, target: Path) -> None:
            nonlocal written
            replace(source, target)
            written += Path(target).match(pattern)
            if written == count and Path(target).match(pattern):
                os.kill(os.getpid(), number)

        os.replace = replace_and_strike

    return prepare


class Ended(NamedTuple):
    """The exit code, or minus the signal that ended the process; and what it printed."""

    code: int
    out: str
    err: str


def comes_true(condition: Callable[[], bool]) -> bool:
    """Waits until `condition` holds; returns False if it does not within `LIMIT`."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class Forked:
    """A command in a process group of its own.

    Args:
        words: its arguments.
        folder: where it runs; by default the present one.
        command: of `seg-l1`, or a function that is called with the words.
        prepare: is called in the process before the command.
        stdout: the descriptor of its standard output, in place of a file that `wait` reads.
    """

    def __init__(
        self,
        words: list[str],
        *,
        folder: Path | None = None,
        command: str | Callable[[list[str]], int] = "train",
        prepare: Callable[[], None] = lambda: None,
        stdout: int | None = None,
    ) -> None:
        call = command if callable(command) else lambda words: main([command, *words])
        for module in IMPORTED:
            import_module(module)
        self._files = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        self.pid = os.fork()
        if not self.pid:
            _child(words, folder or Path(), call, prepare, self._files, stdout)

    def lives(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def reaches(self, condition: Callable[[], bool]) -> None:
        """Waits until `condition` holds; the process must not end before that."""
        assert comes_true(lambda: condition() or not self.lives())
        assert condition(), self.wait()

    def wait(self) -> Ended:
        """Waits for its end; a process that hangs is killed."""
        if not comes_true(lambda: not self.lives()):
            os.killpg(self.pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        printed = []
        for file in self._files:
            file.seek(0)
            printed.append(file.read())
            file.close()
        return Ended(code, *printed)


def run(words: list[str], *, folder: Path | None = None, command: str = "train") -> Ended:
    """Runs a command to its end."""
    return Forked(words, folder=folder, command=command).wait()


def _child(
    words: list[str],
    folder: Path,
    command: Callable[[list[str]], int],
    prepare: Callable[[], None],
    files: list[IO[str]],
    stdout: int | None,
) -> NoReturn:
    code = 99
    try:
        os.setsid()
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a worker of xdist ignores it
        for number, file in enumerate(files, 1):
            os.dup2(file.fileno(), number)
        if stdout is not None:
            os.dup2(stdout, 1)
        # not what a test captures
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, encoding="utf-8") for n in (1, 2))
        prepare()
        code = command(words)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
