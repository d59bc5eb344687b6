from __future__ import annotations

import csv
import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seg_l1.cli import main as cli
from seg_l1.config import compose, limits
from seg_l1.errors import UserError

TINY = [
    "dataset.num_train=16",
    "dataset.num_val=8",
    "dataset.num_test=8",
    "dataset.batch_size=4",
    "model.width=4",
    "trainer.epochs=2",
    "trainer.pictures=2",
]
"""Overrides that make a run on digits last about a second."""


@pytest.fixture(autouse=True)
def _no_state():
    """Every test starts from the same random state, on one thread (tiny tensors)."""
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def composed_once():
    """What hydra makes of the same words is the same each time: this saves half of the time."""
    with pytest.MonkeyPatch.context() as patch:
        once = cache(compose._compose_lines)
        patch.setattr(compose, "_compose_lines", lambda lines: once(tuple(lines)))
        yield


@pytest.fixture
def command(tmp_path, monkeypatch, capsys) -> Callable:
    """Calls the command in an empty folder; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def job(tmp_path, monkeypatch, capsys) -> Callable:
    """As `command` for one run, without hydra's own two compositions: four times as fast."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        config = compose.compose_plain([compose.quoted(word) for word in words])
        try:
            limits.check(config)
            cli._job(config, Path("outputs/runs/run"), list(words), resume=False)
            code = 0
        except UserError as error:
            code = cli._say(error, 2, False)
        except cli.JobFailed as failed:
            code = failed.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def finished(command, tmp_path):
    """A run of the card's command, and what it printed."""
    code, out, err = command("regularizer=l1", "regularizer.alpha=1e-5", *TINY)
    assert (code, err) == (0, "")
    (path,) = runs(tmp_path)
    return path, out


def runs(folder: Path) -> list[Path]:
    """All run directories below `folder`, in order."""
    return sorted(path.parent for path in folder.rglob("summary.json"))


@pytest.fixture
def street(tmp_path) -> Path:
    """A folder data set: 12 pairs of 20x30 pixels with a square of class 1, split folders none."""
    root = tmp_path / "street"
    write_pairs(root, 12)
    (root / "classes.txt").write_text("road\ncar\n")
    return root


def table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))


def write_pairs(root: Path, count: int, size: tuple[int, int] = (20, 30)) -> None:
    """Writes images/*.png and masks/*.png of (height, width) `size`."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for index in range(count):
        mask = np.zeros(size, dtype=np.uint8)
        top, left = rng.integers(0, size[0] - 8), rng.integers(0, size[1] - 8)
        mask[top : top + 8, left : left + 8] = 1
        image = rng.integers(0, 100, (*size, 3), dtype=np.uint8) + 120 * mask[..., None]
        Image.fromarray(image.astype(np.uint8)).save(root / "images" / f"{index:03d}.png")
        Image.fromarray(mask).save(root / "masks" / f"{index:03d}.png")
