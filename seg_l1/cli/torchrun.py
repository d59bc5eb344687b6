"""A command that torchrun starts several times: what each of the processes does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import NoReturn

from seg_l1 import distributed
from seg_l1.cli.frame import exit_code, report
from seg_l1.errors import Interrupted, UserError


def launched() -> int:
    """Returns how many processes torchrun has started; 1 without torchrun."""
    under = {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()
    return int(os.environ["WORLD_SIZE"]) if under else 1


def refuse(what: str, way: str) -> None:
    """Refuses `what` under torchrun with the `way` to do it, once for all processes.

    Raises:
        UserError: in rank 0. The others wait until torchrun ends them for that.
    """
    if launched() > 1:
        if os.environ["RANK"] != "0":
            time.sleep(10)
            raise SystemExit(UserError.exit_code)
        raise UserError(f"{what} does not work under torchrun: {way}")


def run_as_rank(work: Callable[[], int], *, traceback: bool) -> NoReturn:
    """Does `work` in rank 0, has the other ranks follow, and ends the process."""
    try:
        distributed.init()
    except distributed.ProcessLost as error:
        raise SystemExit(report(error, traceback=traceback)) from error
    if distributed.rank() > 0:
        distributed.shutdown(_follow(traceback=traceback))
    code = exit_code(work, traceback=traceback)
    if code == 0:
        distributed.broadcast_object(None)  # there is nothing more to run
    distributed.shutdown(code)


def _follow(*, traceback: bool) -> int:
    """Trains what rank 0 trains; prints only errors that rank 0 has not reported."""
    from seg_l1.display import terminal
    from seg_l1.training.run import run

    try:
        while (job := distributed.broadcast_object(None)) is not None:
            with terminal.logging_to_file() as console:
                run(job["config"], Path(), overrides=[], resume=job["resume"], console=console)
    except (Interrupted, KeyboardInterrupt):
        return distributed.rank_zero_exit_code(distributed.TIMEOUT) or Interrupted.exit_code
    except Exception as error:
        code = distributed.rank_zero_exit_code(timedelta(seconds=5))
        if code is None:
            prefix = f"process {distributed.rank()}: "
            code = report(error, traceback=traceback, prefix=prefix)
        return code
    return 0
