"""Runs that are killed with SIGKILL, or lose the disk or their data.

    python -m tests.support.kills [kills=50]

kills runs of all `KINDS` in turn and a path with two folds, again and again, and compares what each
ends with, bit for bit, with a run that was left alone. `tests/test_kills.py` does a part of it.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from seg_l1.runs import checkpoints, files
from tests.support.forks import Forked, run
from tests.support.runs import TINY, table

Moment = tuple[str, float]
"""("time", seconds after the start), or ("written", n), ("renamed", n): before or after the n-th
file that is written whole takes its place. Or, to go on living: ("full", n): from then on no file
can be larger than 100 kB; ("gone", n): from then on there is no folder DATA."""


DATA = "street"
BASE = [*TINY, "regularizer=l1", "trainer.epochs=3", "trainer.kkt_every=2", "trainer.threads=1"]
"""A run of a second or two."""
KINDS = {
    "augmented": ["augmentation=light", "augmentation.chunks=null"],
    "accumulating": ["trainer.accumulate=2", "trainer.clip_norm=0.5"],
    "bf16": ["trainer.precision=bf16"],
    "stopping early": ["trainer.early_stopping=1", "trainer.epochs=6"],
    "workers": ["dataset.workers=2"],
    "dual_averaging": ["regularizer.solver=dual_averaging", "optimizer=sgd"],
    "factorized": ["regularizer.solver=factorized"],
    "subgradient": ["regularizer.solver=subgradient"],
    "frozen": ["regularizer.solver=frozen"],
    "groups": ["regularizer=group_l1", "optimizer=adamw"],
    "drop_connect": ["regularizer=drop_connect"],
}
PATH = [
    *(word for word in BASE if not word.startswith("trainer.epochs")),
    "path.folder=p",
    "path.num=3",
    "path.folds=2",
    "path.epochs=1",
    "trainer.epochs=2",
]


def strike_at(phase: str, number: float) -> None:
    """Has it strike this process at the `number`-th file that it writes."""
    count, right = 0, os.replace

    def replace(*names: str) -> None:
        nonlocal count
        count += 1
        if count == number and phase == "written":
            os.kill(os.getpid(), signal.SIGKILL)
        right(*names)
        if count == number and phase == "renamed":
            os.kill(os.getpid(), signal.SIGKILL)
        if count == number and phase == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        if count == number and phase == "gone":
            Path(DATA).rename(f"{DATA} elsewhere")

    files.os.replace = replace


def killed(words: list[str], moment: Moment, command: str = "train") -> bool:
    """Runs the command and kills it; returns whether it was still running then."""
    phase, number = moment
    timed = phase == "time"
    prepare = (lambda: None) if timed else (lambda: strike_at(phase, number))
    process = Forked(words, command=command, prepare=prepare)
    if timed:
        time.sleep(number)
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait().code < 0


def failed(words: list[str], moment: Moment) -> str:
    """Runs the command, which must end with exit code 1; returns the last line that it printed."""
    ended = Forked(words, prepare=lambda: strike_at(*moment)).wait()
    assert ended.code == 1, ended
    return ended.err.splitlines()[-1]


def finished(words: list[str], command: str = "train") -> None:
    """Runs the command to its end, which must be a good one."""
    ended = run(words, command=command)
    assert ended.code == 0, ended


def path_with_kills(words: list[str], count: int, seconds: float) -> int:
    """A path that is killed `count` times, then finished; returns the kills."""
    drawn = moments(count, seconds, writes=40)
    kills = sum(killed(words, moment, "path") for moment in drawn)
    finished(words, "path")
    return kills


def run_with_kills(words: list[str], folder: Path, moments: list[Moment]) -> int:
    """A run in `folder` that is killed at all `moments`, then finished; returns the kills."""
    kills = 0
    for moment in [*moments, None]:
        again = [f"resume={folder}"]
        if not (folder / "checkpoints/last.pt").exists():
            again = [*words, f"hydra.run.dir={folder}"]
        if moment is None:
            finished(again)
        else:
            kills += killed(again, moment)
    return kills


def moments(count: int, seconds: float, writes: int, seed: int = 0) -> list[Moment]:
    """Random moments, of all kinds in turn."""
    rng = random.Random(seed)
    draw: list[Callable[[], Moment]] = [
        lambda: ("time", rng.uniform(0, seconds)),
        lambda: ("written", rng.randint(1, writes)),
        lambda: ("renamed", rng.randint(1, writes)),
    ]
    return [draw[index % 3]() for index in range(count)]


def outcome(folder: Path) -> dict:
    """Everything that a run ends with, but for times."""
    last = checkpoints.load(folder / "checkpoints/last.pt")
    best = checkpoints.load(folder / "checkpoints/best.pt")
    last["loop"].pop("seconds")
    summary = json.loads((folder / "summary.json").read_text())
    rows = table(folder / "metrics.csv")
    for row in (summary, summary["best"], summary["last"], *rows):
        for name in [key for key in row if key.startswith(("time/", "wall_time"))]:
            row.pop(name)
    for state in (last, best):
        state.pop("elapsed", None)
        state["config"].pop("resume")
    return {"last": last, "best": best, "summary": summary, "rows": rows,
            "weights": (folder / "model.safetensors").read_bytes()}  # fmt: skip


def differences(one: object, other: object, where: str = "") -> list[str]:
    """The places where two outcomes differ, in any bit."""
    import torch

    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return [f"{where}: {sorted(map(str, one.keys() ^ other.keys()))}"]
        return [x for key in one for x in differences(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return [f"{where}: {len(one)} and {len(other)}"]
        pairs = enumerate(zip(one, other, strict=True))
        return [x for index, pair in pairs for x in differences(*pair, f"{where}/{index}")]
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [where]
    return [] if one == other or (one != one and other != other) else [f"{where}: {one}, {other}"]


def path_outcome(folder: Path) -> dict:
    """What a path ends with, but for times."""
    rows = table(folder / "path.csv")
    for row in rows:
        row.pop("wall_time_s")
    selection = json.loads((folder / "selection.json").read_text())
    stability = table(folder / "stability.csv")
    refit = outcome(folder / "refit")
    return {"selection": selection, "rows": rows, "stability": stability, "refit": refit}


def main(words: list[str]) -> int:
    wanted = int(dict(word.split("=") for word in words).get("kills", 50))
    each = -(-wanted // (len(KINDS) + 1))
    kills, wrong = 0, []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number, (kind, special) in enumerate(KINDS.items()):
            words = [*BASE, *special]
            whole, other = root / f"{kind} whole", root / f"{kind} killed"
            finished([*words, f"hydra.run.dir='{whole}'"])
            done = run_with_kills(words, other, moments(2 * each, 1.5, 12, seed=number))
            unequal = differences(outcome(whole), outcome(other))
            print(f"{kind}: {done} kills, {len(unequal)} differences", *unequal[:5], flush=True)
            kills, wrong = kills + done, wrong + unequal
        for name, count in (("whole", 0), ("killed", 2 * each)):
            (root / name).mkdir()
            os.chdir(root / name)
            done = path_with_kills(PATH, count, 6.0)
        unequal = differences(path_outcome(root / "whole/p"), path_outcome(root / "killed/p"))
        print(f"path: {done} kills, {len(unequal)} differences", *unequal[:5], flush=True)
        kills, wrong = kills + done, wrong + unequal
        os.chdir("/")
    print(f"{kills} kills in all, {len(wrong)} differences")
    return int(bool(wrong) or kills < wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
