"""Sweeps: what is planned, what runs once, what survives a failure or a kill."""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
import threading
from argparse import Namespace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig

from seg_l1.config.compose import Composer, compose_plain
from seg_l1.config.identity import duplicates, flatten
from seg_l1.config.words import expand_ranges, parse, parse_word, prepared, slug
from seg_l1.display.terminal import render
from seg_l1.errors import UserError
from seg_l1.experiments import jobs, sweep_screen
from seg_l1.experiments.planning import plan
from seg_l1.experiments.sweep import Sweep
from seg_l1.runs import checkpoints
from seg_l1.runs.summary import RunSummary
from seg_l1.training.recorder import Recorder
from tests.support.forks import Forked, run, signal_at
from tests.support.runs import TINY, same_bits, table

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("undrawn")
SMALL = [*TINY, "trainer.kkt_every=null", "trainer.threads=1"]


def planned(*words):
    flags, parsed = parse(["-m", *SMALL, *words])
    return plan(flags, parsed)


def test_ranges_are_those_of_numpy():
    for low, high, count in ((-7, -3, 9), (-2, 1, 1), (0, -4, 3), (-5.5, -4.5, 4)):
        words = expand_ranges(f"regularizer.alpha=logspace({low},{high},{count})")
        values = [float(value) for value in words.removeprefix("regularizer.alpha=").split(",")]
        assert values == pytest.approx(np.logspace(low, high, count), rel=1e-5)
    assert expand_ranges("seed=0,1") == "seed=0,1"


@pytest.mark.parametrize("inside", ["1,2", "1,2,0", "a,b,3", "1,2,3", "1,2,3)4", "inf,1,2)"])
def test_a_range_that_is_none_is_refused(inside):
    with pytest.raises(UserError, match="logspace"):
        expand_ranges(f"regularizer.alpha=logspace({inside}")


@pytest.mark.slow
def test_jobs_are_the_product_and_their_configurations_those_of_hydra():
    words = ["regularizer=none,elastic_net", "regularizer.alpha=logspace(-6,-5,2)", "seed=0,1"]
    words += ["optimizer=sgd,adam", "optimizer.lr=0.01"]
    jobs, configs = planned(*words)
    assert len(jobs) == 16
    assert [job.index for job in jobs] == list(range(16))
    for job, config in zip(jobs, configs, strict=True):
        assert config == compose_plain(job.overrides)
        chosen = {"regularizer", "regularizer.alpha", "seed", "optimizer"}
        assert job.swept.keys() == chosen
    assert len({json.dumps(job.swept) for job in jobs}) == 16


def test_combinations_that_mean_the_same_run_are_found():
    jobs, configs = planned("regularizer=none,l1,elastic_net", "regularizer.alpha=1e-5,1e-4")
    assert [job.same_as for job in jobs] == [None, 0, None, None, None, None]
    assert jobs[1].folder == jobs[0].folder
    jobs, _ = planned("regularizer=none,l1", "regularizer.l1_ratio=0.2,0.8", "seed=0,1")
    assert [job.same_as for job in jobs] == [None, None, 0, 1, None, None, 4, 5]
    jobs, _ = planned("regularizer=elastic_net", "regularizer.l1_ratio=0.2,0.8")
    assert [job.same_as for job in jobs] == [None, None]
    jobs, _ = planned("regularizer=none", "regularizer.drop_connect=0,0.1")
    assert [job.same_as for job in jobs] == [None, None]
    assert duplicates([configs[0], configs[2], configs[0]]) == [None, None, 0]


@pytest.fixture
def launched(command, monkeypatch):
    """Calls a sweep whose jobs do not train; returns its table, and what each job was given."""
    monkeypatch.setattr(jobs, "_data", None)

    def call(*words):
        given = []

        def note(sweep, index, config, overrides, *, parallel):
            words = [word for word in overrides if not word.startswith("-")]
            assert (index, words) == (len(given), sweep.jobs[index].overrides)
            given.append(dict(flatten(config)))
            return "pending"

        monkeypatch.setattr(jobs, "run_job", note)
        code, out, err = command("-m", *SMALL, *words, "hydra.sweep.dir=it")
        assert (code, err) == (1, ""), out
        return table(Path("it/sweep.csv")), given

    return call


