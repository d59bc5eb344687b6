"""The command of paths: what it leaves, and that it goes on after a kill or a failure."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from seg_l1.cli.main import main
from seg_l1.config.compose import compose_plain
from seg_l1.experiments.lock import lock
from seg_l1.experiments.path import screen
from seg_l1.experiments.path.folds import draw_folds
from seg_l1.experiments.path.plan import Plan
from seg_l1.experiments.path.selection import select
from seg_l1.runs import checkpoints
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.summary import RunSummary
from seg_l1.training.build import build
from seg_l1.training.data import load_data
from tests.support.runs import TINY, table

pytestmark = pytest.mark.usefixtures("undrawn")
SMALL = [*TINY, "dataset.num_train=20", "path.num=3", "regularizer=l1", "path.folder=p"]
"""A path of three alphas on tiny digits scenes."""


@pytest.fixture
def path(tmp_path, monkeypatch, capsys):
    """Calls the command in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        code = main(["path", *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def without_times(folder):
    """What a path decided and measured: selection, table and weights."""
    drop = ("wall_time_s",)
    rows = [{k: v for k, v in row.items() if k not in drop} for row in table(folder / "path.csv")]
    weights = checkpoints.load(folder / "refit/checkpoints/best.pt")["model"]
    return json.loads((folder / "selection.json").read_text()), rows, weights


def same(one, other) -> bool:
    return one[:2] == other[:2] and all(torch.equal(v, other[2][k]) for k, v in one[2].items())


FOLDED = [*SMALL, "path.folds=2", "path.relax_epochs=1", "path.relax_blend=0.5"]


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    """A folder that holds the finished path `p` of `FOLDED`."""
    folder = tmp_path_factory.mktemp("folded")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["path", *FOLDED]) == 0
    return folder


@pytest.mark.slow
def test_folds_selection_refit_and_relaxation(folded, path):
    folder = folded / "p"
    chosen = json.loads((folder / "selection.json").read_text())
    scores = np.array(list(chosen["scores"].values()))
    rows = table(folder / "path.csv")
    assert [row["status"] for row in rows] == ["completed"] * 6
    assert scores.ravel().tolist() == [float(row["val/miou"]) for row in rows]
    by_hand = select(chosen["alphas"], scores, folds=2)
    assert chosen["mean"] == by_hand.mean.tolist()
    assert chosen["chosen_alpha"] == chosen["one_se_alpha"] == chosen["alphas"][by_hand.one_se]
    shares = chosen["reference"]
    assert shares["low"] == pytest.approx(chosen["alphas"][-1], rel=1e-5)
    assert shares["high"] == pytest.approx(chosen["alphas"][0], rel=1e-5)

    for number in range(2):
        cut = json.loads(
            (folder / f"fold{number}/00_alpha-{chosen['alphas'][0]:g}/splits.json").read_text()
        )
        assert len(cut["indices"]["train"]) == len(cut["indices"]["val"]) == 10
    tested = [
        p.parent.name for p in folder.rglob("summary.json") if json.loads(p.read_text())["test"]
    ]
    assert sorted(tested) == ["refit", "relaxed"]
    refit, relaxed = (RunDirectory(folder / name) for name in ("refit", "relaxed"))
    config = checkpoints.load(refit.best)["config"]
    assert config["regularizer"]["alpha"] == chosen["chosen_alpha"]
    ends = [checkpoints.load(run.best)["model"] for run in (refit, relaxed)]
    penalised = [row["tensor"] for row in table(refit.scope) if row["penalised"] == "True"]
    assert all(torch.equal(ends[0][name] != 0, ends[1][name] != 0) for name in penalised)
    assert not torch.equal(ends[0]["head.weight"], ends[1]["head.weight"])
    assert {"path.png", "stability.png", "stability.csv"} <= {p.name for p in folder.iterdir()}
    shares = load_file(folder / "stability.safetensors")
    assert shares.keys() == set(penalised)
    position = chosen["alphas"].index(chosen["chosen_alpha"])
    (one, other) = (next(folder.glob(f"fold{n}/0{position}_*/checkpoints/last.pt")) for n in (0, 1))
    alive = [checkpoints.load(file)["loop"]["model"]["head.weight"] != 0 for file in (one, other)]
    assert torch.equal(shares["head.weight"], (alive[0].float() + alive[1].float()) / 2)


@pytest.mark.slow
def test_a_budget_decides_what_can_be_chosen(path, tmp_path):
    tiny = [word for word in TINY if not word.startswith("trainer.compact")]
    words = [*tiny, "regularizer=group_l1", "path.alphas=[1e-2,3e-3,1e-5]", "path.folder=p"]
    words += ["path.epochs=1", "optimizer.lr=0.02"]
    code, out, err = path(*words, "path.budget=0.5", "path.relax_epochs=1")
    assert code == 0, err
    chosen = json.loads((tmp_path / "p/selection.json").read_text())
    rows = table(tmp_path / "p/path.csv")
    shares = [float(r["compact/multiply_adds"]) / float(r["multiply_adds"]) for r in rows]
    assert chosen["multiply_adds"] == pytest.approx(shares, rel=1e-12)
    scores = [float(row["val/miou"]) for row in rows]
    small = [k for k, share in enumerate(shares) if share <= 0.5]
    assert 0 < len(small) < 3  # so that the budget decides something
    best = max(small, key=lambda k: (scores[k], chosen["alphas"][k]))
    assert chosen["chosen_alpha"] == chosen["alphas"][best] and chosen["budget"] == 0.5
    times = json.loads((tmp_path / "p/latency.json").read_text())
    assert times.keys() == {"dense", *(f"{alpha:g}" for alpha in chosen["alphas"])}
    assert all(time > 0 for time in times.values())
    adds = json.loads((tmp_path / "p/relaxed/compact/compact.json").read_text())["multiply_adds"]
    assert adds["compact"] <= 0.5 * adds["dense"]
    assert f"{adds['compact'] / adds['dense']:.3f} of the multiply-adds" in out
    path(*words, "path.budget=0.5", "path.relax_epochs=1")
    assert json.loads((tmp_path / "p/latency.json").read_text()) == times  # measured once
    code, _, err = path(*words, "path.budget=0.5", "trainer.compact=false")
    assert code == 2 and "needs trainer.compact=true" in err
    code, _, err = path(*words[:-3], "path.budget=1e-4", "path.epochs=1", "path.folder=q")
    assert code == 2 and "the smallest network of this path has" in err


@pytest.mark.slow
def test_upwards_a_path_of_dead_networks_ends_with_those_that_live(path, tmp_path):
    words = [*SMALL, "path.direction=up", "path.alphas=[1e-4,1e4,1e5]"]
    code, out, err = path(*words)
    assert (code, err) == (0, "")
    chosen = json.loads((tmp_path / "p/selection.json").read_text())
    assert chosen["chosen_alpha"] == 1e-4
    assert chosen["mean"][0] is None  # 1e5, which no path reached
    assert "refit: mIoU val" in out


@pytest.mark.slow
def test_a_refit_that_fails_says_why_and_where(path, tmp_path, monkeypatch):
    from seg_l1.training import run

    right = run.run

    def fail(config, directory, **named):
        if directory.name == "refit":
            raise RuntimeError("the moon is full")
        return right(config, directory, **named)

    monkeypatch.setattr(run, "run", fail)
    code, _, err = path(*SMALL, "path.alphas=[1e-4]")
    assert code == 1 and "the moon is full (see p/refit/train.log)" in err


@pytest.mark.slow
def test_cold_runs_are_refitted_cold(path, tmp_path):
    words = [*SMALL, "path.alphas=[1e-3,1e-4]", "path.warm_start=false", "path.folds=2"]
    assert path(*words, "path.direction=up")[0] == 0
    assert not list((tmp_path / "p/all").rglob("*.pt"))


def test_repeats_draw_other_folds_of_the_digits():
    words = [*SMALL, "path.folds=2", "path.repeats=3", "dataset.num_train=60"]
    config = compose_plain(words)
    data = load_data(config)
    folds = draw_folds(data, 2, 3, seed=0)
    assert len({frozenset(folds[index]) for index in (0, 2, 4)} | {frozenset(folds[1])}) > 2
    for one, other in (folds[0:2], folds[2:4], folds[4:6]):
        assert sorted(one + other) == list(range(60))
    assert compose_plain([*SMALL, "path.repeats=3"])["dataset"]["parts"] == 1


def test_limited_data_are_folded_too():
    config = compose_plain([*SMALL, "path.folds=2", "limit.train=8"])
    folds = draw_folds(load_data(config), 2, 1, seed=0)
    assert sorted(folds[0] + folds[1]) == list(range(8))


@pytest.mark.parametrize(("best", "said"), [(0, "largest"), (1, ""), (2, "smallest")])
def test_a_choice_at_the_end_of_the_grid_is_remarked(best, said, monkeypatch, tmp_path):
    config = {**compose_plain(SMALL), "seed": 0}
    alphas = [1e-3, 1e-4, 1e-5]
    plan = Plan.create(tmp_path, words=[], config=config, fingerprint="", folds=[], alphas=alphas)
    scores = np.full((1, 3), 0.5)
    scores[0, best] = 0.6
    monkeypatch.setattr(Plan, "scores", lambda self, name: scores)
    text = screen.choice(plan, select(alphas, scores, folds=1), chosen=alphas[best], times={})
    assert ("note: the" in text) == bool(said) and said in text


@pytest.mark.parametrize("compact", [True, False])
def test_tables_of_a_path_say_what_compact_networks_cost(compact, tmp_path):
    """By made-up summaries; the widest table, whose best and chosen alphas are the same."""
    words = [*SMALL, "path.folds=2"]
    alphas = [1.23456e-5, 1.23456e-4, 1.23456e-3]
    content = {"config": {**compose_plain(words), "seed": 0}, "fingerprint": "", "words": words}
    plan = Plan.create(tmp_path, **content, folds=[[0], [1]], alphas=alphas)
    plan.amend(reference={"last_survivor": 3.0})
    for job in plan.jobs:
        for position in range(3):
            adds = 1000 * (position + 1) + 400 * job.index
            cost = {"compact/parameters": 7 + position, "compact/multiply_adds": adds}
            last = {"epoch": 1, "val/miou": 0.5 + 0.1 * (position == 1), "gap/miou": -0.123}
            last |= {"sparsity/exact": 0.999, **(cost if compact else {})}
            summary = RunSummary("completed", last=last, parameters=100, multiply_adds=10_000)
            record = plan.point_run(job, position)
            record.path.mkdir(parents=True)
            record.write_summary(summary)
    plan.write_table()
    rows = table(tmp_path / "path.csv")
    adds = ["1000", "2000", "3000", "1400", "2400", "3400"] if compact else [""] * 6
    assert [row["compact/multiply_adds"] for row in rows] == adds
    sizes = ["7", "8", "9"] * 2 if compact else [""] * 6
    assert [row["compact/parameters"] for row in rows] == sizes
    assert {row["multiply_adds"] for row in rows} == {"10000"}
    alphas = sorted(alphas, reverse=True)
    text = screen.choice(
        plan,
        select(alphas, plan.scores("val/miou"), folds=2),
        chosen=alphas[1],
        times={"dense": 2.0, f"{alphas[1]:g}": 1.5},
    )
    assert ("multiply-" in text) == ("0.75x" in text) == compact
    assert len(text.splitlines()) == 6 or not compact  # title, two lines of header, no row broken
    for share in ("0.12x", "0.22x", "0.32x"):  # (1000 + 1400) / 2 of 10000, ...
        assert (share in text) == compact


@pytest.mark.slow
def test_a_warm_start_takes_over_weights_and_nothing_else(path, tmp_path):
    assert path(*SMALL, "path.alphas=[1e-3,1e-4]", "trainer.epochs=3")[0] == 0
    first, second = (tmp_path / f"p/path/{name}" for name in ("00_alpha-0.001", "01_alpha-0.0001"))
    config = checkpoints.load(second / "checkpoints/best.pt")["config"]
    assert config["start"] == "p/path/00_alpha-0.001/checkpoints/last.pt"
    assert config["trainer"]["epochs"] == 1
    loop = build(config, load_data(config)).loop
    last = checkpoints.load(first / "checkpoints/last.pt")["loop"]
    assert all(torch.equal(v, last["model"][k]) for k, v in loop.model.state_dict().items())
    assert not loop.optimizer.state
    refit = json.loads((tmp_path / "p/refit/summary.json").read_text())
    chosen = json.loads((tmp_path / "p/selection.json").read_text())["chosen_alpha"]
    point = json.loads(({1e-3: first, 1e-4: second}[chosen] / "summary.json").read_text())
    # without folds the refit is the same run again, and scored on the test split
    assert refit["best"]["val/miou"] == point["best"]["val/miou"]
    assert refit["test"] and not point["test"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment", ["none", "reference", "first point", "second fold", "refit", "relaxed"]
)
def test_the_same_command_goes_on_after_a_kill(folded, path, tmp_path, moment):
    """What a kill leaves is a run without its end, and nothing after it."""
    folder = tmp_path / "p"
    shutil.copytree(folded / "p", folder)
    before = without_times(folder)
    plan = Plan(folder)
    runs = {
        "reference": RunDirectory(folder / "reference"),
        "first point": plan.point_run(plan.jobs[0], 0),
        "second fold": plan.point_run(plan.jobs[1], 1),
        "refit": plan.refit,
        "relaxed": plan.relaxed,
    }
    if moment != "none":
        for name in list(runs)[list(runs).index(moment) + 1 :]:
            shutil.rmtree(runs[name].path)
        summary = runs[moment].read_summary()
        runs[moment].write_summary(replace(summary, status="running"))
    if moment == "reference":
        content = json.loads(plan.file.read_text())
        plan.file.write_text(json.dumps({**content, "alphas": None}))
    code, out, err = path(*FOLDED)
    assert (code, err) == (0, "") and "relaxed: mIoU" in out
    assert same(without_times(folder), before)


@pytest.mark.slow
def test_a_failed_run_is_named_and_tried_again(path, tmp_path, monkeypatch):
    from seg_l1.training.loop import Diverged, Loop

    right = Loop.rows

    def wrong(self, *hooks):
        if self.alpha == 1e-4:
            raise Diverged("planted")
        return right(self, *hooks)

    words = [*SMALL, "path.alphas=[1e-3,1e-4,1e-5]"]
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "rows", wrong)
        code, _, err = path(*words)
    assert code == 1 and "planted" in err and "01_alpha-0.0001" in err
    assert [row["status"] for row in Plan(tmp_path / "p").table(Plan(tmp_path / "p").jobs)] == [
        "completed", "failed", "pending",
    ]  # fmt: skip
    assert path(*words)[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["regularizer=none"], "no alpha to choose"),
        (["regularizer.alpha=1e-5"], "path.alphas=[...]"),
        (["-m"], "without -m"),
        (["resume=x"], "the same command again"),
        (["path.folds=0"], "got 0"),
        (["path.folds=21", "dataset.parts=20"], "there are only 20 groups"),
        (["path.alphas=[1e-5,1e-5]"], "twice"),
        (["path.alphas=[-1]"], "path.alphas"),
        (["path.low=0.9", "path.high=0.5"], "path.low"),
        (["path.metric=f1"], "path.metric"),
        (["path.flods=2"], "path.folds"),
        (["seed=0,1"], "one value"),
        (["regularizer=l2", "trainer.epochs=1"], "give path.alphas"),
        (["regularizer=bridge", "path.alphas=[1e-4]", "path.relax_epochs=1"], "has no prox"),
        (["hydra.job.chdir=true"], "hydra.job.chdir"),
        (["target=parameters"], "a target steers alpha"),
        (
            ["regularizer=group_l1", "path.low=0.5", "path.high=0.501", "trainer.epochs=1"],
            "take them further apart",
        ),
    ],
)
@pytest.mark.slow
def test_what_makes_no_sense_is_refused(path, tmp_path, words, said):
    code, out, err = path(*SMALL, *words)
    assert code == 2 and said in err and "Traceback" not in out + err


