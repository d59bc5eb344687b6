"""Jobs of a sweep in processes of their own: killed, started twice, all at once."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from seg_l1.experiments.sweep import Job, Sweep
from seg_l1.runs.summary import RunSummary
from seg_l1.training.recorder import Recorder
from tests.support.forks import Forked, run, signal_at
from tests.support.kills import differences, outcome, strike_at
from tests.support.runs import TINY, table

pytestmark = pytest.mark.usefixtures("undrawn")
SMALL = [*TINY, "trainer.kkt_every=null", "trainer.threads=1"]
SWEPT = ["regularizer=none,l1", "regularizer.alpha=1e-5,1e-4", "hydra.sweep.dir=it"]
"""Four jobs, one of which is the same run as another."""

LIMIT = 300.0
"""Seconds after which jobs that have not ended count as hung."""


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The table of a sweep, but for times."""
    rows = table(folder / "sweep.csv")
    for row in rows:
        row.pop("wall_time_s")
    return rows


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The sweep by the basic launcher, in one process."""
    folder = tmp_path_factory.mktemp("whole")
    ended = run(["-m", *SMALL, *SWEPT], folder=folder)
    assert (ended.code, ended.err) == (0, "")
    return folder / "it"


@pytest.fixture
def planned(tmp_path):
    """The same sweep, planned only."""
    ended = run(["-m", *SMALL, *SWEPT, "sweep.plan_only=true"], folder=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    return tmp_path / "it"


def assert_same_sweep(one: Path, other: Path) -> None:
    assert rows_of(one) == rows_of(other)
    for folder in {row["folder"] for row in rows_of(one)}:
        assert not differences(outcome(one / folder), outcome(other / folder))


def test_a_plan_trains_nothing_and_says_how_to_go_on(command):
    code, out, err = command("-m", *SMALL, *SWEPT, "sweep.plan_only=true")
    assert (code, err) == (0, "")
    assert "4 jobs, indices 0 to 3; 3 to train, 1 the same run as another" in out
    assert "seg-l1 train resume_sweep=it sweep.job=0\n" in out
    assert "seg-l1 train -m resume_sweep=it\n" in out
    assert sorted(path.name for path in Path("it").iterdir()) == ["sweep.csv", "sweep.json"]
    assert {row["status"] for row in table(Path("it/sweep.csv"))} == {"pending"}
    content = json.loads(Path("it/sweep.json").read_text())
    assert not [word for word in content["typed"] if "plan_only" in word]
    code, out, err = command("resume_sweep=it", "sweep.job=1")
    assert (code, out, err) == (0, "job 1: is the same run as job 0, which trains it\n", "")


def test_an_option_of_a_file_can_plan_too(command, tmp_path):
    (tmp_path / "own/experiment").mkdir(parents=True)
    (tmp_path / "own/experiment/mine.yaml").write_text(
        "# @package _global_\nsweep:\n  plan_only: true\n"
    )
    words = ["--config-dir=own", "experiment=mine", "seed=0,1", "hydra.sweep.dir=it", *SMALL]
    code, out, err = command("-m", *words)
    assert (code, err) == (0, "")
    assert "2 jobs, indices 0 to 1; 2 to train\n" in out
    assert f"--config-dir={tmp_path / 'own'} resume_sweep=it sweep.job=0\n" in out


WRONG = {
    ("resume_sweep=it", "sweep.job=2"): ["0 to 1", "sweep.job=2"],
    ("resume_sweep=it", "sweep.job=-1"): ["0 to 1"],
    ("resume_sweep=it", "sweep.job="): ["0 to 1"],
    ("resume_sweep=it", "sweep.job=0,1"): ["0 to 1"],
    ("resume_sweep=it", "sweep.job=true"): ["0 to 1"],
    ("resume_sweep=it", "sweep.job=1e99"): ["0 to 1"],
    ("resume_sweep=nowhere", "sweep.job=0"): ["nowhere", "is no sweep"],
    ("resume_sweep=it", "sweep.job=0", "seed=3"): ["seed=3", "the plan", "dataset.root"],
    ("resume_sweep=it", "sweep.job=0", "hydra.run.dir=x"): ["hydra.run.dir=x", "the plan"],
    ("resume_sweep=it", "sweep.job=0", "device=[]"): ["device"],
    ("resume_sweep=it", "sweep.job=0", "resume=x"): ["leave sweep.job out"],
    ("resume_sweep=it", "sweep.job=0", "--cfg", "job"): ["sweep.json"],
    ("-m", "resume_sweep=it", "sweep.job=0"): ["without -m"],
    ("sweep.job=0",): ["resume_sweep"],
    ("resume_sweep=it",): ["-m", "sweep.job"],
    ("sweep.plan_only=true", "seed=0"): ["-m"],
    ("-m", "seed=0,1", "sweep.plan_only=maybe"): ["true or false"],
    ("-m", "seed=0,1", "sweep.plan_only=true,false"): ["true or false"],
}


@pytest.fixture
def two(command):
    """A sweep of two jobs, planned only."""
    words = ["-m", *SMALL, "seed=0,1", "hydra.sweep.dir=it", "sweep.plan_only=true"]
    assert command(*words)[0] == 0
    return command


def test_what_is_wrong_is_said_and_nothing_is_written(two):
    before = Path("it/sweep.json").read_bytes()
    for words, parts in WRONG.items():
        code, _, err = two(*words)
        assert code == 2, (words, err)
        assert err.count("\n") == 1 and "Traceback" not in err
        assert not [part for part in parts if part not in err], (words, err)
    assert sorted(path.name for path in Path("it").iterdir()) == ["sweep.csv", "sweep.json"]
    assert Path("it/sweep.json").read_bytes() == before


def ends(sweep: Sweep, index: int, miou: float) -> None:
    """Has a job end, as far as the table is concerned."""
    run = sweep.run(index)
    run.path.mkdir(exist_ok=True)
    run.write_summary(RunSummary("completed", best={"val/miou": miou}))


@pytest.fixture
def record(tmp_path):
    jobs = [Job(n, f"{n}_seed-{n}", [f"seed={n}"], {"seed": str(n)}) for n in range(2)]
    return Sweep.create(tmp_path / "it", ["seed=0,1"], jobs, config_dir=None)


def test_the_last_to_write_the_table_has_seen_all_that_ended(record, monkeypatch):
    """Another job ends, and writes the table, after this process has read the runs."""
    right, struck = Sweep._write, []

    def write(self, rows):
        if not struck:
            struck.append(1)
            ends(record, 1, 0.75)
            Sweep(record.path).update()
        right(self, rows)

    ends(record, 0, 0.5)
    monkeypatch.setattr(Sweep, "_write", write)
    record.update()
    for rows in (table(record.table), json.loads(record.file.read_text())["jobs"]):
        assert [float(row["val/miou"]) for row in rows] == [0.5, 0.75]


def test_a_process_with_an_older_plan_does_not_write_it(record):
    older = Sweep(record.path)
    moved = [replace(job, overrides=[*job.overrides, "device=cpu"]) for job in record.jobs]
    record.amend(["seed=0,1", "device=cpu"], moved)
    older.update()
    now = Sweep(record.path)
    assert now.typed == ["seed=0,1", "device=cpu"]
    assert now.jobs == moved == older.jobs


@pytest.mark.slow
def test_a_job_that_another_process_does_is_waited_for(two):
    printed, waits = Path("out"), "waiting for a process that is still working on 0_seed-0"
    with FileLock("it/.0_seed-0.lock"), printed.open("w") as file:
        process = Forked(["resume_sweep=it", "sweep.job=0"], stdout=file.fileno())
        process.reaches(lambda: waits in printed.read_text())
        assert not Path("it/0_seed-0").exists()
    ended = process.wait()
    assert (ended.code, ended.err) == (0, "")
    assert printed.read_text().endswith("job 0: is completed, in it/0_seed-0\n")
    again = two("resume_sweep=it", "sweep.job=0")
    assert again == (0, "job 0: is completed, in it/0_seed-0\n", "")


@pytest.mark.slow
def test_a_file_system_without_locks_is_named(two, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    code, out, err = two("resume_sweep=it", "sweep.job=0")
    assert (code, err) == (0, "")
    assert "it has no file locks; start 0_seed-0 in one process at a time" in out


@pytest.mark.slow
def test_a_job_that_failed_is_tried_again(two, monkeypatch):
    right = Recorder.record_epoch

    def fail(self, row):
        right(self, row)
        raise RuntimeError("the GPU is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "record_epoch", fail)
        code, _, err = two("resume_sweep=it", "sweep.job=1")
    assert code == 1
    assert "job 1 failed: RuntimeError: the GPU is gone" in err
    assert "seg-l1 train resume_sweep=it sweep.job=1\n" in err
    assert [row["status"] for row in table(Path("it/sweep.csv"))] == ["pending", "failed"]
    code, out, _ = two("resume_sweep=it", "sweep.job=0", "sweep.on_error=stop")
    assert code == 1 and "sweep.on_error=stop" in out
    assert two("resume_sweep=it", "sweep.job=1")[0] == 0
    assert [row["status"] for row in table(Path("it/sweep.csv"))] == ["pending", "completed"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_job_that_is_preempted_goes_on_with_the_same_bits(number, planned, whole):
    words = ["resume_sweep=it", "sweep.job=2"]
    folder = Sweep(planned).jobs[2].folder
    strike = signal_at(number, f"it/{folder}/metrics.csv", 1)
    ended = Forked(words, folder=planned.parent, prepare=strike).wait()
    again = "go on with: seg-l1 train resume_sweep=it sweep.job=2"
    assert (ended.code, ended.err) == (130, f"job 2 stopped; {again}\n")
    assert [row["status"] for row in rows_of(planned)][1:] == ["pending", "interrupted", "pending"]
    assert run(words, folder=planned.parent).code == 0
    log = (planned / folder / "train.log").read_text()
    assert "going on after epoch 1" in log
    assert not differences(outcome(planned / folder), outcome(whole / folder))


@pytest.mark.slow
def test_killed_and_doubled_jobs_lose_nothing(planned, whole):
    """Eight processes at a time; each job is started twice, and again whenever it is killed."""
    rng = random.Random(0)
    waiting, running, kills = [*range(4)] * 2, {}, 0
    rng.shuffle(waiting)
    moments = [("time", 1.0), ("written", 3), ("renamed", 9), ("written", 13), ("renamed", 5)]
    deadline = time.monotonic() + LIMIT
    while waiting or running:
        assert time.monotonic() < deadline, running
        while waiting and len(running) < 8:
            index, (phase, when) = waiting.pop(), moments.pop() if moments else ("never", 0)
            timed = phase in ("time", "never")
            prepare = (lambda: None) if timed else (lambda p=phase, n=when: strike_at(p, n))
            words = ["resume_sweep=it", f"sweep.job={index}"]
            process = Forked(words, folder=planned.parent, prepare=prepare)
            kill_at = time.monotonic() + rng.uniform(0.2, 3) if phase == "time" else None
            running[process] = index, kill_at
        for process, (index, kill_at) in [*running.items()]:
            if not process.lives():
                ended = process.wait()
                assert ended.code in (0, -signal.SIGKILL), ended
                del running[process]
                if ended.code:
                    kills += 1
                    waiting.append(index)
            elif kill_at and time.monotonic() > kill_at:
                os.killpg(process.pid, signal.SIGKILL)
                running[process] = index, None
        assert len(Sweep(planned).jobs) == len(rows_of(planned)) == 4
        time.sleep(0.02)
    assert kills >= 3
    assert_same_sweep(planned, whole)
