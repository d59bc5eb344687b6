"""Every command that is printed to go on with works as it is printed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from PIL import Image

from seg_l1.cli.main import main
from seg_l1.config.commands import assignment, command_line, with_environment
from seg_l1.config.words import parse_word
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.trust import TRUST
from tests.support.runs import TINY, runs, table

SMALL = [*TINY, "model.depth=1", "trainer.epochs=1", "trainer.kkt_every=null", "trainer.threads=1"]


@pytest.fixture
def own(command, tmp_path) -> Path:
    """A folder for --config-dir, with the experiments `mine` and `silent`."""
    folder = tmp_path / "my conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# @package _global_\nregularizer:\n  alpha: 1e-3\n")
    return folder.parent


def next_commands(text: str) -> list[str]:
    """The lines below "next:"."""
    return re.findall(r"^  (.+)$", text.partition("\nnext:\n")[2].partition("\n\n")[0], re.M)


def typed_again(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs a command line as a shell would; returns its exit code."""
    words = shlex.split(line)
    while re.match(r"[A-Z_0-9]+=", words[0]):
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    if words[0] == "tensorboard":
        return 0 if list(Path(words[2]).rglob("events.out.*")) else 2
    assert words[0] == "seg-l1"
    return main(words[1:])


@pytest.mark.slow
def test_what_follows_a_run_of_an_own_folder(own, tmp_path, monkeypatch, capsys):
    words = ["--config-dir", "my conf", *SMALL, "experiment=mine", "hydra.run.dir=a place/run"]
    assert main(["train", *words]) == 0
    commands = next_commands(capsys.readouterr().out)
    assert len(commands) == 5
    (tmp_path / "images").mkdir()
    Image.new("RGB", (48, 48)).save(tmp_path / "images/a.png")
    (tmp_path / "elsewhere").mkdir()
    for line in commands:
        assert typed_again(line, monkeypatch) == 0, line
    assert main(["report", "a place", "output=report"]) == 0
    (row,) = table(tmp_path / "report/runs.csv")
    monkeypatch.chdir("elsewhere")
    assert typed_again(row["command"], monkeypatch) == 0
    (run,) = runs(Path("outputs"))
    assert RunDirectory(run).read_config()["regularizer"]["alpha"] == 1e-3


def _stop_before_the_second_job(monkeypatch: pytest.MonkeyPatch) -> None:
    from seg_l1.experiments import jobs

    run_job = jobs.run_job

    def run_one(sweep, index, *arguments, **more):
        if index == 1:
            raise KeyboardInterrupt
        return run_job(sweep, index, *arguments, **more)

    monkeypatch.setattr(jobs, "run_job", run_one)