EXPRESSIONS = {
    "seed=shuffle(0,1,2,3,4)": [0, 1, 2, 3, 4],
    "seed=shuffle(range(0,5))": [0, 1, 2, 3, 4],
    "seed=sort(3,1,2)": [1, 2, 3],
    "seed=sort(3,1,2,reverse=true)": [3, 2, 1],
    "seed=tag(first,choice(2,0))": [2, 0],
    "model.dropout=range(0,0.3,0.1)": [0.0, 0.1, 0.2],
    "regularizer.alpha=logspace(-5,-4,2)": [1e-5, 1e-4],
    "regularizer.alpha=float(1,2)": [1.0, 2.0],
    "dataset.digit_size=[10,12],[10,14]": [[10, 12], [10, 14]],
    "regularizer.scope=[{name: 'down*'}],[{name: '*'}]": [[{"name": "down*"}], [{"name": "*"}]],
    "regularizer.name='a b',c": ["a b", "c"],
    "dataset.seed='${seed}',7": [0, 7],
    "+optimizer.foreach=true,null": [True, None],
}


@pytest.mark.slow
@pytest.mark.parametrize("word", EXPRESSIONS)
def test_the_table_says_what_each_job_trains_with(word, launched):
    rows, given = launched(word)
    column = word.partition("=")[0]
    trained = [config[column.lstrip("+")] for config in given]
    assert [parse_word(f"x={row[column]}").value() for row in rows] == trained
    key = repr if word.startswith("seed=shuffle") else (lambda value: 0)  # sorted keeps the order
    assert sorted(trained, key=key) == EXPRESSIONS[word]


def test_a_shuffled_list_is_the_same_at_every_reading():
    word = prepared("dataset.digit_size=shuffle([1,2,3,4,5,6,7,8])")
    assert parse_word(word).value() == parse_word(word).value()
    assert sorted(parse_word(word).value()) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert prepared("dataset.root='shuffle(1,2)'") == "dataset.root='shuffle(1,2)'"


@pytest.fixture
def own(tmp_path):
    """A --config-dir whose experiment names the values of a sweep."""
    file = tmp_path / "own/experiment/mine.yaml"
    file.parent.mkdir(parents=True)

    def write(text):
        file.write_text(f"# @package _global_\n{text}\n")

    write("hydra: {sweeper: {params: {regularizer.alpha: 'logspace(-5,-4,2)', seed: '0,1'}}}")
    return write


@pytest.mark.slow
def test_a_file_can_name_the_values_of_a_sweep(own, launched):
    rows, given = launched("-cd", "own", "experiment=mine", "seed=2")
    assert [float(row["regularizer.alpha"]) for row in rows] == [1e-5, 1e-4]
    assert [config["seed"] for config in given] == [2, 2]
    assert [config["regularizer.alpha"] for config in given] == [1e-5, 1e-4]


@pytest.mark.parametrize(
    ("text", "words", "said"),
    [
        ("hydra: {sweeper: {params: {sede: '0,1'}}}", ["experiment=mine"], "seed"),
        ("hydra: {sweep: {subdir: x}}", ["experiment=mine"], "hydra.sweep.subdir"),
        ("hydra: {sweeper: {_target_: x.Y}}", ["experiment=mine"], "hydra/sweeper"),
        (
            "hydra: {sweeper: {params: {seed: '0,1'}}}",
            ["experiment=none,mine"],
            "hydra.sweeper.params",
        ),
        ("seed: 1", ["hydra.job.name=a,b"], "give it one value"),
    ],
)
def test_what_would_plan_other_jobs_is_refused(text, words, said, own, command, tmp_path):
    own(text)
    code, _, err = command("-m", "-cd", "own", *SMALL, *words)
    assert (code, err.count("\n")) == (2, 1)
    assert said in err
    assert not (tmp_path / "outputs").exists()


def test_folder_names_tell_what_differs_and_hold_no_odd_sign():
    jobs, _ = planned("regularizer=l1,l2", "dataset.digit_size=[12,16],[12,14]")
    assert jobs[0].folder == "0_l1_digit_size-12-16"
    assert not set("".join(job.folder for job in jobs)) & set("=, []'\"")


