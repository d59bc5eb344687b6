"""Runs that go on with other epochs, other data or by themselves, and what is said of them."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from seg_l1.cli.main import main
from seg_l1.config.resume import NEW_KEYS
from seg_l1.experiments import jobs
from seg_l1.report.reading import collect
from seg_l1.report.tables import command as report_command
from seg_l1.runs import checkpoints
from tests.support.runs import same_bits, table
from tests.support.standard_files import write_pairs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]

TINY = [
    "dataset=folder", "dataset.root=street", "dataset.image_size=[16,16]", "dataset.batch_size=4",
    "model.width=2", "model.depth=2", "trainer.kkt_every=null", "trainer.pictures=1",
    "trainer.threads=1", "regularizer=l1",
]  # fmt: skip
RAMP = "regularizer.schedule=linear"


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Runs of 2 epochs (`run`; with a ramp and a constant learning rate, `level`), one that early
    stopping ended, and a sweep."""
    folder = tmp_path_factory.mktemp("begun")
    write_pairs(folder / "street", 12)
    (folder / "street/classes.txt").write_text("road\ncar\n")
    short = [*TINY, "trainer.epochs=2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", *short, "hydra.run.dir=runs/run"]) == 0
        level = ["scheduler=constant", RAMP, "hydra.run.dir=runs/level"]
        assert main(["train", *short, *level]) == 0
        stopping = ["trainer.epochs=8", "trainer.early_stopping=1", "optimizer.lr=1e-9"]
        assert main(["train", *TINY, *stopping, "hydra.run.dir=stopped"]) == 0
        assert main(["train", "-m", *short, "seed=0,1", "hydra.sweep.dir=sweep"]) == 0
    return folder


@pytest.fixture
def here(begun, command, tmp_path, monkeypatch):
    """A copy of these in the folder of the test."""
    monkeypatch.setattr(jobs, "_data", None)
    unread = shutil.ignore_patterns("tensorboard", "preview.png", "confusion.png")
    shutil.copytree(begun, tmp_path, ignore=unread, dirs_exist_ok=True)
    return tmp_path


def state(folder: Path):
    return checkpoints.load(folder / "checkpoints/last.pt")["loop"]


def interrupt(run: Path):
    """Makes the job of a finished sweep look like one that was interrupted."""
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps({**summary, "status": "interrupted"}))


def test_a_run_that_was_prolonged_is_a_run_of_its_own_and_its_command_repeats_it(here, command):
    code, out, _ = command("resume=runs/run", "trainer.epochs=4")
    assert code == 0
    assert "the learning rate goes on at" in out
    assert command(*TINY, "trainer.epochs=4", "hydra.run.dir=runs/straight")[0] == 0
    assert not same_bits(state(here / "runs/run"), state(here / "runs/straight"))
    summary = json.loads((here / "runs/run/summary.json").read_text())
    assert summary["extended"] == [{"epochs": 2, "step": 4}]

    shutil.rmtree(here / "runs/level")
    found = collect([here / "runs"])
    assert found.repeats == []
    longer, straight = sorted(found.runs, key=lambda run: run.name)
    assert (longer.setting["extended"], straight.setting) == ("2 until step 4, then 4", {})
    assert report_command([straight]).endswith("trainer.epochs=4")
    for line in report_command([longer]).split(" && "):
        words = shlex.split(line.removeprefix("seg-l1 train "))
        assert command(*words)[0] == 0, line
    again = here / "outputs/runs/run_again"
    assert same_bits(state(again), state(here / "runs/run"))


def test_a_run_that_is_prolonged_at_a_constant_rate_is_the_run_of_its_words(here, command):
    """The ramp keeps its length: λ(t) does not jump."""
    code, out, _ = command("resume=runs/level", "trainer.epochs=4")
    assert (code, "goes on at" in out) == (0, False)
    rows = table(here / "runs/level/metrics.csv")
    assert [float(row["lam"]) for row in rows] == pytest.approx([1 / 2, 1, 1, 1])
    straight = [*TINY, "scheduler=constant", RAMP, "trainer.epochs=4"]
    assert command(*straight, "hydra.run.dir=runs/other")[0] == 0

    found = collect([here / "runs"])
    (run,) = (run for run in found.runs if run.name == "level")
    assert (found.repeats, run.plans) == ([], "")
    words = shlex.split(report_command([run]).removeprefix("seg-l1 train "))
    assert "trainer.epochs=4" in words
    assert command(*words, "hydra.run.dir=runs/same")[0] == 0
    assert same_bits(state(here / "runs/same"), state(here / "runs/level"))
    assert [name for _, name in collect([here / "runs"]).repeats] == ["level"]


def test_a_penalty_that_began_late_stays_as_it_is_when_a_run_is_prolonged(here, command):
    """It begins after a share of the epochs, which is no longer that share."""
    own = ["regularizer=cost_group_l1" if word == "regularizer=l1" else word for word in TINY]
    words = [*own, "scheduler=constant", "trainer.epochs=4", "hydra.run.dir=runs/late"]
    assert command(*words)[0] == 0
    assert command("resume=runs/late", "trainer.epochs=8")[0] == 0
    lam = [float(row["lam"]) for row in table(here / "runs/late/metrics.csv")]
    assert lam == [0, 1, 1, 1, 1, 1, 1, 1]
    (run,) = (run for run in collect([here / "runs"]).runs if run.name == "late")
    again = shlex.split(report_command([run]).removeprefix("seg-l1 train "))
    assert "regularizer.schedule_start=1" in again
    assert command(*again, "hydra.run.dir=runs/same")[0] == 0
    assert same_bits(state(here / "runs/same"), state(here / "runs/late"))