def test_another_path_does_not_go_on_in_the_folder(path, tmp_path):
    plan = Plan.create(
        tmp_path / "p",
        words=SMALL,
        config=compose_plain(SMALL),
        fingerprint="",
        folds=[],
        alphas=None,
    )
    code, out, err = path(*SMALL, "optimizer.lr=0.5")
    assert code == 2 and "optimizer.lr: 0.01 in the path, now 0.5" in out + err
    code, _, err = path(*SMALL)
    assert code == 2 and "the data is not what it was" in err
    before = plan.file.read_text()
    with lock(plan.path, "controller", wait=False):
        code, _, err = path(*SMALL, "trainer.threads=2")
        assert code == 2 and "another process works on" in err
    assert plan.file.read_text() == before


@pytest.mark.slow
def test_a_kill_while_the_plan_is_written_leaves_nothing_in_the_way(path, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/.path.json.7.tmp").touch()
    words = [word for word in SMALL if not word.startswith("path.num")]
    assert path(*words, "path.alphas=[1e-4]", "trainer.epochs=1")[0] == 0
    (tmp_path / "q").mkdir()
    (tmp_path / "q/thesis.tex").touch()
    code, _, err = path(*SMALL, "path.folder=q")
    assert code == 2 and "holds something else" in err


@pytest.mark.slow
def test_jobs_take_the_free_keys_of_the_present_command(path, tmp_path, monkeypatch):
    words = [*SMALL, "path.alphas=[1e-4]", "trainer.epochs=1"]
    with monkeypatch.context() as patch:
        patch.setattr("seg_l1.experiments.path.controller._launch", lambda plan, launcher: False)
        assert path(*words)[0] == 1
    assert path(*words, "trainer.log_every=3")[0] == 0
    config = checkpoints.load(tmp_path / "p/path/00_alpha-0.0001/checkpoints/last.pt")["config"]
    assert config["trainer"]["log_every"] == 3


def test_train_reads_no_path(command):
    code, _, err = command(*TINY, "path.num=3")
    assert code == 2 and "belongs to seg-l1 path" in err
