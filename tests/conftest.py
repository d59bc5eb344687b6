from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from matplotlib.figure import Figure

from seg_l1.cli.main import main
from seg_l1.config import check, compose
from tests.support.runs import CARD, TINY, runs
from tests.support.standard_files import write_pairs


@pytest.fixture(autouse=True)
def _no_state():
    """Every test starts from the same random state, on one thread (tiny tensors)."""
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _no_autograd_threads():
    """The first backward after a torch.export starts threads, after which no fork can train."""
    torch.ones(1, requires_grad=True).backward()


@pytest.fixture(scope="session", autouse=True)
def _composed_once():
    """What hydra makes of the same words is the same each time, but for files of one's own."""
    compose_lines = compose.compose_lines
    once = cache(compose_lines)

    def remembered(lines, folder=None):
        return compose_lines(lines, folder) if folder else once(tuple(lines)).copy()

    with pytest.MonkeyPatch.context() as patch:
        for module in (compose, check):
            patch.setattr(module, "compose_lines", remembered)
        yield


@pytest.fixture(scope="module")
def undrawn():
    """Figures are left empty: drawing them takes a third of the time of a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, file, **options: file.write(b""))
        yield


@pytest.fixture
def command(tmp_path, monkeypatch, capsys) -> Callable:
    """Calls `seg-l1 train` in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(["train", *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


class Trained(NamedTuple):
    """A run and what it printed."""

    folder: Path
    out: str


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory) -> Trained:
    """A run of the card's command, which no test may change."""
    folder, out = tmp_path_factory.mktemp("trained"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        patch.chdir(folder)
        assert main(["train", *CARD]) == 0
    return Trained(runs(folder)[0], out.getvalue())


@pytest.fixture
def finished(trained_once, tmp_path, monkeypatch) -> Trained:
    """A copy of a run of the card's command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "outputs" / "runs" / trained_once.folder.name
    shutil.copytree(trained_once.folder, path)
    return Trained(path, trained_once.out)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A run, one of another model, and a sweep of two jobs."""
    folder = tmp_path_factory.mktemp("made")
    tiny = [*TINY, "trainer.epochs=1", "trainer.kkt_every=null"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", *tiny, "hydra.run.dir=run"]) == 0
        assert main(["train", *tiny, "model.depth=2", "hydra.run.dir=other"]) == 0
        assert main(["train", "-m", *tiny, "seed=0,1", "hydra.sweep.dir=sweep"]) == 0
    return folder


@pytest.fixture
def copied(made, command, tmp_path):
    """The same in the folder of the test, but for pictures and events."""
    unread = shutil.ignore_patterns("tensorboard", "*.png")  # ten times as much as the rest
    shutil.copytree(made, tmp_path, ignore=unread, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def street(tmp_path) -> Path:
    """A folder data set: 12 pairs of 20x30 pixels with a square of class 1, split folders none."""
    root = tmp_path / "street"
    write_pairs(root, 12)
    (root / "classes.txt").write_text("road\ncar\n")
    return root
