"""Locks that keep two processes from working on the same job."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from seg_l1.display import terminal
from seg_l1.errors import UserError
from seg_l1.runs.files import write_error

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Errors with which a file system says that it has no locks."""


@contextmanager
def lock(folder: Path, name: str, *, wait: bool, quiet: bool = False) -> Iterator[None]:
    """Context manager: holds the lock `.<name>.lock` in a folder, which ends with its process.

    A job that outlived the process that launched it is thus waited for, not duplicated. Where the
    file system has no locks (flock), it says so and goes on without: files that say who holds a
    lock would outlive a process that is killed.

    Args:
        wait: whether to wait for another process that holds it.
        quiet: whether to say nothing about that, for what takes moments.

    Raises:
        UserError: if another process holds it, unless `wait`.
        UserError, RunError: if the file of the lock cannot be written.
    """
    held = FileLock(folder / f".{name}.lock", fallback_to_soft=False)
    try:
        _acquire(held, folder, name, wait=wait, quiet=quiet)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise write_error(error, folder) from error
        if not quiet:
            terminal.say(f"note: {folder} has no file locks; start {name} in one process at a time")
    try:
        yield
    finally:
        held.release()


def _acquire(held: FileLock, folder: Path, name: str, *, wait: bool, quiet: bool) -> None:
    try:
        held.acquire(blocking=False)
    except Timeout:
        if not wait:
            raise UserError(f"another process works on {folder}") from None
        if not quiet:
            terminal.say(f"waiting for a process that is still working on {name} ...")
        held.acquire()