def test_a_wrong_value_in_one_job_ends_the_sweep_before_it_begins(command, tmp_path):
    code, _, err = command("-m", "regularizer.alpha=1e-5,-1", *SMALL)
    assert (code, err.count("\n")) == (2, 1)
    assert not (tmp_path / "outputs").exists()


DIVERGING = ["optimizer=sgd", "optimizer.weight_decay=10", "optimizer.lr=0.01,9999"]
"""Each step of the second learning rate multiplies the weights by about -10^5."""


COST = {"compact/parameters": 40, "compact/multiply_adds": 4_040_000}


@pytest.fixture
def costs(tmp_path):
    """A sweep of two jobs by made-up summaries, of which the first says what it costs."""
    planned_jobs, _ = planned("seed=0,1")
    sweep = Sweep.create(tmp_path / "it", ["seed=0,1"], planned_jobs, config_dir=None)
    for index, cost in enumerate((COST, {})):
        best = {"val/miou": 0.5, "sparsity/exact": 0.25, **cost}
        sweep.run(index).path.mkdir()
        sweep.run(index).write_summary(
            RunSummary("completed", best=best, epochs=1, parameters=80, multiply_adds=8_080_000)
        )
    return sweep


def test_the_table_of_a_sweep_says_what_compact_networks_cost(costs):
    rows = costs.update()
    first, second = table(costs.table)
    for name, value in COST.items():
        assert (first[name], second[name]) == (str(value), "")
    assert (first["parameters"], second["multiply_adds"]) == ("80", "8080000")
    shown = render(sweep_screen.table(rows, max_rows=10))
    assert "multiply-adds" in shown and "4.04 M (0.50x)" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_the_screen_leaves_out_what_it_has_no_room_for(costs):
    wide = [{**row, "swept": {"seed": "x" * 60}} for row in costs.rows()]
    assert "multiply-adds" not in render(sweep_screen.table(wide, max_rows=10))
    without = [{**row, **dict.fromkeys(COST)} for row in costs.rows()]
    assert "multiply-adds" not in render(sweep_screen.table(without, max_rows=10))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep in which one setting diverges; returns its folder, what it printed, its exit code."""
    folder = tmp_path_factory.mktemp("sweep")
    words = ["regularizer=none,l1", "regularizer.alpha=1e-5,1e-4", *DIVERGING]
    done = train(folder, "-m", *words, "hydra.sweep.dir=it")
    return folder / "it", done


def train(folder, *words):
    return run([*SMALL, *words], folder=folder)


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_failure_and_says_so(swept):
    path, done = swept
    assert done.code == 1
    assert done.err.count("error: job") == done.err.count("\n") == 3
    rows = table(path / "sweep.csv")
    assert [row["status"] for row in rows] == ["completed", "failed"] * 4
    assert [row["same_as"] for row in rows] == ["", "", "0", "1", "", "", "", ""]
    assert "Diverged" in rows[1]["error"]
    assert rows[0]["val/miou"] == rows[2]["val/miou"] != ""
    folders = {row["folder"] for row in rows}
    assert {p.name for p in path.iterdir() if p.is_dir()} == folders
    assert len(folders) == 6
    assert "Traceback" in (path / rows[5]["folder"] / "train.log").read_text()
    for row in rows:
        summary = json.loads((path / row["folder"] / "summary.json").read_text())
        assert summary["status"] == row["status"]
        if row["status"] == "completed":
            assert float(row["val/miou"]) == summary["best"]["val/miou"]
        else:
            assert "not finite" in summary["error"]
    content = json.loads((path / "sweep.json").read_text())
    assert content["typed"][-1] == DIVERGING[-1]
    assert [job["status"] for job in content["jobs"]] == [row["status"] for row in rows]
    assert "4 completed, 4 failed" in done.out
    assert f"(see {path.name}/{rows[5]['folder']}/train.log)" in done.err


@pytest.mark.slow
def test_a_job_has_the_numbers_of_the_run_alone(swept, tmp_path):
    """The jobs of a process share nothing: not the random state, not the threads."""
    path, _ = swept
    alone = ["regularizer=l1", "regularizer.alpha=1e-4", *DIVERGING[:-1], "optimizer.lr=0.01"]
    assert train(tmp_path, *alone, "hydra.run.dir=alone").code == 0
    (first,), (job,) = path.glob("0_*"), path.glob("6_*")
    states = [checkpoints.load(r / "checkpoints/last.pt") for r in (first, job, tmp_path / "alone")]
    assert same_bits(states[1], states[2])
    assert not same_bits(states[0]["loop"]["model"], states[1]["loop"]["model"])


@pytest.mark.slow
def test_a_sweep_goes_on_with_what_is_missing_alone(swept):
    path, _ = swept
    (gone,) = path.glob("4_*")
    done = [p for p in path.glob("*/metrics.csv") if p.parent.name.endswith("_lr-0.01")]
    before = {p: p.stat().st_mtime_ns for p in done if p.parent != gone}
    old = (gone / "metrics.csv").read_text()
    for file in sorted(gone.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    gone.rmdir()
    assert "only in the sweep" in run(["-m", "seed=0,1", "resume_sweep=it"], folder=path.parent).out
    done = run(["-m", "resume_sweep=it"], folder=path.parent)
    assert done.code == 1  # the failed ones fail again
    new, was = (gone / "metrics.csv").read_text(), old
    assert [row.split(",")[:8] for row in new.split()] == [
        row.split(",")[:8] for row in was.split()
    ]
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.slow
def test_a_changed_configuration_is_refused_with_the_difference(swept):
    path, _ = swept
    typed = json.loads((path / "sweep.json").read_text())["typed"]
    changed = [word for word in typed if "model.width" not in word]
    done = run(["-m", *changed, "model.width=8", "resume_sweep=it"], folder=path.parent)
    assert done.code == 2
    assert "model.width: 4 in the sweep, now 8" in done.out + done.err


@pytest.mark.slow
def test_on_error_stop_leaves_the_rest_for_later(tmp_path):
    words = [*DIVERGING[:-1], "optimizer.lr=9999,0.01", "sweep.on_error=stop", "hydra.sweep.dir=it"]
    done = train(tmp_path, "-m", *words)
    assert done.code == 1
    rows = table(tmp_path / "it" / "sweep.csv")
    assert [row["status"] for row in rows] == ["failed", "pending"]


STOPPED = ["seed=0,1,2", "trainer.epochs=3"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The sweep that nobody stops."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder, "-m", *STOPPED, "hydra.sweep.dir=it").code == 0
    return folder / "it"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_sweep_that_was_stopped_ends_like_one_that_was_not(number, whole, tmp_path):
    """Stopped in the middle of its second job, it goes on from that job's checkpoint."""
    strike = signal_at(number, "it/1_seed-1/metrics.csv", 2)
    words = ["-m", *SMALL, *STOPPED, "hydra.sweep.dir=it"]
    ended = Forked(words, folder=tmp_path, prepare=strike).wait()
    if number == signal.SIGKILL:
        assert ended.code == -signal.SIGKILL
    if number == signal.SIGINT:
        assert ended.code == 130
        assert "resume_sweep=it" in ended.err
    done = run(["-m", "resume_sweep=it"], folder=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "going on after epoch" in (tmp_path / "it/1_seed-1/train.log").read_text()
    for job in ("0_seed-0", "1_seed-1", "2_seed-2"):
        one, other = (table(path / job / "metrics.csv") for path in (tmp_path / "it", whole))
        assert len(one) == len(other) == 3
        for mine, theirs in zip(one, other, strict=True):
            for key, value in mine.items():
                assert key.startswith("time/") or value == theirs[key], key


@pytest.mark.slow
def test_jobs_run_beside_each_other_under_joblib(tmp_path):
    """From the shell, since its processes start anew and not from a fork."""
    words = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "regularizer=none,l1"]
    words += ["regularizer.alpha=1e-5,1e-4", "hydra.sweep.dir=it", "trainer.epochs=1"]
    line = [sys.executable, str(ROOT / "train.py"), "-m", *SMALL, *words]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    rows = table(tmp_path / "it" / "sweep.csv")
    assert [row["status"] for row in rows] == ["completed"] * 4
    assert [row["same_as"] for row in rows] == ["", "0", "", ""]


