"""Training speed beside Lightning and a plain loop: the same network, data, optimizer and schedule.

    python -m benchmarks.peers [--epochs 8] [--train 256] [--val 128] [--threads 1]

Needs Linux and `pip install -e ".[peers]"`. Every contender trains to the end, with and without L1.
All take their epochs in turn, in one process: each has a thread of its own, and one thread at a
time may run. The first epoch warms up. The table gives medians of the others: images per second
of the training part, and the CPU time of the training part and of the whole epoch (with validation,
logging and checkpoints), as ratios to seg_l1 in the same round; above 1 = seg_l1 is faster. CPU
time is used because other work on the machine hardly changes it. Seconds to the first step and peak
memory come from processes of their own, which train one epoch.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import torch

from benchmarks.peers.task import Task

ROOT = Path(__file__).parents[2]
CONTENDERS = ("ours", "lightning_smp", "plain_loop")
NAMES = {
    "ours": "seg_l1",
    "lightning_smp": "Lightning with smp",
    "plain_loop": "plain loop",
}


@dataclass
class Turns:
    """Lets one of several threads go on at a time, in their order.

    A thread that ends is left out from then on.
    """

    waiting: list[threading.Event] = field(default_factory=list)

    def enter(self) -> threading.Event:
        """Returns the turn of another thread."""
        self.waiting.append(threading.Event())
        return self.waiting[-1]

    def start(self) -> None:
        """Lets the first thread go on."""
        self.waiting[0].set()

    def hand_on(self, mine: threading.Event) -> None:
        """Lets the next thread go on."""
        mine.clear()
        self.waiting[(self.waiting.index(mine) + 1) % len(self.waiting)].set()

    def leave(self, mine: threading.Event) -> None:
        """Ends a thread's part."""
        if len(self.waiting) > 1:
            self.hand_on(mine)
        self.waiting.remove(mine)


@dataclass
class Stopwatch:
    """CPU and wall time of the epochs of one contender; gives way to the others after each.

    Attributes:
        training, epochs: CPU seconds of the training part and of all of each epoch.
        wall: wall-clock seconds of the training part.
    """

    give_way: Callable[[], None] = lambda: None
    training: list[float] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    first_step: float | None = None

    def start(self) -> None:
        self._cpu, self._time = time.process_time(), time.perf_counter()

    def stepped(self) -> None:
        self.first_step = self.first_step or time.time()

    def trained(self) -> None:
        self.training.append(time.process_time() - self._cpu)
        self.wall.append(time.perf_counter() - self._time)

    def validated(self) -> None:
        self.epochs.append(time.process_time() - self._cpu)
        self.give_way()
        self.start()


def make_task(data: Path, folder: Path, options: argparse.Namespace) -> Task:
    """Returns what is trained, of data that `write_data` wrote."""
    content = torch.load(data)
    return Task(
        content["images"], content["masks"], content["classes"], epochs=options.epochs,
        batch_size=8, rate=0.01, threads=options.threads, folder=folder,
    )  # fmt: skip


def write_data(path: Path, options: argparse.Namespace) -> None:
    """Writes the scenes of digits."""
    from seg_l1.config.compose import compose_plain
    from seg_l1.training.data import load_data

    words = [f"dataset.num_train={options.train}", f"dataset.num_val={options.val}"]
    data = load_data(compose_plain([*words, "dataset.num_test=16"]))
    content = {
        "images": {name: split.images for name, split in data.splits.items()},
        "masks": {name: split.masks for name, split in data.splits.items()},
        "classes": data.num_classes,
    }
    torch.save(content, path)


def in_turns(task: Task) -> dict[tuple[str, bool], Stopwatch]:
    """Trains all contenders, an epoch of each at a time."""
    turns, watches, threads = Turns(), {}, []
    failures: list[BaseException] = []
    for name in CONTENDERS:
        module = importlib.import_module(f"benchmarks.peers.{name}")
        for l1 in (False, True):
            watch = watches[name, l1] = Stopwatch()
            mine = turns.enter()

            def give_way(mine: threading.Event = mine) -> None:
                turns.hand_on(mine)
                mine.wait()

            watch.give_way = give_way
            one = replace(task, folder=task.folder / f"{name}{'_l1' * l1}")

            def work(train=module.train, one=one, l1=l1, watch=watch, mine=mine) -> None:
                mine.wait()
                torch.set_num_threads(one.threads)
                watch.start()
                try:
                    train(one, l1=l1, clock=watch)
                except BaseException as error:  # reported by the main thread
                    failures.append(error)
                finally:
                    turns.leave(mine)

            threads.append(threading.Thread(target=work))
    for thread in threads:
        thread.start()
    turns.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return watches


def alone(name: str, l1: bool, data: Path, options: argparse.Namespace) -> tuple[float, float]:
    """Returns seconds to the first step and peak memory in MiB of a process of its own."""
    command = [
        sys.executable, "-m", "benchmarks.peers", "--only", name, *["--l1"] * l1,
        "--data", str(data), "--epochs", "1", "--threads", str(options.threads),
    ]  # fmt: skip
    started = time.time()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return found["first_step"] - started, found["peak_kib"] / 1024


def train_one(name: str, l1: bool, task: Task) -> None:
    """Trains one contender and prints what `alone` reads."""
    torch.set_num_threads(task.threads)
    watch = Stopwatch()
    with contextlib.redirect_stdout(sys.stderr):
        watch.start()
        importlib.import_module(f"benchmarks.peers.{name}").train(task, l1=l1, clock=watch)
    print(json.dumps({"first_step": watch.first_step, "peak_kib": peak_memory()}))


def peak_memory() -> int:
    """Returns the peak memory of this process in KiB.

    `resource.getrusage` would report the peak of the parent process if that was higher.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Returns the median over the rounds after the first of theirs / ours."""
    pairs = list(zip(theirs, ours, strict=True))[1:]
    return median(a / b for a, b in pairs)


def table(
    watches: dict[tuple[str, bool], Stopwatch],
    processes: dict[tuple[str, bool], tuple[float, float]],
    images: int,
) -> str:
    """Returns the table, in Markdown."""
    lines = [
        "| | images/s | CPU time of training, ours = 1 | of a whole epoch | first step | memory |",
        "|---|---|---|---|---|---|",
    ]
    for (name, l1), watch in watches.items():
        ours = watches["ours", l1]
        seconds, memory = processes.get((name, l1), (float("nan"), float("nan")))
        lines.append(
            f"| {NAMES[name]}{', with L1' * l1} | {images / median(watch.wall[1:]):.0f}"
            f" | {ratio(ours.training, watch.training):.2f}"
            f" | {ratio(ours.epochs, watch.epochs):.2f} | {seconds:.1f} s | {memory:.0f} MiB |"
        )
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--epochs", type=int, default=8)
    made.add_argument("--train", type=int, default=256, help="training images")
    made.add_argument("--val", type=int, default=128, help="validation images")
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    made.add_argument("--l1", action="store_true", help=argparse.SUPPRESS)
    made.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    return made


def main() -> None:
    options = parser().parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.only:
            task = make_task(options.data, folder / "run", options)
            train_one(options.only, options.l1, task)
            return
        write_data(folder / "data.pt", options)
        task = make_task(folder / "data.pt", folder / "runs", options)
        with (
            (folder / "log").open("w") as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            watches = in_turns(task)
        processes = {key: alone(*key, folder / "data.pt", options) for key in watches}
        print(table(watches, processes, task.steps_per_epoch * task.batch_size))


if __name__ == "__main__":
    main()
