"""`seg-l1` and its commands: what is listed, what is misspelt, and which commands are shown."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from seg_l1.cli.frame import exit_code
from seg_l1.cli.main import COMMANDS, main
from seg_l1.config.commands import STARTED, command_line, started
from seg_l1.errors import Interrupted, RunError, UserError
from seg_l1.training.loop import Diverged
from tests.support.runs import TINY, runs

ROOT = Path(__file__).parents[1]


def test_help_lists_every_command(capsys):
    assert main([]) == main(["--help"]) == main(["-h"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for command in COMMANDS:
        assert sum(line[:1] == [command] for line in lines) == 3
        assert callable(import_module(f"seg_l1.cli.{command}").run)


@pytest.mark.parametrize("checkout", [False, True])
@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_shows_it_as_it_was_started(command, checkout, capsys):
    assert main([command, "--help"], checkout=checkout) == 0
    page = capsys.readouterr().out
    script = "python train.py" if command == "train" else f"python scripts/{command}.py"
    assert (script in page, f"seg-l1 {command}" in page) == (checkout, not checkout)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("trian", "Did you mean 'train'?"),
        ("reprot", "Did you mean 'report'?"),
        ("regularizer=l1", "Did you mean 'seg-l1 train regularizer=l1'?"),
        ("-m", "Did you mean 'seg-l1 train -m'?"),
        ("xyz", "Commands: train, look, path"),
    ],
)
def test_a_misspelt_command_gets_a_hint(typed, expected, capsys):
    assert main([typed]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)


def test_command_lines_are_those_of_the_place_and_survive_a_shell(monkeypatch):
    monkeypatch.delenv(STARTED, raising=False)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    words = ["regularizer.scope=[{name: '*'}]", "dataset.root=my images"]
    monkeypatch.chdir(ROOT)
    for checkout, program in ((False, ["seg-l1", "train"]), (True, ["python", "train.py"])):
        with started(checkout=checkout):
            line = command_line("train", *words)
            said = subprocess.run(
                [sys.executable, "-c", "import os; print(os.environ['SEG_L1_STARTED'])"],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
        # as in the processes of a launcher
        assert said.stdout == ("python .\n" if checkout else "seg-l1\n")
        shown = subprocess.run(
            ["/bin/sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True
        )
        assert shown.stdout.splitlines() == [*program, *words]
    assert command_line("report", "x") == "seg-l1 report x"


@pytest.mark.slow
def test_what_a_run_prints_can_be_typed_where_it_runs(tmp_path):
    for place, line in (
        (
            "installed",
            ["-c", "import sys; from seg_l1.cli.main import main; sys.exit(main())", "train"],
        ),
        ("checkout", [str(ROOT / "train.py")]),
    ):
        folder = tmp_path / place
        folder.mkdir()
        words = ["-m", "seed=0", *TINY, "trainer.epochs=1", "hydra.sweep.dir=it"]
        done = subprocess.run(
            [sys.executable, *line, *words], cwd=folder, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        (log,) = folder.glob("it/*/train.log")
        text = done.stdout + log.read_text()
        shown = ("seg-l1 report it", "seg-l1 train -m seed=0")
        script = (f"{ROOT}/scripts/report.py it", f"{ROOT}/train.py -m seed=0")
        for installed, checkout in zip(shown, script, strict=True):
            assert (installed in text, checkout in text) == (
                place == "installed",
                place == "checkout",
            )


@pytest.mark.parametrize(
    ("error", "code", "out", "err"),
    [
        (UserError("x: is wrong", ["a", "b"]), 2, "  a\n  b\n", "error: x: is wrong\n"),
        (RunError("x: is full"), 1, "", "error: x: is full\n"),
        (Diverged("not finite"), 1, "", "error: Diverged: not finite (debug=true shows where)\n"),
        (Interrupted("go on with: x"), 130, "", "go on with: x\n"),
        (KeyboardInterrupt(), 130, "", "interrupted\n"),
        (SystemExit(130), 130, "", ""),
        (SystemExit(), 0, "", ""),
        (OSError(28, "No space left on device", "f"), 1, "",
         "error: f: cannot be written (No space left on device).\n"),
        (OSError(13, "Permission denied", "f"), 2, "",
         "error: f: Permission denied; choose another file or folder\n"),
        (ZeroDivisionError("x"), 1, "", "error: ZeroDivisionError: x (debug=true shows where)\n"),
    ],
)  # fmt: skip
def test_every_error_has_its_exit_code_and_its_line(error, code, out, err, capsys):
    def work():
        raise error

    assert exit_code(work) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == (out, err)
    if isinstance(error, UserError | Diverged):
        assert exit_code(work, traceback=True) == code
        assert "Traceback" in capsys.readouterr().err


def test_what_hydra_refuses_is_the_users_mistake(capsys):
    assert exit_code(lambda: OmegaConf.create({"a": "${b}"}).a) == 2
    assert capsys.readouterr().err.startswith("error: Interpolation key 'b' not found")


def test_hydras_own_keys_hold_for_a_single_run(command, tmp_path):
    """The folder, the working directory, environment variables, and files of hydra's own."""
    words = [*TINY, "trainer.epochs=1", "hydra.job.chdir=true", "hydra.output_subdir=.hydra"]
    folder = "hydra.run.dir=${hydra.runtime.cwd}/a/${hydra.job.override_dirname}"
    assert command(*words, "hydra.job.config.override_dirname.exclude_keys=[]", folder)[0] == 0
    (path,) = runs(tmp_path)
    assert path.parent == tmp_path / "a" and "model.width=4" in path.name
    assert {p.name for p in (path / ".hydra").iterdir()} == {
        "config.yaml", "hydra.yaml", "overrides.yaml",
    }  # fmt: skip
    assert Path.cwd() == tmp_path


def test_an_interpolation_of_hydras_own_keys_is_refused_by_name(command, tmp_path):
    (tmp_path / "own/experiment").mkdir(parents=True)
    text = "# @package _global_\nhere: ${hydra:runtime.cwd}\n"
    (tmp_path / "own/experiment/mine.yaml").write_text(text)
    code, _, err = command("--config-dir", "own", "experiment=mine")
    assert code == 2 and "here" in err and not (tmp_path / "outputs").exists()


def test_a_run_is_composed_once(command, monkeypatch):
    from seg_l1.config import compose

    calls, right = [], compose.compose_lines
    monkeypatch.setattr(
        compose, "compose_lines", lambda lines, *more: calls.append(lines) or right(lines, *more)
    )
    words = [*TINY, "trainer.epochs=1", "regularizer=l1", "regularizer.alpha=1e-5"]
    assert command(*words)[0] == 0
    assert calls == [tuple(words)]
