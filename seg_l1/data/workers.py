"""DataLoader workers that ignore signals and end with their parent."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def follow_parent(worker: int) -> None:
    """Makes a worker of a `DataLoader` leave signals to its parent, and die with it.

    A signal to the whole process group (Ctrl-C in a terminal, the warning of a cluster) is for the
    parent to handle, which still needs what its workers read. A killed parent cannot end them, and
    a worker that waits to hand over its data would wait forever.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is not None and os.getppid() != parent.pid:  # it died before the call above
            os._exit(1)
