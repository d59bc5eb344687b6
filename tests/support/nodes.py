"""Two machines on one: network namespaces, each with an address of its own, joined by a cable."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
PORT = "29500"


class Node:
    """A network namespace with the interface `eth0`, and an empty working directory.

    Args:
        rank: 0 for the machine that the others meet at, 1 for another.
    """

    def __init__(self, rank: int, folder: Path) -> None:
        self.rank, self.folder = rank, folder
        self.name = f"seg_l1_{os.getpid()}_{rank}"
        folder.mkdir()

    @property
    def address(self) -> str:
        """Its IPv4 address."""
        return f"10.99.0.{self.rank + 1}"

    def torchrun(self, *words: str) -> subprocess.Popen:
        """Starts `train.py` on this machine, as one of two."""
        command = [
            "ip", "netns", "exec", self.name, sys.executable, "-m", "torch.distributed.run",
            "--nnodes=2", f"--node-rank={self.rank}", "--nproc-per-node=1",
            "--master-addr=10.99.0.1", f"--master-port={PORT}", str(ROOT / "train.py"), *words,
        ]  # fmt: skip
        paths = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        variables = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0", "PYTHONPATH": paths}
        return subprocess.Popen(
            command, cwd=self.folder, env={**os.environ, **variables}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def vanish(self) -> None:
        """Kills all of its processes at once."""
        for pid in _ip("netns", "pids", self.name).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


@contextmanager
def two_nodes(folder: Path) -> Iterator[tuple[Node, Node]]:
    """Context manager: yields two machines that reach each other, and nothing else.

    Raises:
        OSError: if that is not possible here.
    """
    if shutil.which("ip") is None:
        raise OSError("needs iproute2's ip")
    nodes = Node(0, folder / "first"), Node(1, folder / "second")
    try:
        for node in nodes:
            _ip("netns", "add", node.name)
        first, second = (node.name for node in nodes)
        _ip("link", "add", "eth0", "netns", first, "type", "veth",
            "peer", "name", "eth0", "netns", second)  # fmt: skip
        for node in nodes:
            _ip("-n", node.name, "address", "add", f"{node.address}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                _ip("-n", node.name, "link", "set", link, "up")
        yield nodes
    finally:
        for node in nodes:
            with suppress(OSError):
                node.vanish()
                _ip("netns", "delete", node.name)


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
