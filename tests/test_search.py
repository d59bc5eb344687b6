"""The search: what spans the space, what counts, what is drawn again, what is pruned.

The fast tests put a formula in the place of training; those marked slow train.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import statistics
import sys
import time
from copy import deepcopy
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from seg_l1.cli import main as cli
from seg_l1.config.compose import compose_plain
from seg_l1.data.split import SegmentationData
from seg_l1.errors import Interrupted, UserError
from seg_l1.experiments import jobs
from seg_l1.experiments import search as search_room
from seg_l1.experiments import study as study_room
from seg_l1.experiments.space import DEFAULTS, distribution, read_words
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.summary import RunSummary
from seg_l1.training import run as run_room
from seg_l1.training.loop import Diverged
from seg_l1.training.saved import evaluate_run
from tests.support.forks import Forked, run, signal_at
from tests.support.runs import TINY, table

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]
SMALL = [*TINY, "trainer.kkt_every=null", "trainer.threads=1"]
SPACE = ["regularizer.alpha=log(1e-7,1e-3)", "optimizer.lr=log(1e-3,3e-2)", "model.width=int(4,8)"]
DRAWN = ["model.width", "optimizer.lr", "regularizer.alpha"]
EPOCHS = 4


def scores(config):
    """A formula in the place of training: (mIoU, zeros), the last mIoU of `EPOCHS`."""
    alpha, lr = config["regularizer"]["alpha"], config["optimizer"]["lr"]
    zeros = (math.log10(alpha) + 7) / 4 * (1 - 10 * lr)
    return 0.9 - 0.3 * zeros**2 - 0.1 * abs(math.log10(lr) + 2), zeros


def curve(config):
    """The mIoU of each epoch: those with a large rate begin low."""
    last, slow = scores(config)[0], 1 + 30 * config["optimizer"]["lr"]
    return [last * (epoch / EPOCHS) ** slow for epoch in range(1, EPOCHS + 1)]


def trained(config, directory, *, overrides, resume, console, data, on_epoch):
    """As `run`, but for the training."""
    record = RunDirectory(directory)
    record.create()
    row = None
    try:
        for epoch, miou in enumerate(curve(config), 1):
            if config["optimizer"]["lr"] > 0.02 and config["seed"] == 7:
                raise Diverged("the loss is not finite")
            row = {"epoch": epoch, "val/miou": miou, "sparsity/exact": scores(config)[1]}
            row["gap/miou"] = 0.1
            on_epoch(row)
        status, error = "completed", None
    except BaseException as caught:
        status, error = "failed", f"{type(caught).__name__}: {caught}"
        raise
    finally:
        summary = RunSummary(status, error, best=row or {}, last=row or {})
        record.write_summary(summary)
    return summary


composed = lru_cache(compose_plain)


def composed_quickly(words):
    """As `compose_plain`, where numbers alone change from one trial to the next."""
    drawn = dict(word.split("=") for word in words if word.split("=")[0] in DRAWN)
    config = deepcopy(composed(tuple(word for word in words if word.split("=")[0] not in drawn)))
    for key, value in drawn.items():
        group, name = key.split(".")
        config[group][name] = int(value) if name == "width" else float(value)
    return config


DATA = SegmentationData({}, ["a", "b"], [0.5], [0.5], [0.5, 0.5], 0.0, "fingerprint")


@pytest.fixture
def formula(monkeypatch):
    """No training, no data, no waiting for the disk."""
    monkeypatch.setattr(run_room, "run", trained)
    monkeypatch.setattr(search_room, "compose_plain", composed_quickly)
    monkeypatch.setattr(jobs, "read_data", lambda config: DATA)
    monkeypatch.setattr(jobs, "reset", lambda config, parallel: None)
    monkeypatch.setattr(os, "fsync", lambda number: None)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def main(words):
    """The exit code of `seg-l1 search`."""
    return cli.main(["search", *words])


def study(folder="it"):
    journal = JournalFileBackend(f"{folder}/study.journal")
    return optuna.load_study(study_name="search", storage=JournalStorage(journal))


def drawn(folder="it"):
    """The parameters of the trials that count, in their order."""
    rows = [r for r in table(Path(folder) / "trials.csv") if not r["error"].startswith("stopped")]
    return [[row[key] for key in DRAWN] for row in rows]


def test_values_span_the_space_that_they_name():
    log, line = distribution("a", "log(1e-7,1e-3)"), distribution("a", "uniform(-1,2.5)")
    whole, some = distribution("a", "int(8,32)"), distribution("a", "choice(sgd,[1,2],'a b')")
    assert (log.low, log.high, log.log, log.step) == (1e-7, 1e-3, True, None)
    assert (line.low, line.high, line.log, line.step) == (-1, 2.5, False, None)
    assert (whole.low, whole.high, whole.log, whole.step) == (8, 32, False, 1)
    assert isinstance(whole, optuna.distributions.IntDistribution)
    assert some.choices == ("sgd", "[1,2]", "a\\ b")
    for fixed in ("adam", "1e-5", "[1,2]", "", "logs"):
        assert distribution("a", fixed) is None


@pytest.mark.parametrize(
    "value",
    ["log(0,1)", "log(-1,1)", "log(3,1)", "log(1,1)", "log(1)", "log(1,2,3)", "log(a,b)",
     "log(1,2", "log(1,2)3", "log()", "uniform(2,1)", "uniform(nan,1)", "uniform(0,inf)",
     "int(1.5,2)", "int(3,3)", "int(0,1" + 400 * "0" + ")", "choice()", "choice(a,b"],
)  # fmt: skip
def test_a_space_that_is_none_is_refused(value):
    with pytest.raises(UserError, match="expected log"):
        distribution("optimizer.lr", value)


def test_without_optuna_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(SPACE) == 2
    assert "pip install optuna" in capsys.readouterr().err


def test_the_table_holds_what_the_database_and_the_runs_hold(formula, here, capsys):
    fixed = ["regularizer=l1", f"trainer.epochs={EPOCHS}"]
    assert main([*fixed, *SPACE, "optimizer=choice(sgd,adam)", "trials=7"]) == 0
    (folder,) = Path("outputs/searches").iterdir()
    rows, trials = table(folder / "trials.csv"), study(folder).trials
    assert len(rows) == len(trials) == 7
    for row, trial in zip(rows, trials, strict=True):
        words = [*fixed, *(f"{key}={row[key]}" for key in [*DRAWN, "optimizer"])]
        config = compose_plain(words)
        assert 1e-7 <= config["regularizer"]["alpha"] <= 1e-3
        assert 1e-3 <= config["optimizer"]["lr"] <= 3e-2
        assert config["model"]["width"] in range(4, 9)
        miou = curve(config)[int(row["epochs"]) - 1]
        assert float(row["val/miou"]) == trial.value == miou
        assert float(row["sparsity/exact"]) == scores(config)[1]
        summary = json.loads((folder / row["folder"] / "summary.json").read_text())
        assert summary["best"]["val/miou"] == miou
        assert row["folder"].startswith(f"{trial.number}_")
        assert not set(row["folder"]) & set("=, ()")
        assert row["state"] == trial.state.name
    out = capsys.readouterr().out
    best = max((row for row in rows if row["state"] == "COMPLETE"), key=lambda r: r["val/miou"])
    assert f"#{best['number']}: seg-l1 train regularizer=l1 trainer.epochs=4" in out
    assert f"regularizer.alpha={best['regularizer.alpha']}" in out


def test_a_seed_makes_the_draws(formula, here):
    for name, words in (("a", SPACE), ("b", SPACE[::-1]), ("c", [*SPACE, "seed=1", "trials=4"])):
        assert main([f"trainer.epochs={EPOCHS}", "trials=12", *words, f"study={name}"]) == 0
    assert drawn("a") == drawn("b")
    assert not any(x in drawn("a") for x in drawn("c"))
    assert len({tuple(x) for x in drawn("a")}) == 12


def test_a_study_goes_on_to_the_same_trials(formula, here, monkeypatch, capsys):
    """Finished in three pieces, with a trial stopped by Ctrl-C and one killed, it is the same."""
    words = [*SPACE, f"trainer.epochs={EPOCHS}"]
    assert main([*words, "study=whole", "trials=12"]) == 0
    assert main([*words, "study=it", "trials=4"]) == 0
    for error in (KeyboardInterrupt, Interrupted("stopped")):
        calls = []
        with monkeypatch.context() as patch:

            def stopped(*args, error=error, calls=calls, **more):
                if len(calls) == 2:
                    raise error
                calls.append(1)
                return trained(*args, **more)

            patch.setattr(run_room, "run", stopped)
            capsys.readouterr()
            assert main(["study=it", "trials=12"]) == 130
            assert capsys.readouterr().err == "go on with: seg-l1 search study=it\n"
        assert table(Path("it/trials.csv"))[-1]["state"] == "FAIL"
    killed = study().ask()
    assert main(["study=it"]) == 0  # to the 12 that were asked for last
    assert study().trials[killed.number].state.name == "FAIL"
    states = [row["state"] for row in table(Path("it/trials.csv"))]
    errors = [row["error"] for row in table(Path("it/trials.csv"))]
    assert errors.count("stopped, and drawn again") == 3
    assert len(states) == 15
    assert "RUNNING" not in states
    assert drawn("it") == drawn("whole")
    capsys.readouterr()
    assert main([*words, "study=it"]) == 0
    assert "12 of 12 trials are done" in capsys.readouterr().out
    assert len(table(Path("it/trials.csv"))) == 15


def test_another_search_is_refused_with_the_difference(formula, here, capsys):
    words = [*SPACE, "seed=1", f"trainer.epochs={EPOCHS}", "study=it"]
    assert main([*words, "trials=2"]) == 0
    for other, said in (
        (
            ["optimizer.lr=log(1e-3,0.1)"],
            "optimizer.lr: log(1e-3,3e-2) in the study, now log(1e-3,0",
        ),
        (["seed=2"], "seed: 1 in the study, now 2"),
        (["objectives=miou,zeros"], "objectives: miou in the study, now miou,zeros"),
        (["model=segnet"], "model: not given in the study, now segnet"),
    ):
        capsys.readouterr()
        assert main([*words, *other]) == 2
        assert said in capsys.readouterr().err
    assert main([*words[1:], "trials=3"]) == 2
    assert (
        "regularizer.alpha: log(1e-7,1e-3) in the study, now not given" in capsys.readouterr().err
    )
    assert len(study().trials) == 2
    assert main([*words[::-1], "trials=3", "device=cpu"]) == 0
    assert len(study().trials) == 3


def test_a_search_goes_on_with_moved_data_but_not_with_other_data(
    formula, here, monkeypatch, capsys
):
    words = [*SPACE, "dataset=folder", "dataset.root=one", "study=it"]
    assert main([*words, "trials=2"]) == 0
    assert main(["study=it", "trials=3", "dataset.root=two"]) == 0
    assert "dataset.root=two" in capsys.readouterr().out.split("#")[-1]
    assert len(table(Path("it/trials.csv"))) == 3
    for other in (replace(DATA, fingerprint="x"), replace(DATA, classes=["a", "c"])):
        monkeypatch.setattr(jobs, "read_data", lambda config, other=other: other)
        assert main(["study=it", "trials=4"]) == 2
        assert "dataset.root=<folder>" in (err := capsys.readouterr().err) or "a, b" in err
    assert len(table(Path("it/trials.csv"))) == 3


def test_what_is_no_study_is_refused(formula, here, capsys):
    Path("it").mkdir()
    lines = ("no database" * 100, "", "5\n", "[]\n", '{"op_code": 0}\n{"', '{"op_code": 99}\n')
    for name, texts in (("study.db", lines[:1]), ("study.journal", lines)):
        for text in texts:
            Path("it", name).write_text(text)
            assert main(["study=it"]) == main(["study=it", *SPACE]) == 2, text
            assert name in capsys.readouterr().err
            assert text.startswith(Path("it", name).read_text())
        Path("it", name).rename("it/other")
    assert main(["study=it", *SPACE]) == 2
    assert [path.name for path in Path("it").iterdir()] == ["other"]


def test_trials_below_the_median_are_pruned(formula, here):
    """By the rule of the median: from the sixth on, after a quarter of the epochs."""
    assert main([*SPACE, f"trainer.epochs={EPOCHS}", "trials=16", "study=it"]) == 0
    complete, pruned = [], 0
    for row in table(Path("it/trials.csv")):
        mine, end = curve(compose_plain([f"{key}={row[key]}" for key in DRAWN])), EPOCHS
        for epoch in range(EPOCHS // 4 + 1, EPOCHS):
            others = [other[epoch - 1] for other in complete]
            if len(complete) >= 5 and max(mine[:epoch]) < statistics.median(others):
                end = epoch
                break
        assert int(row["epochs"]) == end
        assert row["state"] == ("COMPLETE" if end == EPOCHS else "PRUNED")
        if end == EPOCHS:
            complete.append(mine)
        else:
            pruned += 1
            assert row["error"] == f"Pruned: at epoch {end} of {EPOCHS}"
    assert 0 < pruned < 11
    assert main([*SPACE, f"trainer.epochs={EPOCHS}", "trials=8", "study=all", "pruner=none"]) == 0
    assert {row["state"] for row in table(Path("all/trials.csv"))} == {"COMPLETE"}


def test_two_objectives_give_the_front(formula, here, capsys):
    words = [*SPACE, f"trainer.epochs={EPOCHS}", "trials=12", "study=it", "objectives=miou,zeros"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "pruning is off" in out
    rows = table(Path("it/trials.csv"))
    assert {row["state"] for row in rows} == {"COMPLETE"}
    points = [(float(row["val/miou"]), float(row["sparsity/exact"])) for row in rows]
    front = [
        number
        for number, (miou, zeros) in enumerate(points)
        if not any(m >= miou and z >= zeros and (m, z) != (miou, zeros) for m, z in points)
    ]
    assert 1 < len(front) < 12
    shown = [int(line[1:].split(":")[0]) for line in out.splitlines() if ": seg-l1 train" in line]
    assert shown == sorted(front, key=lambda number: -points[number][0])


def test_a_trial_that_fails_is_kept_and_the_search_goes_on(formula, here, capsys):
    assert main([*SPACE, "seed=7", f"trainer.epochs={EPOCHS}", "trials=10", "study=it"]) == 0
    rows = table(Path("it/trials.csv"))
    for row in rows:
        failed = float(row["optimizer.lr"]) > 0.02
        assert (row["state"] == "FAIL") == failed
        assert (row["error"] == "Diverged: the loss is not finite") == failed
        if failed:
            assert "Traceback" in (Path("it") / row["folder"] / "train.log").read_text()
    assert 0 < sum(row["state"] == "FAIL" for row in rows) < 10
    assert len(rows) == 10


def test_a_search_without_a_result_says_so(formula, here, monkeypatch, capsys):
    monkeypatch.setattr(run_room, "run", lambda *args, **more: 1 / 0)
    assert main([*SPACE, "trials=2", "study=it"]) == 1
    assert "no trial is complete" in capsys.readouterr().out
    assert [r["error"] for r in table(Path("it/trials.csv"))] == 2 * [
        "ZeroDivisionError: division by zero"
    ]


def test_the_ends_of_the_space_give_the_first_configuration():
    space, config = read_words({**DEFAULTS, "optimizer": "choice(sgd,adam)", "seed": "int(3,5)"})
    assert list(space) == ["optimizer", "seed"]
    assert config == compose_plain(["optimizer=sgd", "seed=3"])


def test_a_study_in_a_database_of_an_earlier_version_goes_on(formula, here, monkeypatch):
    words = [*SPACE, "pruner=none"]
    with monkeypatch.context() as patch:
        patch.setattr(study_room, "study_file", lambda folder: folder / "study.db")
        assert main([*words, "trials=12", "study=it"]) == 0
    assert main(["study=it", "trials=15"]) == 0
    assert main([*words, "trials=15", "study=whole"]) == 0
    assert drawn() == drawn("whole")
    assert not Path("it/study.journal").exists()


def test_a_line_that_was_begun_on_a_full_disk_does_no_harm(formula, here):
    words = [*SPACE, "pruner=none"]
    assert main([*words, "trials=12", "study=it"]) == 0
    with open("it/study.journal", "a") as file:
        file.write('{"op_code":4,"worker_id":"')
    assert main(["study=it", "trials=15"]) == 0
    assert main([*words, "trials=15", "study=whole"]) == 0
    assert drawn() == drawn("whole")


def test_processes_share_the_trials_out(formula, here, monkeypatch):
    """Four at once, one of which is killed in its second trial; another begins it again."""

    def slowly(*arguments, **more):
        time.sleep(0.1)
        return trained(*arguments, **more)

    def kill_in_second():
        def strike(*arguments, **more):
            os.kill(os.getpid(), signal.SIGKILL) if calls else calls.append(1)
            return slowly(*arguments, **more)

        calls = []
        run_room.run = strike

    monkeypatch.setattr(run_room, "run", slowly)
    words = [*SPACE, "pruner=none", "trials=14", "study=it"]
    processes = [
        Forked(words, command="search", prepare=prepare)
        for prepare in (kill_in_second, *[lambda: None] * 3)
    ]
    ended = [process.wait() for process in processes]
    assert [process.code for process in ended] == [-signal.SIGKILL, 0, 0, 0], ended
    trials = study().trials
    states = [trial.state.name for trial in trials]
    assert (states.count("COMPLETE"), states.count("FAIL"), len(states)) == (14, 1, 15)
    rows = table(Path("it/trials.csv"))
    assert [row["state"] for row in rows] == states
    done = [trial for trial in trials if trial.state.name == "COMPLETE"]
    assert sorted(trial.user_attrs["place"] for trial in done) == [*range(14)]
    assert main([*words[:-1], "study=alone"]) == 0
    alone = drawn("alone")
    for trial in done:  # optuna draws the first ten at random, whatever the others gave
        if trial.number < 10 and trial.user_attrs["place"] < 10:
            assert [str(trial.params[key]) for key in DRAWN] == alone[trial.user_attrs["place"]]


@pytest.mark.slow
def test_a_pruned_run_can_be_scored_and_go_on(here, command, monkeypatch, capsys):
    """Trained: the pruner is told after each epoch; a pruned run is a run that was interrupted."""
    asked = []

    def prune(self, study, trial):
        asked.append((trial.number, dict(trial.intermediate_values)))
        return trial.number == 1

    monkeypatch.setattr(optuna.pruners.MedianPruner, "prune", prune)
    monkeypatch.setattr(jobs, "_data", None)
    words = [*SMALL, "trainer.epochs=3", "optimizer.lr=log(1e-3,3e-2)", "trials=2", "study=it"]
    assert main(words) == 0
    one, other = table(Path("it/trials.csv"))
    assert (one["state"], other["state"]) == ("COMPLETE", "PRUNED")
    assert (one["epochs"], other["epochs"]) == ("3", "1")
    whole, cut = (table(Path("it") / row["folder"] / "metrics.csv") for row in (one, other))
    told = {int(row["epoch"]): float(row["val/miou"]) for row in whole}
    assert asked == [
        (0, {1: told[1]}),
        (0, {1: told[1], 2: told[2]}),
        (1, {1: float(cut[0]["val/miou"])}),
    ]
    path = Path("it") / other["folder"]
    summary = json.loads((path / "summary.json").read_text())
    assert (summary["status"], summary["error"]) == ("interrupted", "Pruned: at epoch 1 of 3")
    assert summary["last"]["epoch"] == 1
    score = evaluate_run(path, "val")["val/miou"]
    assert score == pytest.approx(float(other["val/miou"]), rel=1e-6)
    code, _, err = command(f"resume={path}")
    assert (code, err) == (0, "")
    assert [row["epoch"] for row in table(path / "metrics.csv")] == ["1", "2", "3"]


@pytest.mark.slow
def test_the_data_are_read_once_and_the_command_repeats_the_run(here, command, monkeypatch, capsys):
    from seg_l1.training import data

    calls, original = [], data.load_data
    monkeypatch.setattr(data, "load_data", lambda config: calls.append(1) or original(config))
    monkeypatch.setattr(jobs, "_data", None)
    fixed = [*SMALL, "regularizer=l1", "trainer.epochs=1", "trials=2", "study=it"]
    assert main([*fixed, "optimizer.lr=log(1e-3,3e-2)", "optimizer=choice(sgd,adam)"]) == 0
    assert len(calls) == 1
    (line,) = [x for x in capsys.readouterr().out.splitlines() if ": seg-l1 train" in x]
    number, words = line.split(": seg-l1 train ")
    assert command(*shlex.split(words), "hydra.run.dir=again")[0] == 0
    (folder,) = Path("it").glob(f"{number[1:]}_*")
    mine, theirs = (table(path / "metrics.csv")[0] for path in (folder, Path("again")))
    for key, value in mine.items():
        assert key.startswith("time/") or value == theirs[key], key


def test_an_error_of_the_hook_ends_the_run(here):
    from rich.console import Console

    def hook(row):
        seen.append(row["epoch"])
        assert json.loads(Path("it/summary.json").read_text())["last"]["epoch"] == row["epoch"]
        if row["epoch"] == 2:
            raise RuntimeError("enough")

    seen = []
    config = compose_plain([*SMALL, "trainer.epochs=3"])
    with pytest.raises(RuntimeError, match="enough"):
        run_room.run(
            config, Path("it"), overrides=[], resume=False, console=Console(), on_epoch=hook
        )
    summary = json.loads(Path("it/summary.json").read_text())
    assert (summary["status"], summary["error"]) == ("failed", "RuntimeError: enough")
    assert seen == [1, 2]
    assert len(table(Path("it/metrics.csv"))) == 2


STOPPED = [
    *SMALL, "trainer.epochs=3", "seed=3", "trials=3",
    "optimizer=sgd", "optimizer.weight_decay=10",
    "optimizer.lr=choice(0.01,0.02,9999)", "regularizer.alpha=log(1e-6,1e-3)",
]  # fmt: skip
"""A search with a diverging trial on the way."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The rows of the search that nobody stops."""
    folder = tmp_path_factory.mktemp("whole")
    assert run([*STOPPED, "study=it"], folder=folder, command="search").code == 0
    return table(folder / "it" / "trials.csv")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_search_that_was_stopped_ends_like_one_that_was_not(number, whole, tmp_path):
    """Stopped in the middle of a trial that would have been completed."""
    states = [row["state"] for row in whole]
    assert "FAIL" in states
    chosen = states.index("COMPLETE", 1)
    strike = signal_at(number, f"it/{chosen}_*/metrics.csv", 2)
    ended = Forked([*STOPPED, "study=it"], folder=tmp_path, command="search", prepare=strike).wait()
    if number == signal.SIGKILL:
        assert ended.code == -signal.SIGKILL
    else:
        assert (ended.code, ended.err) == (130, "go on with: seg-l1 search study=it\n")
    ended = run(["study=it"], folder=tmp_path, command="search")
    assert (ended.code, ended.err) == (0, "")
    rows = table(tmp_path / "it" / "trials.csv")
    stopped = [row for row in rows if row["error"].startswith("stopped")]
    assert [(row["number"], row["state"]) for row in stopped] == [(str(chosen), "FAIL")]
    left_out = ("number", "folder")
    assert [{k: v for k, v in row.items() if k not in left_out} for row in whole] == [
        {k: v for k, v in row.items() if k not in left_out} for row in rows if row not in stopped
    ]
