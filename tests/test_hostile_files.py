"""Damaged files of runs and sweeps: named with their remedy, and no code in them is run."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil

import pytest
import torch
import yaml
from PIL import Image

from seg_l1.config.folders import CONF
from seg_l1.runs.trust import TARGETS, TRUST
from tests.support.refusals import assert_refused, called

pytestmark = pytest.mark.slow


class Evil:
    def __reduce__(self):
        return os.mkdir, ("owned",)


def both(change):
    """A change of both checkpoints of a run."""
    return lambda run: [change(path) for path in sorted((run / "checkpoints").iterdir())]


def cut(path):
    path.write_bytes(path.read_bytes()[:3000])


def linked_to_itself(path):
    path.unlink()
    path.symlink_to(path.name)


def rewritten(name, change):
    """A change of the content of one checkpoint."""

    def apply(run):
        path = run / "checkpoints" / name
        state = torch.load(path, weights_only=True)
        change(state)
        torch.save(state, path)

    return apply


def placed(run, source, target):
    shutil.copy(run.parent / source, run / "checkpoints" / target)


def calls(name):
    return lambda state: state["config"]["model"].update(_target_=name)


WHOLE_FILES = {
    "truncated": (both(cut), "is not a checkpoint"),
    "zero bytes": (both(lambda path: path.write_bytes(b"")), "is not a checkpoint"),
    "a text": (both(lambda path: path.write_text("hello")), "is not a checkpoint"),
    "random bytes": (both(lambda path: path.write_bytes(bytes(range(256)))), "is not a checkpoint"),
    "code in a zip": (
        both(lambda path: torch.save({"model": Evil()}, path)), "is not a checkpoint"),
    "code in a pickle": (
        both(lambda path: path.write_bytes(pickle.dumps(Evil()))), "is not a checkpoint"),
    "a list": (both(lambda path: torch.save([1, 2], path)), "is not a checkpoint"),
    "a tensor": (both(lambda path: torch.save(torch.zeros(3), path)), "is not a checkpoint"),
    "no keys": (both(lambda path: torch.save({}, path)), "does not fit"),
    "weights alone": (
        both(lambda path: torch.save(torch.nn.Linear(2, 2).state_dict(), path)), "does not fit"),
    "missing": (both(lambda path: path.unlink()), "is missing"),
    "a link to itself": (both(linked_to_itself), "is missing"),
    "safetensors": (
        both(lambda path: shutil.copy(path.parents[1] / "model.safetensors", path)),
        "is not a checkpoint"),
}  # fmt: skip

BEST = {
    **{f"without {key}": (rewritten("best.pt", lambda s, key=key: s.pop(key)), "it lacks")
       for key in ("config", "classes", "mean", "std", "model")},
    "a config of nothing": (rewritten("best.pt", lambda s: s.update(config={})), "it lacks"),
    "a config of 5": (rewritten("best.pt", lambda s: s.update(config=5)), "does not fit"),
    "classes of 5": (rewritten("best.pt", lambda s: s.update(classes=5)), "does not fit"),
    "one channel": (rewritten("best.pt", lambda s: s.update(mean=[0.5])), "does not fit"),
    "no weights": (rewritten("best.pt", lambda s: s.update(model={})), "Missing key"),
    "weights of 5": (rewritten("best.pt", lambda s: s.update(model=5)), "does not fit"),
    "weights of another model": (
        rewritten("best.pt", lambda s: s["config"]["model"].update(depth=2)), "does not fit"),
    "no trainer": (rewritten("best.pt", lambda s: s["config"].update(trainer={})), "it lacks"),
    "last.pt": (lambda run: placed(run, "run/checkpoints/last.pt", "best.pt"), "it lacks"),
    "os.mkdir": (rewritten("best.pt", calls("os.mkdir")), "'os.mkdir'"),
    "a module's import": (rewritten("best.pt", calls("seg_l1.training.run.os.mkdir")),
                          "SEG_L1_TRUST=1"),
    "a function that removes": (rewritten("best.pt", calls("seg_l1.experiments.jobs._clear")),
                            "SEG_L1_TRUST=1"),
    "a call inside": (
        rewritten("best.pt", lambda s: s["config"]["model"].update(
            norm={"_target_": "os.mkdir", "_args_": ["owned"]})), "model.norm._target_"),
}  # fmt: skip

LAST = {
    **{f"without {key}": (rewritten("last.pt", lambda s, key=key: s.pop(key)), "does not fit")
       for key in ("loop", "random", "elapsed", "fingerprint")},
    **{f"loop without {key}": (rewritten("last.pt", lambda s, key=key: s["loop"].pop(key)), key)
       for key in ("model", "optimizer", "solver", "epoch", "step")},
    **{f"loop, a text as {key}": (
        rewritten("last.pt", lambda s, key=key: s["loop"].update({key: "x"})), "does not fit")
       for key in ("model", "optimizer", "epoch", "step", "best_miou")},
    **{f"random, a text as {key}": (
        rewritten("last.pt", lambda s, key=key: s["random"].update({key: "x"})), "does not fit")
       for key in ("python", "numpy", "torch")},
    "a loop of 5": (rewritten("last.pt", lambda s: s.update(loop=5)), "does not fit"),
    "a time that is none": (rewritten("last.pt", lambda s: s.update(elapsed="x")), "does not fit"),
    "another model": (
        lambda run: placed(run, "other/checkpoints/last.pt", "last.pt"), "does not fit"),
    "best.pt": (lambda run: placed(run, "run/checkpoints/best.pt", "last.pt"), "it lacks"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", [*WHOLE_FILES, *LAST])
def test_a_checkpoint_that_is_none_cannot_go_on(case, command, copied):
    damage, words = (WHOLE_FILES | LAST)[case]
    damage(copied / "run")
    result = command("resume=run", "trainer.epochs=2")
    assert_refused(result, ["last.pt", words, "outputs/runs" if "missing" in words else ""], copied)
    assert not (copied / "run" / "owned").exists()


@pytest.mark.parametrize("script", ["evaluate", "predict"])
@pytest.mark.parametrize("case", [*WHOLE_FILES, *BEST])
def test_weights_that_are_none_are_not_used(case, script, copied, capsys):
    damage, words = (WHOLE_FILES | BEST)[case]
    damage(copied / "run")
    Image.new("RGB", (9, 9)).save(copied / "a.png")
    typed = ["run=run"] if script == "evaluate" else ["run=run", "input=a.png", "output=o"]
    assert_refused(called(script, typed, capsys), ["best.pt", words], copied)
    assert not (copied / "o").exists()


def test_a_class_of_ones_own_is_built_for_those_who_trust_it(copied, capsys, monkeypatch):
    def renamed(state):
        state["config"]["model"]["_target_"] = "tests.test_hostile_files.OwnUNet"

    rewritten("best.pt", renamed)(copied / "run")
    assert called("evaluate", ["run=run"], capsys)[0] == 2
    monkeypatch.setenv(TRUST, "1")
    assert called("evaluate", ["run=run"], capsys)[0] == 0


def OwnUNet(**arguments):
    from seg_l1.models.unet import UNet

    return UNet(**arguments)


@pytest.mark.parametrize("group", TARGETS)
def test_what_conf_names_may_be_called_from_a_file(group):
    found = [
        name
        for path in (CONF / group.split(".")[0]).glob("*.yaml")
        for name in re.findall(r"_target_: (\S+)", path.read_text("utf-8"))
    ]
    assert found
    assert all(re.fullmatch(TARGETS[group], name.replace("null", "None")) for name in found)


def edited(change):
    """A change of config.yaml."""

    def apply(run):
        config = yaml.safe_load((run / "config.yaml").read_text())
        change(config)
        (run / "config.yaml").write_text(yaml.safe_dump(config))

    return apply


def filled(name, content):
    return lambda run: (run / name).write_bytes(content)


RUN_FILES = {
    "config: empty": (filled("config.yaml", b""), ["config.yaml", "missing", "keys"]),
    "config: a list": (filled("config.yaml", b"- 1"), ["config.yaml", "is not a configuration"]),
    "config: a number": (filled("config.yaml", b"5"), ["config.yaml", "is not a configuration"]),
    "config: broken": (filled("config.yaml", b"a: ["), ["config.yaml", "is not a configuration"]),
    "config: bytes": (filled("config.yaml", b"\xff\xfe"), ["config.yaml", "utf-8"]),
    "config: recursive": (filled("config.yaml", b"a: &a [*a]"), ["config.yaml", "recursion"]),
    "config: code": (
        filled("config.yaml", b"seed: !!python/object/apply:os.mkdir ['owned']"),
        ["config.yaml", "os.mkdir"]),
    "config: no trainer": (edited(lambda c: c.pop("trainer")), ["config.yaml: trainer"]),
    "config: no epochs": (
        edited(lambda c: c["trainer"].pop("epochs")), ["config.yaml: trainer.epochs", "missing"]),
    "config: no seed": (edited(lambda c: c.pop("seed")), ["config.yaml: seed", "missing"]),
    "config: a negative alpha": (
        edited(lambda c: c["regularizer"].update(alpha=-1)), ["config.yaml: regularizer.alpha"]),
    "config: another width": (
        edited(lambda c: c["model"].update(width=5)), ["last.pt", "does not fit"]),
    "config: other data": (
        edited(lambda c: c["dataset"].update(num_train=17)), ["last.pt", "other data"]),
    "config: another optimizer": (
        edited(lambda c: c["optimizer"].update(_target_="torch.optim.SGD")), ["optimizer"]),
    "config: a call": (
        edited(lambda c: c["loss"].update(_target_="os.mkdir")), ["config.yaml", "'os.mkdir'"]),
    "overrides: empty": (filled("overrides.yaml", b""), ["overrides.yaml", "'[]'"]),
    "overrides: keys": (filled("overrides.yaml", b"x: 1"), ["overrides.yaml", "'[]'"]),
    "overrides: a number": (filled("overrides.yaml", b"5"), ["overrides.yaml", "copy"]),
    "overrides: broken": (filled("overrides.yaml", b"a: ["), ["overrides.yaml", "copy"]),
    "metrics: empty": (filled("metrics.csv", b""), ["metrics.csv", "0 of 1 epochs"]),
    "metrics: a header": (filled("metrics.csv", b"epoch\n"), ["metrics.csv", "0 of 1 epochs"]),
    "metrics: a text": (filled("metrics.csv", b"epoch,a\n1,x\n"), ["metrics.csv", "'x'"]),
    "metrics: bytes": (filled("metrics.csv", b"\xff\x00"), ["metrics.csv", "copy"]),
    "metrics: no epoch": (filled("metrics.csv", b"a,b\n1,2\n"), ["metrics.csv", "it lacks"]),
}  # fmt: skip


@pytest.mark.parametrize("case", RUN_FILES)
def test_a_run_with_a_damaged_file_cannot_go_on(case, command, copied):
    damage, words = RUN_FILES[case]
    damage(copied / "run")
    words = [word for word in words if case != "config: empty" or word == "config.yaml"]
    assert_refused(command("resume=run", "trainer.epochs=2"), words, copied)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff"])
def test_a_finished_run_with_a_damaged_summary_says_so(content, command, copied):
    (copied / "run" / "summary.json").write_bytes(content)
    assert_refused(command("resume=run"), ["summary.json", "does not fit"], copied)


def first_job(**change):
    return lambda plan: plan["jobs"][0].update(change)


PLANS = {
    "empty": b"",
    "no keys": b"{}",
    "a list": b"[]",
    "bytes": b"\xff",
    "jobs are a number": b'{"typed": [], "jobs": 5}',
    "no jobs": b'{"typed": [], "jobs": []}',
    "half a job": b'{"typed": ["seed=0,1"], "jobs": [{"index": 0}]}',
    "words are a number": lambda plan: plan.update(typed=5),
    "a word is a number": lambda plan: plan.update(typed=[5]),
    "a flag": lambda plan: plan.update(typed=["--config-dir=.", "seed=0,1"]),
    "a word of hydra": lambda plan: plan.update(
        typed=["+hydra.callbacks.x._target_=os.mkdir", "seed=0,1"]
    ),
    "a folder above": first_job(folder="../precious"),
    "a folder of its own": first_job(folder="/precious"),
    "the folder of the sweep": first_job(folder="."),
    "the folder above": first_job(folder=".."),
    "a folder is a number": first_job(folder=5),
    "another index": first_job(index=7),
    "the same as a later one": first_job(same_as=1),
    "the same as none": first_job(same_as=-3),
    "swept is a number": first_job(swept=5),
    "a call": lambda plan: plan.update(typed=["loss._target_=os.mkdir", "seed=0,1"]),
}


@pytest.mark.parametrize("case", PLANS)
def test_a_sweep_with_a_damaged_plan_cannot_go_on(case, command, copied):
    precious = copied / "precious"
    precious.mkdir()
    (precious / "file").touch()
    file = copied / "sweep" / "sweep.json"
    plan = json.loads(file.read_text())
    if callable(PLANS[case]):
        PLANS[case](plan)
    file.write_bytes(json.dumps(plan).encode() if callable(PLANS[case]) else PLANS[case])
    words = ["sweep.json", "os.mkdir"] if case == "a call" else ["sweep.json", "outputs/sweeps"]
    assert_refused(command("-m", "resume_sweep=sweep"), words, copied)
    assert (precious / "file").exists()


def test_a_study_that_would_call_something_cannot_go_on(copied, capsys):
    from optuna import create_study

    (copied / "study").mkdir()
    words = {"regularizer.alpha": "log(1e-5,1e-3)", "loss._target_": "os.mkdir"}
    study = create_study(storage=f"sqlite:///{copied}/study/study.db", study_name="search")
    study.set_user_attr("words", {**words, "trials": "1", "objectives": "miou", "pruner": "none"})
    study._storage._backend.remove_session()
    study._storage._backend.engine.dispose()
    result = called("search", ["study=study"], capsys)
    assert_refused(result, ["study.db", "_target_", "SEG_L1_TRUST=1"], copied)


def test_a_sweep_with_a_damaged_job_names_its_file(command, copied):
    (job,) = copied.glob("sweep/0_*")
    (job / "config.yaml").write_text("a: [")
    words = ["config.yaml", "is not a configuration"]
    assert_refused(command("-m", "resume_sweep=sweep"), words, copied)


@pytest.mark.parametrize(
    "damage",
    [
        lambda sweep, job: (job / "summary.json").write_text("{"),
        lambda sweep, job: (job / "summary.json").write_text("[]"),
        lambda sweep, job: (job / "config.yaml").write_text("a: ["),
        lambda sweep, job: (job / "environment.json").write_text("{"),
        lambda sweep, job: (job / "overrides.yaml").write_text("5"),
        lambda sweep, job: (job / "metrics.csv").write_text("x"),
        lambda sweep, job: (sweep / "sweep.json").write_text("{"),
    ],
    ids=["summary", "list", "config", "environment", "overrides", "metrics", "plan"],
)
@pytest.mark.slow
def test_a_report_is_written_of_what_can_be_read(damage, copied, capsys):
    sweep = copied / "sweep"
    damage(sweep, next(sweep.glob("0_*")))
    code, _, err = called("report", ["sweep", "output=o"], capsys)
    assert (code, err) == (0, "")
    assert (copied / "o" / "report.html").is_file()


def test_a_report_reads_nothing_outside_of_the_sweep(copied, capsys):
    (copied / "sweep" / "sweep.json").write_text(
        json.dumps({"typed": [], "jobs": [{"folder": str(copied / "run")}]})
    )
    shutil.rmtree(next(copied.glob("sweep/0_*")))
    shutil.rmtree(next(copied.glob("sweep/1_*")))
    words = ["sweep", "no completed run"]
    assert_refused(called("report", ["sweep"], capsys), words, copied)