@pytest.mark.slow
def test_a_sweep_of_an_own_folder_goes_on(own, tmp_path, monkeypatch, capsys):
    words = ["-m", "--config-dir", "my conf", *SMALL, "experiment=mine", "seed=0,1"]
    with monkeypatch.context() as patch:
        _stop_before_the_second_job(patch)
        assert main(["train", *words, "hydra.sweep.dir=a sweep"]) == 130
    said = capsys.readouterr()
    (hint,) = re.findall("go on with: (.*)", said.err)
    assert hint in next_commands(said.out)
    shutil.copytree("a sweep", "copy")
    # without the flag: the folder is that of the plan
    assert main(["train", "-m", "resume_sweep=copy"]) == 0
    capsys.readouterr()
    assert typed_again(hint, monkeypatch) == 0
    commands = next_commands(capsys.readouterr().out)
    assert len(commands) == 2
    for line in commands:
        assert typed_again(line, monkeypatch) == 0, line
    for folder in ("a sweep", "copy"):
        both = [RunDirectory(run) for run in runs(tmp_path / folder)]
        assert [run.read_config()["regularizer"]["alpha"] for run in both] == [1e-3] * 2
        flags = {run.read_overrides()[0] for run in both}
        assert flags == {f"--config-dir={tmp_path / 'my conf'}"}
    (own / "trainer").mkdir()
    (own / "trainer" / "x.yaml").write_text("hydra: {callbacks: {x: {_target_: os.system}}}")
    assert main(["train", "-m", "resume_sweep=copy"]) == 2
    assert "trust that folder" in capsys.readouterr().err
    shutil.rmtree(own)
    assert main(["train", "-m", "resume_sweep=copy"]) == 2
    assert "--config-dir" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_calls_an_own_class_goes_on(own, tmp_path, monkeypatch, capsys):
    (tmp_path / "ours.py").write_text(
        "from seg_l1.penalties import L1\n\nclass Own(L1):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (own / "regularizer").mkdir()
    text = "defaults: [_base, _self_]\nname: own\npenalty: {_target_: ours.Own}\n"
    (own / "regularizer" / "own.yaml").write_text(text)
    from seg_l1.training.recorder import Recorder

    with monkeypatch.context() as patch:
        record = Recorder.record_epoch

        def stop(self, row):
            record(self, row)
            os.kill(os.getpid(), 15)

        patch.setattr(Recorder, "record_epoch", stop)
        words = [*SMALL, "trainer.epochs=2", "regularizer=own", "hydra.run.dir='a,b'"]
        words.remove("trainer.epochs=1")
        assert main(["train", "--config-dir", str(own), *words]) == 130
    (hint,) = re.findall("go on with (.*)", capsys.readouterr().err)
    assert hint.startswith(f"{TRUST}=1 ")
    assert typed_again(hint, monkeypatch) == 0


@pytest.mark.slow
def test_commands_after_a_resume_know_where_the_data_are(street, command, monkeypatch, capsys):
    """The data of a run moved before it went on."""
    words = ["dataset=folder", f"dataset.root={street}", "dataset.image_size=[16,16]"]
    words += ["model.width=2", "model.depth=1", "trainer.threads=1", "hydra.run.dir=run"]
    assert main(["train", *words, "trainer.epochs=1"]) == 0
    street.rename(street.with_name("moved"))
    capsys.readouterr()
    assert main(["train", "resume=run", f"dataset.root={street}2", "trainer.epochs=2"]) == 2
    again = ["resume=run", f"dataset.root={street.with_name('moved')}", "trainer.epochs=2"]
    assert main(["train", *again]) == 0
    for line in next_commands(capsys.readouterr().out)[:1]:
        assert typed_again(line, monkeypatch) == 0, line
    assert main(["report", "run"]) == 0
    (row,) = table(Path("run/report/runs.csv"))
    assert f"dataset.root={street.with_name('moved')}" in row["command"]


@pytest.mark.slow
def test_what_follows_a_path_and_a_search(command, monkeypatch, capsys):
    words = [*SMALL, "path.alphas=[1e-4,1e-5]", "path.epochs=1", "path.folder=a path"]
    assert main(["path", *words]) == 0
    said = capsys.readouterr().out
    for line in next_commands(said):
        assert typed_again(line, monkeypatch) == 0, line
    for row in table(Path("a path/report/runs.csv")):
        assert typed_again(row["command"], monkeypatch) == 0
    Path("images").mkdir()
    Image.new("RGB", (48, 48)).save("images/a.png")
    assert typed_again(said.strip().splitlines()[-1], monkeypatch) == 0
    capsys.readouterr()
    pytest.importorskip("optuna")
    words = [*SMALL, "regularizer.alpha=log(1e-5,1e-4)", "trials=1", "study=a study"]
    assert main(["search", *words]) == 0
    said = capsys.readouterr().out
    for line in [*next_commands(said), *re.findall(r"^#\d+: (.*)", said, re.M)]:
        assert typed_again(line, monkeypatch) == 0, line


@pytest.mark.parametrize("path", ["a b", "a,b", "it's", "12", "${a}", "x\\", "a\\'b", "(x)", "a=b"])
def test_a_path_is_assigned_as_it_is(path):
    word = assignment("resume", path)
    assert parse_word(word).value() == path
    (_, _, typed) = shlex.split(command_line("train", word))
    assert typed == word


def test_values_of_the_environment_are_written_out(monkeypatch):
    monkeypatch.setenv("WHERE", "a, b")
    words = ["dataset.root=${oc.env:WHERE}", "seed=${oc.decode:${oc.env:S}}", "model.width=4"]
    written = with_environment(words, {"dataset": {"root": "a, b"}, "seed": 3})
    assert written == ["dataset.root='a, b'", "seed=3", "model.width=4"]


@pytest.mark.slow
def test_a_number_of_the_environment_is_told_about_oc_decode(command, monkeypatch):
    monkeypatch.setenv("N", "2")
    for key in ("trainer.epochs", "regularizer.alpha", "regularizer.l1_ratio"):
        code, _, err = command(*SMALL, f"{key}=${{oc.env:N}}")
        assert code == 2 and "${oc.decode:${oc.env:" in err, err
    code, _, err = command(*SMALL, "trainer.epochs=${oc.decode:${oc.env:N}}", "hydra.run.dir=r")
    assert code == 0, err
    assert OmegaConf.load("r/overrides.yaml")[-1] == "trainer.epochs=2"


@pytest.mark.parametrize("flag", [["--cfg", "job"], ["--info"], ["--cfg", "job", "--resolve"]])
def test_a_sweep_shows_no_single_configuration(flag, command):
    code, _, err = command("-m", "seed=0,1", *flag)
    assert code == 2 and "leave -m out" in err and err.count("\n") == 1


def test_a_package_belongs_to_a_configuration_that_is_shown(command):
    code, _, err = command("--package", "model")
    assert code == 2 and "--cfg job" in err


@pytest.mark.slow
def test_the_home_folder_is_found_behind_an_equals_sign(command, tmp_path, monkeypatch, capsys):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    assert command(*SMALL, "hydra.run.dir=~/r")[0] == 0
    assert command("-m", *SMALL, "seed=0", "hydra.sweep.dir=~/s")[0] == 0
    assert command("resume=~/r")[0] == command("-m", "resume_sweep=~/s")[0] == 0
    assert command(*SMALL, "start=~/r", "hydra.run.dir='~/t'")[0] == 0
    for words in (["evaluate", "run=~/r"], ["report", "~/r", "output=~/o"]):
        assert main(words) == 0, words
    shutil.copy(home / "r/preview.png", home / "p.png")
    assert main(["predict", "run=~/r", "input=~/p.png", "output=~/q"]) == 0
    (tmp_path / "own/experiment").mkdir(parents=True)
    text = "# @package _global_\nhydra: {run: {dir: ~/u}, sweep: {dir: ~/v}}\n"
    (tmp_path / "own/experiment/home.yaml").write_text(text)
    assert command("--config-dir=own", *SMALL, "experiment=home")[0] == 0
    assert command("-m", "--config-dir=own", *SMALL, "experiment=home", "seed=0")[0] == 0
    assert {p.name for p in home.iterdir()} == {*"rstoquv", "p.png"}
    assert not (tmp_path / "~").exists() and not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (
            "*l1",
            {
                "cost_group_l1",
                "channel_l1",
                "group_l1",
                "l1",
                "norm_scale_l1",
                "reweighted_l1",
                "sparse_group_l1",
            },
        ),
        ("[l?,m*],exclude=l2", {"l1", "mcp"}),
        ("none", {"none"}),
    ],
)
def test_a_glob_goes_over_the_options_of_a_group(words, names):
    from seg_l1.config.words import parse, values

    _, (override,) = parse(["-m", f"regularizer=glob({words})"])
    assert set(values(override)) == names