def test_a_run_of_a_version_with_fewer_keys_goes_on(here, command):
    words = ["resume=runs/run", "trainer.epochs=3"]
    shutil.copytree("runs/run", "whole")
    assert command("resume=whole", "trainer.epochs=3")[0] == 0
    config = OmegaConf.load("runs/run/config.yaml")
    for section, keys in NEW_KEYS.items():
        for key in keys:
            del config[section][key]
        if not config[section]:
            del config[section]
    OmegaConf.save(config, "runs/run/config.yaml")
    code, _, err = command(*words)
    assert code == 0, err
    assert same_bits(state(here / "whole"), state(here / "runs/run"))


def test_a_run_that_early_stopping_ended_says_what_prolongs_it(here, command):
    code, out, err = command("resume=stopped", "trainer.epochs=20")
    assert (code, err) == (0, "")
    assert "trainer.early_stopping=null" in out
    assert len(table(here / "stopped/metrics.csv")) == 2
    assert command("resume=stopped", "trainer.epochs=3", "trainer.early_stopping=null")[0] == 0
    assert len(table(here / "stopped/metrics.csv")) == 3


def test_renamed_classes_are_refused_before_anything_is_trained(here, command):
    listing, before = here / "street/classes.txt", (here / "runs/run/config.yaml").read_bytes()
    listing.write_text("road\nvehicle\n")
    code, _, err = command("resume=runs/run", "trainer.epochs=3")
    assert (code, err.count("\n")) == (2, 1)
    assert "road, car" in err
    assert "classes.txt" in err
    code, _, err = command("-m", "resume_sweep=sweep")
    assert (code, "road, car" in err) == (2, True)
    assert (here / "runs/run/config.yaml").read_bytes() == before
    listing.write_text("road\ncar\n")
    assert command("resume=runs/run", "trainer.epochs=2")[0] == 0


def test_a_job_goes_on_for_longer_and_the_sweep_after_it(here, command):
    interrupt(here / "sweep/1_seed-1")
    shutil.rmtree(here / "sweep/0_seed-0")
    assert command("resume=sweep/1_seed-1", "trainer.epochs=3")[0] == 0
    rows = table(here / "sweep/sweep.csv")
    assert [(row["status"], row["epochs"]) for row in rows] == [("pending", ""), ("completed", "3")]
    interrupt(here / "sweep/1_seed-1")
    assert command("-m", "resume_sweep=sweep")[0] == 0
    rows = table(here / "sweep/sweep.csv")
    assert [(r["status"], r["last_epoch"]) for r in rows] == [
        ("completed", "2"),
        ("completed", "3"),
    ]
    code, out, _ = command("-m", *TINY, "trainer.epochs=3", "seed=0,1", "resume_sweep=sweep")
    assert (code, "trainer.epochs: 2 in the sweep, now 3" in out) == (2, True)


def test_what_a_table_varies_does_not_change_in_one_run(here, command):
    content = json.loads((here / "sweep/sweep.json").read_text())
    for job in content["jobs"]:
        job["swept"] = {"trainer.epochs": "2"}
    (here / "sweep/sweep.json").write_text(json.dumps(content))
    code, _, err = command("resume=sweep/1_seed-1", "trainer.epochs=3")
    assert (code, err.count("\n"), "trainer.epochs" in err, "copy" in err) == (2, 1, True, True)
    shutil.copytree(here / "sweep/1_seed-1", here / "copy")
    assert command("resume=copy", "trainer.epochs=3")[0] == 0


def test_a_sweep_goes_on_with_moved_data_but_not_with_other_data(here, command):
    shutil.rmtree(here / "sweep/0_seed-0")
    (here / "street").rename(here / "moved")
    code, _, err = command("-m", "resume_sweep=sweep")
    assert (code, "dataset.root=<folder>" in err) == (2, True)
    write_pairs(here / "other", 14)
    shutil.copy(here / "moved/classes.txt", here / "other")
    code, _, err = command("-m", "resume_sweep=sweep", "dataset.root=other")
    assert (code, "other data" in err) == (2, True)
    assert command("-m", "resume_sweep=sweep", "dataset.root=moved")[0] == 0
    assert {row["status"] for row in table(here / "sweep/sweep.csv")} == {"completed"}
    assert command("-m", "resume_sweep=sweep")[0] == 0  # the plan knows the new place


def test_a_run_of_a_path_goes_on_by_the_command_of_the_path(here, command):
    run = here / "it/fold0/00_alpha-1"
    shutil.copytree(here / "runs/run", run)
    plan = {"config": {}, "fingerprint": "", "folds": [], "alphas": [1.0], "reference": {}}
    (here / "it/path.json").write_text(json.dumps({**plan, "words": ["seed=0", "path.folder=it"]}))
    code, _, err = command("resume=it/fold0/00_alpha-1", "trainer.epochs=3")
    assert (code, "seg-l1 path seed=0 path.folder=it" in err) == (2, True)
