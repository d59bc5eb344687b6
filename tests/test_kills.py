"""Killed at any moment, or without disk or data, and resumed, a run ends with the bits of one that
was not."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from seg_l1.data import files
from seg_l1.runs import checkpoints
from tests.support.forks import Forked, comes_true
from tests.support.kills import (
    BASE,
    DATA,
    KINDS,
    PATH,
    differences,
    failed,
    finished,
    killed,
    moments,
    outcome,
    path_outcome,
    path_with_kills,
    run_with_kills,
)  # fmt: skip
from tests.support.runs import table

KEPT = ("workers", "accumulating", "stopping early", "factorized", "dual_averaging")
"""Of all `KINDS`; `python -m tests.support.kills` takes the others too."""

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]


@pytest.mark.parametrize("kind", KEPT)
def test_a_killed_run_ends_with_the_same_bits(kind, tmp_path):
    words = [*BASE, *KINDS[kind]]
    finished([*words, f"hydra.run.dir={tmp_path / 'whole'}"])
    plan = moments(3, seconds=1.0, writes=12, seed=list(KINDS).index(kind))
    kills = run_with_kills(words, tmp_path / "killed", plan)
    assert kills >= 1
    assert not differences(outcome(tmp_path / "whole"), outcome(tmp_path / "killed"))


FOLDER = [
    f"dataset=folder dataset.root={DATA} dataset.image_size=[16,16] dataset.memory_mib=0",
    "dataset.batch_size=2 model.width=4 model.depth=2 trainer.epochs=3 trainer.threads=1",
]
LOST = {
    "full disk": (("full", 13), BASE, [".pt: cannot be written (File too large)"]),
    "data gone": (("gone", 13), [*FOLDER, "dataset.workers=0"], [f"{DATA}/images/"]),
    "data gone from workers": (("gone", 13), [*FOLDER, "dataset.workers=2"], [f"{DATA}/images/"]),
}


@pytest.mark.parametrize("case", LOST)
def test_a_run_that_loses_disk_or_data_says_so_and_goes_on_later(
    case, street, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    moment, lines, said = LOST[case]
    words = [w for x in lines for w in x.split()]
    elsewhere = Path(f"{DATA} elsewhere")
    finished([*words, "hydra.run.dir=whole"])
    line = failed([*words, "hydra.run.dir=lost"], moment)
    for part in (*said, "The last checkpoint is whole: go on with seg-l1 train resume=lost"):
        assert part in line
    assert json.loads(Path("lost/summary.json").read_text())["status"] in ("running", "interrupted")
    assert not list(Path("lost").rglob("*.tmp"))
    for name in ("last.pt", "best.pt"):
        checkpoints.load(Path("lost/checkpoints") / name)
    if elsewhere.exists():
        elsewhere.rename(DATA)
    finished(["resume=lost"])
    assert not differences(outcome(Path("whole")), outcome(Path("lost")))


def test_a_signal_to_the_whole_group_is_answered_by_the_run_alone(street, tmp_path, monkeypatch):
    """Its workers read on, so that the step can be finished and saved."""
    monkeypatch.chdir(tmp_path)
    words = [w for x in FOLDER for w in x.split()] + ["dataset.workers=2"]
    finished([*words, "hydra.run.dir=whole", "trainer.epochs=9"])
    process = Forked([*words, "hydra.run.dir=cut", "trainer.epochs=9"])
    rows = Path("cut/metrics.csv")
    process.reaches(lambda: rows.exists() and len(table(rows)) > 1)
    os.killpg(process.pid, signal.SIGTERM)
    ended = process.wait()
    assert ended.code == 130, ended
    finished(["resume=cut"])
    assert not differences(outcome(Path("whole")), outcome(Path("cut")))


@pytest.mark.skipif(
    sys.platform != "linux", reason="the death of a parent is a signal on Linux alone"
)
def test_workers_that_check_the_data_die_with_the_run(street, tmp_path, monkeypatch):
    from seg_l1.data import assemble

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(assemble, "MANY", 4)

    def slow(self, index):
        Path("reading").touch()
        time.sleep(600)

    monkeypatch.setattr(files.FileSplit, "read", slow)
    words = [w for x in FOLDER for w in x.split() if not w.startswith("trainer.threads")]
    process = Forked([*words, "trainer.threads=2"])
    process.reaches(Path("reading").exists)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    def gone():
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    assert comes_true(gone)


def test_the_best_weights_are_those_of_the_best_epoch_after_a_kill_between_two_files(tmp_path):
    """Killed when `last.pt` of epoch 1 has its name, and `best.pt` not yet, then cut short."""
    run = tmp_path / "run"
    assert killed([*BASE, f"hydra.run.dir={run}"], ("renamed", 8))
    assert checkpoints.load(run / "checkpoints/last.pt")["loop"]["epoch"] == 1
    assert not (run / "checkpoints/best.pt").exists()
    finished([f"resume={run}", "trainer.epochs=1"])
    best = checkpoints.load(run / "checkpoints/best.pt")
    summary = json.loads((run / "summary.json").read_text())
    assert best["epoch"] == summary["best"]["epoch"] == 1
    weights = [v for k, v in best["model"].items() if k.endswith("weight") and v.dim() == 4]
    zeros = sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
    assert zeros == pytest.approx(summary["best"]["sparsity/exact"])


def test_the_comparison_sees_one_bit(tmp_path):
    finished([*BASE, f"hydra.run.dir={tmp_path / 'whole'}"])
    one, other = outcome(tmp_path / "whole"), outcome(tmp_path / "whole")
    assert not differences(one, other)
    name = "head.weight"
    other["last"]["loop"]["model"][name][0, 0] *= 1 + 2**-23
    assert differences(one, other) == [f"/last/loop/model/{name}"]


def test_a_killed_path_ends_with_the_same_selection(tmp_path, monkeypatch):
    for name, kills in (("whole", 0), ("killed", 4)):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        assert path_with_kills(PATH, kills, 4.0) >= kills // 2
    assert not differences(path_outcome(tmp_path / "whole/p"), path_outcome(tmp_path / "killed/p"))
