"""Memory, open files and threads over many epochs, many jobs of one process, and many images.

    python benchmarks/leaks.py [epochs=200] [jobs=100] [images=10000]

A run on tiny digit scenes, inspected after each tenth of its epochs; a sweep of `jobs` jobs in this
process, inspected after each tenth; and `python train.py` on a folder of `images` pairs of 64x64:
seconds from its start to the line about its first optimizer step, and its peak memory by then.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]

TINY = [
    "dataset.num_train=16", "dataset.num_val=8", "dataset.num_test=8", "dataset.batch_size=4",
    "model.width=4", "trainer.pictures=2", "trainer.threads=1",
]  # fmt: skip


def looked_at() -> str:
    """Resident memory, open files and threads of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    mib = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    files = len(list(Path("/proc/self/fd").iterdir()))
    return f"{mib:8.1f} MiB  {files:3d} files  {threading.active_count():2d} threads"


def epochs(count: int, folder: Path) -> None:
    from seg_l1.config.compose import compose_plain
    from seg_l1.training.run import run

    words = [*TINY, f"trainer.epochs={count}"]

    def look(row: dict) -> None:
        if row["epoch"] % max(1, count // 10) == 0:
            print(f"epoch {row['epoch']:4d}  {looked_at()}", file=sys.stderr, flush=True)

    from rich.console import Console

    console = Console(file=io.StringIO())
    run(compose_plain(words), folder, overrides=words, resume=False, console=console, on_epoch=look)


def jobs(count: int, folder: Path) -> None:
    from seg_l1.cli import main as cli

    os.chdir(folder)
    over = threading.Event()

    def watch() -> None:
        shown = 0
        while not over.wait(0.1):
            done = len(list(folder.glob("outputs/sweeps/*/*/preview.png")))
            if done >= shown + max(1, count // 10):
                shown = done
                print(f"{done:4d} jobs  {looked_at()}", file=sys.stderr, flush=True)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with contextlib.redirect_stdout(io.StringIO()):
        code = cli.main(["train", "-m", *TINY, "trainer.epochs=1", f"seed=range({count})"])
    print(f"   end       {looked_at()}  exit {code}", file=sys.stderr)
    over.set()
    watcher.join()


def images(count: int, folder: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for index in range(count):
        picture = pictures[index % 64]
        Image.fromarray(picture).save(folder / f"images/{index:06d}.png")
        Image.fromarray(picture[..., 0] % 2).save(folder / f"masks/{index:06d}.png")
    words = [
        "dataset=folder", f"dataset.root={folder}", "dataset.num_classes=2", "model.width=4",
        "dataset.image_size=[64,64]", "trainer.log_every=1", f"hydra.run.dir={folder}/run",
    ]  # fmt: skip
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-u", ROOT / "train.py", *words], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith(("training", "step ")):
            print(f"{time.perf_counter() - begun:5.1f} s  {line.strip()}", file=sys.stderr)
        if line.startswith("step "):
            break
    status = Path(f"/proc/{process.pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    print(f"{count} pairs, peak memory {int(peak.split()[1]) / 2**10:.0f} MiB", file=sys.stderr)
    process.send_signal(signal.SIGTERM)
    process.communicate()


def main(words: list[str]) -> int:
    typed = {"epochs": 200, "jobs": 100, "images": 10000}
    typed |= {k: int(v) for k, v in (word.split("=") for word in words)}
    for kind, work in (("epochs", epochs), ("jobs", jobs), ("images", images)):
        if typed[kind]:
            with tempfile.TemporaryDirectory() as folder:
                work(typed[kind], Path(folder))
                os.chdir(ROOT)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