@pytest.mark.slow
def test_a_job_that_loses_its_data_says_so_and_goes_on_later(command, monkeypatch, tmp_path):
    right = Recorder.record_epoch

    def lose(self, row):
        right(self, row)
        if self.experiment.config["seed"] == 1:
            raise UserError("the data are gone")

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "record_epoch", lose)
        code, _, err = command("-m", "seed=0,1", *SMALL, "hydra.sweep.dir=it")
    assert code == 1
    assert "job 1 interrupted seed=1: the data are gone" in err
    assert err.count("\n") == 1
    assert command("-m", "resume_sweep=it")[0] == 0
    assert "going on after epoch 1" in (tmp_path / "it/1_seed-1/train.log").read_text()


@pytest.mark.slow
def test_two_sweeps_beside_each_other_do_not_touch(tmp_path):
    """The same command, twice in the same second, in the same folder."""
    words = ["-m", "seed=0,1", *SMALL, "trainer.epochs=1"]
    for process in [Forked(words, folder=tmp_path) for _ in range(2)]:
        ended = process.wait()
        assert ended.code == 0, ended
    one, other = tmp_path.glob("outputs/sweeps/*")
    for job in (0, 1):
        mine, theirs = (table(path / "sweep.csv")[job] for path in (one, other))
        assert mine["status"] == theirs["status"] == "completed"
        assert mine["val/miou"] == theirs["val/miou"]
    assert len(list(tmp_path.rglob("last.pt"))) == 4


