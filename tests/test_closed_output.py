"""`python train.py | head`: a reader that goes away ends a command with a word, to be resumed."""

from __future__ import annotations

import os
import re
import shlex

import pytest

from seg_l1.cli.main import main
from seg_l1.runs.directory import RunDirectory
from tests.support.forks import Forked
from tests.support.runs import TINY

SMALL = [*TINY, "model.depth=1", "trainer.kkt_every=null", "trainer.threads=1"]
WORD = "standard output was closed"


def read_until(start: str, command: str, *words: str) -> tuple[int, str]:
    """Starts a command and closes its output after a line; returns exit code and standard error."""
    reader, writer = os.pipe()
    process = Forked([*words], command=command, stdout=writer, prepare=lambda: os.close(reader))
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith(start):
                break
    ended = process.wait()
    return ended.code, ended.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "words"),
    [
        ("run:", ["train", *SMALL, "trainer.epochs=3", "hydra.run.dir=it"]),
        ("sweep:", ["train", "-m", *SMALL, "seed=0,1,2", "hydra.sweep.dir=it"]),
        ("path:", ["path", *SMALL, "path.alphas=[1e-4,1e-5]", "path.folder=it"]),
        ("study:", ["search", *SMALL, "regularizer.alpha=log(1e-6,1e-4)", "trials=3", "study=it"]),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_trains_is_interrupted_and_goes_on(start, words, command, tmp_path, capsys):
    code, said = read_until(start, *words)
    assert (code, said.count("\n")) == (130, 1), said
    assert said.startswith(WORD)
    if start == "run:":
        record = RunDirectory(tmp_path / "it")
        summary = record.read_summary()
        assert (summary.status, summary.error) == ("interrupted", None)
        assert f"interrupted: {WORD}" in record.log.read_text()
    (hint,) = re.findall("go on with:? (.*)", said)
    assert main(shlex.split(hint)[1:]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "train --cfg job",
        "train",
        "evaluate run=run",
        "report run",
        "predict run=run input=p.png output=o",
    ],
)
def test_what_only_prints_ends_with_a_word(words, copied):
    from PIL import Image

    Image.new("RGB", (48, 48)).save(copied / "p.png")
    reader, writer = os.pipe()
    os.close(reader)
    command, *more = words.split()
    process = Forked(more, command=command, stdout=writer)
    os.close(writer)
    ended = process.wait()
    assert (ended.code, ended.err) == (130, f"{WORD}\n")
