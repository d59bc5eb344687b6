"""Hydra's launchers, started for real: their jobs have the bits of those of the basic launcher."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from seg_l1.experiments.sweep import Sweep
from tests.support import slurm
from tests.support.forks import comes_true, run
from tests.support.kills import differences, outcome, path_outcome
from tests.support.runs import TINY, table

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
SMALL = [*TINY, "regularizer=l1", "trainer.kkt_every=null", "trainer.threads=1"]
SWEPT = ["-m", *SMALL, "seed=0,1", "hydra.sweep.dir=it"]
FOLDS = [*SMALL, "path.folder=it", "path.num=2", "path.folds=2", "path.epochs=1"]
LAUNCHERS = {
    "joblib": ("hydra_joblib_launcher", ["hydra.launcher.n_jobs=2"]),
    "submitit_local": ("hydra_submitit_launcher", []),
    "submitit_slurm": ("hydra_submitit_launcher", ["hydra.launcher.signal_delay_s=10"]),
}


def launched(folder: Path, script: str, *words: str, preempt: str = "") -> None:
    """Runs a command from the shell, with the stand-in of Slurm; its processes start anew."""
    folder.mkdir()
    own = slurm.install(folder / "programs", preempt=preempt)
    line = [sys.executable, str(ROOT / script), *words]
    env = {**os.environ, **own, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def with_launcher(name: str) -> list[str]:
    module, words = LAUNCHERS[name]
    pytest.importorskip(f"hydra_plugins.{module}")
    return [f"hydra/launcher={name}", *words]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The sweep and the path by the basic launcher."""
    folder = tmp_path_factory.mktemp("whole")
    launched(folder / "sweep", "train.py", *SWEPT)
    launched(folder / "path", "scripts/path.py", *FOLDS)
    return folder


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_sweep_has_the_bits_of_the_basic_launcher(name, whole, tmp_path):
    """Under Slurm, the second job is preempted in its first epoch, and queued again."""
    words = with_launcher(name)
    preempt = "it/1_*/checkpoints/last.pt" if name == "submitit_slurm" else ""
    launched(tmp_path / "sweep", "train.py", *SWEPT, *words, preempt=preempt)
    mine, theirs = tmp_path / "sweep/it", whole / "sweep/it"
    for row, other in zip(*(table(path / "sweep.csv") for path in (mine, theirs)), strict=True):
        assert row | {"wall_time_s": ""} == other | {"wall_time_s": ""}
        folder = row["folder"]
        assert not differences(outcome(mine / folder), outcome(theirs / folder))
    if preempt:
        assert "going on after epoch" in (mine / "1_seed-1/train.log").read_text()


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_path_with_folds_has_the_bits_of_the_basic_launcher(name, whole, tmp_path):
    launched(tmp_path / "path", "scripts/path.py", *FOLDS, *with_launcher(name))
    mine, theirs = (path_outcome(path / "path/it") for path in (tmp_path, whole))
    assert not differences(mine, theirs)


def test_the_job_array_of_the_documentation(whole, tmp_path):
    """As Slurm would: a task is warned before its time is over, and then queued again."""
    page = (ROOT / "docs/cluster.md").read_text()
    (script,) = re.findall(r"^```bash\n(#!/bin/bash\n.*?)^```", page, re.M | re.S)
    (tmp_path / "job.sh").write_text(script.replace("sweeps/first", "it"))
    env = {**os.environ, **slurm.install(tmp_path / "programs"), "PYTHONPATH": str(ROOT)}
    main = "import sys; from seg_l1.cli.main import main; sys.exit(main())"
    programs = {
        "seg-l1": f'exec {sys.executable} -c "{main}" "$@"',
        "scontrol": 'echo "$@" >> requeued',
    }
    for name, line in programs.items():
        (tmp_path / "programs" / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / "programs" / name).chmod(0o755)
    assert run([*SWEPT, "sweep.plan_only=true"], folder=tmp_path).code == 0

    def task(index):
        own = {"SLURM_ARRAY_TASK_ID": str(index), "SLURM_JOB_ID": f"47{index}"}
        return subprocess.Popen(["bash", "job.sh"], cwd=tmp_path, env={**env, **own})

    warned, other = task(0), task(1)
    (job, _) = Sweep(tmp_path / "it").jobs
    assert comes_true((tmp_path / "it" / job.folder / "checkpoints/last.pt").exists)
    warned.send_signal(signal.SIGUSR1)
    assert (warned.wait(), other.wait()) == (130, 0)
    assert (tmp_path / "requeued").read_text() == "requeue 470\n"
    assert task(0).wait() == 0
    for folder in (job.folder for job in Sweep(tmp_path / "it").jobs):
        mine, theirs = (outcome(path / folder) for path in (tmp_path / "it", whole / "sweep/it"))
        assert not differences(mine, theirs)
