"""Memory, open files and threads over many epochs, many jobs of one process, and many images.

    python benchmarks/leaks.py [epochs=200] [jobs=100] [images=10000]

A run of tiny digits scenes, looked at every tenth of its epochs; as many jobs of a sweep,
one after the other in this process; a folder data set of so many pairs of 64x64, and how long it
takes to its first optimizer step.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

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
    from seg_l1.overrides import compose_plain
    from seg_l1.run import run

    words = [*TINY, f"trainer.epochs={count}"]

    def look(row: dict) -> None:
        if row["epoch"] % max(1, count // 10) == 0:
            print(f"epoch {row['epoch']:4d}  {looked_at()}", file=sys.stderr, flush=True)

    from rich.console import Console

    console = Console(file=io.StringIO())
    run(compose_plain(words), folder, overrides=words, resume=False, console=console, on_epoch=look)


def jobs(count: int, folder: Path) -> None:
    from seg_l1 import cli

    os.chdir(folder)
    for start in range(0, count, max(1, count // 10)):
        seeds = ",".join(map(str, range(start, min(count, start + max(1, count // 10)))))
        with contextlib.redirect_stdout(io.StringIO()):
            code = cli.main(["-m", *TINY, "trainer.epochs=1", f"seed={seeds}"])
        print(f"{start + max(1, count // 10):4d} jobs  {looked_at()}  exit {code}", file=sys.stderr)


def images(count: int, folder: Path) -> None:
    from seg_l1.build import build, load_data
    from seg_l1.overrides import compose_plain

    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (64, 64, 64, 3), dtype=np.uint8)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for index in range(count):
        picture = pictures[index % 64]
        Image.fromarray(picture).save(folder / f"images/{index:06d}.png")
        Image.fromarray(picture[..., 0] % 2).save(folder / f"masks/{index:06d}.png")
    print(f"before        {looked_at()}", file=sys.stderr)
    begun = time.perf_counter()
    config = compose_plain(
        ["dataset=folder", f"dataset.root={folder}", "dataset.num_classes=2", "trainer.threads=1",
         "dataset.image_size=[64,64]", "model.width=4", "dataset.workers=0"]
    )  # fmt: skip
    data = load_data(config)
    read = time.perf_counter() - begun
    loop = build(config, data).loop
    batches = loop.train.epoch(0)
    loop.model.train()
    loop._train_step([next(batches)])
    total = time.perf_counter() - begun
    print(
        f"{count} pairs  {looked_at()}  read and checked in {read:.1f} s,"
        f" first step after {total:.1f} s",
        file=sys.stderr,
    )


def main(words: list[str]) -> int:
    typed = {"epochs": 200, "jobs": 100, "images": 10000}
    typed |= {k: int(v) for k, v in (word.split("=") for word in words)}
    for kind, work in (("epochs", epochs), ("jobs", jobs), ("images", images)):
        if typed[kind]:
            with tempfile.TemporaryDirectory() as folder:
                work(typed[kind], Path(folder))
                os.chdir("/")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