@pytest.mark.slow
def test_the_option_of_a_glob_that_cannot_be_used_is_named(command, tmp_path):
    for words, named in (
        (["regularizer=glob(*)", "regularizer.solver=proximal"], "regularizer=bridge"),
        (["optimizer=glob(*)", "optimizer.momentum=0.5"], "optimizer=sgd"),
        (["regularizer=glob(x*)"], "no option matches"),
    ):
        code, _, err = command("-m", *SMALL, *words)
        assert (code, err.count("\n")) == (2, 1)
        assert named in err
    assert not (tmp_path / "outputs").exists()


def test_a_mode_in_a_file_and_a_launcher_that_cannot_start(own, command, tmp_path):
    (own / "experiment/mode.yaml").write_text("# @package _global_\nhydra: {mode: MULTIRUN}\n")
    code, _, err = command("--config-dir", "my conf", "experiment=mode")
    assert code == 2 and "type the flag -m" in err
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    for option in ("n_jobs=0", "prefer=x", "batch_size=0"):
        words = ["hydra/launcher=joblib", f"hydra.launcher.{option}"]
        code, _, err = command("-m", *SMALL, "seed=0,1", *words)
        assert code == 2 and "hydra.launcher" in err and err.count("\n") == 1
    assert not (tmp_path / "outputs").exists()
