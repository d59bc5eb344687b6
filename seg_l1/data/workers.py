"""Worker processes that read: they end with the process they read for, and not before."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def follow_parent(worker: int) -> None:
    """Makes a worker of a `DataLoader` leave signals to its parent, and die with it.

    A signal to the whole group (a terminal's Ctrl-C, a cluster's warning) is for the parent to
    answer, which still needs what its workers read. A killed parent cannot end them, and one that
    waits to hand over what it read would wait for ever.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is not None and os.getppid() != parent.pid:  # it died before this was asked for
            os._exit(1)
