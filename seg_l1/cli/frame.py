"""The one place where errors become lines on the screen and exit codes.

Exit codes: 0 done, 1 failed while running, 2 the input was wrong, 130 interrupted.
"""

from __future__ import annotations

import sys
import traceback as tb
from collections.abc import Callable
from contextlib import suppress

from seg_l1.display.console import CLOSED, close_output, why_interrupted
from seg_l1.errors import Interrupted, RunError, UserError, first_line, is_for_user, short
from seg_l1.runs.files import write_error


def exit_code(work: Callable[[], int], *, traceback: bool = False, to_stderr: bool = False) -> int:
    """Returns what `work` returns, or the exit code of its error, which is printed.

    Args:
        traceback: whether to print Python's traceback with an error.
        to_stderr: whether details of an error go to stderr too, as stdout is for the results.
    """
    try:
        code = work()
        _flush()
        return code
    except KeyboardInterrupt:
        _say(why_interrupted("interrupted"))
        return Interrupted.exit_code
    except BrokenPipeError:  # of what is printed without `Screen`
        close_output()
        _say(CLOSED)
        return Interrupted.exit_code
    except SystemExit as end:  # of hydra's flags, and of jobs that were asked to stop
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        return report(error, traceback=traceback, to_stderr=to_stderr)


def report(
    error: Exception, *, traceback: bool = False, prefix: str = "", to_stderr: bool = False
) -> int:
    """Prints an error, in a line or two or with its traceback; returns its exit code."""
    shown = _for_user(error)
    if isinstance(shown, Interrupted):
        _say(str(shown))
    elif traceback:
        tb.print_exception(error)
    else:
        for line in getattr(shown, "details", []):
            (sys.stderr if to_stderr else sys.stdout).write(f"  {line}\n")
        kind, hint = f"{type(shown).__name__}: ", " (debug=true shows where)"
        if is_for_user(shown):
            kind = hint = ""
        _say(f"{prefix}error: {kind}{str(shown).strip() or repr(shown)}{hint}")
    return getattr(shown, "exit_code", 1)


def _flush() -> None:
    """Writes out what was printed, for BrokenPipeError to be met here.

    On a full disk errors of files are reported already, and Python reports this one by itself.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError:
        pass


def _say(text: str) -> None:
    """Writes a line to standard error, unless that is closed too."""
    with suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def _for_user(error: Exception) -> Exception:
    """Converts errors of hydra and the system into errors with a message for the user."""
    if type(error).__module__.partition(".")[0] in ("hydra", "omegaconf"):
        return UserError(first_line(error))
    if isinstance(error, OSError) and error.filename:
        refused = write_error(error, error.filename)
        if isinstance(refused, RunError):  # a full disk
            return refused
        file = short(str(error.filename))[1:-1]
        return UserError(f"{file}: {error.strerror}; choose another file or folder")
    return error