@pytest.mark.slow
def test_jobs_leave_neither_files_nor_threads_nor_configurations_behind(command, monkeypatch):
    """`benchmarks/leaks.py` looks at the memory too, over a hundred jobs."""
    counts = []
    run_job = jobs.run_job

    def counted(*arguments, **options):
        gc.collect()
        held = sum(type(thing) is DictConfig for thing in gc.get_objects())
        files = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
        counts.append((held, files, threading.active_count()))
        return run_job(*arguments, **options)

    monkeypatch.setattr(jobs, "run_job", counted)
    assert command("-m", "seed=0,1,2,3", *SMALL, "trainer.epochs=1")[0] == 0
    assert counts[3] == counts[2]


@pytest.mark.slow
def test_data_are_read_once_for_jobs_that_share_them(command, monkeypatch):
    from seg_l1.training import data

    calls = []
    monkeypatch.setattr(jobs, "_data", None)
    original = data.load_data
    monkeypatch.setattr(data, "load_data", lambda config: calls.append(1) or original(config))
    assert command("-m", "seed=0,1,2", *SMALL, "trainer.epochs=1")[0] == 0
    assert len(calls) == 1


@pytest.mark.slow
def test_the_folder_of_a_sweep_is_not_taken_twice(command):
    words = ["-m", "seed=0", "trainer.epochs=1", *SMALL, "hydra.sweep.dir=it"]
    assert command(*words)[0] == 0
    code, _, err = command(*words)
    assert code == 2
    assert "resume_sweep=it" in err


def test_what_is_no_sweep_cannot_go_on(command):
    code, _, err = command("-m", "resume_sweep=nowhere", *SMALL)
    assert code == 2
    assert "is no sweep" in err


def test_names_that_the_plan_needs_are_refused(command):
    for word in ("hydra.sweep.subdir=x", "hydra/sweeper=basic"):
        assert command("-m", "seed=0,1", word, *SMALL)[0] == 2
    assert slug(["a=1"]) == "a-1"


@pytest.mark.parametrize("more", [[], ["trainer.kkt_every=${seed}"], ["+sweep.note=${seed}"]])
def test_jobs_of_other_seeds_and_strengths_are_what_each_composes(more):
    """Also where something follows from the seed, so that no job may be made from another."""
    words = [f"seed={s} regularizer={r} regularizer.alpha={a}".split() for s, r, a in
             product((1, 2), ("l1", "none"), ("1e-5", "${optimizer.lr}", "3"))]  # fmt: skip
    composer = Composer(Namespace(config_dir=None), ["seed", "regularizer", "regularizer.alpha"])
    for typed in words:
        overrides = parse([*typed, *more])[1]
        found = composer.plain(overrides)
        expected = compose_plain([*typed, *more])
        assert found == expected and repr(found) == repr(expected)
        found["regularizer"]["alpha"] = found["trainer"]["epochs"] = None  # its own copy
    bare = parse(["regularizer=l1", *more])[1]  # not that of a job with another strength
    assert composer.plain(bare) == compose_plain(["regularizer=l1", *more])
