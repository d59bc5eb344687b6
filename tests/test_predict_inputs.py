"""What predict takes: several inputs, patterns, odd names; and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seg_l1.cli.main import main
from seg_l1.cli.predict import _inputs
from seg_l1.deployment.inputs import find_inputs, output_names
from seg_l1.deployment.predict_files import predict_files
from seg_l1.errors import UserError
from tests.support.runs import table
from tests.support.videos import Brightness

FILES = ("a.png", "b.JPG", "day/a.png", "day/deep/ü x.png", "night [1]/a.png", "notes.txt",
         ".hidden.png", ".git/c.png", "day/b.npy")  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    """`FILES` in the current folder."""
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".png", ".JPG"):
            Image.new("RGB", (6, 4)).save(path)
        else:
            path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*sources, target="out"):
    """The names of what is found, in alphabetical order."""
    return sorted(name.as_posix() for name in find_inputs(sources, Path(target)).names)


DAY = ["a.png", "b.npy", "deep/ü x.png"]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["day"], DAY),
        (["day/"], DAY),
        (["day/a.png"], ["a.png"]),
        (["notes.txt"], ["notes.txt"]),
        (["*.png"], ["a.png"]),
        (["*.[Jj]*"], ["b.JPG"]),
        (["day/**/*.png"], ["a.png", "deep/ü x.png"]),
        (["day/**"], DAY),
        (["*/a.png"], ["day/a.png", "night [1]/a.png"]),
        (["night [1]/*.png"], ["a.png"]),  # a folder that exists is no pattern
        (["night [1]"], ["a.png"]),
        (["day", "night [1]"], [*(f"day/{name}" for name in DAY), "night [1]/a.png"]),
        (["a.png", "day/../a.png", "*.png"], ["a.png"]),
        (["day", "day/deep", "day/a.png"], DAY),
        (["./day/a.png", "b.JPG"], ["b.JPG", "day/a.png"]),
        (["d?y"], ["day/a.png", "day/b.npy", "day/deep/ü x.png"]),
    ],
    ids=str,
)
def test_each_file_is_found_once_and_named_below_the_common_folder(sources, expected, here):
    assert names(*sources) == expected
    assert names(*(here / source for source in sources)) == expected


def test_a_pattern_takes_no_predictions(here):
    for name in ("out/masks/a.png", "out/overlays/a.png"):
        (here / name).parent.mkdir(parents=True)
        Image.new("L", (6, 4)).save(here / name)
    assert [name for name in names("**/*.png") if name.startswith("out")] == []
    assert [name for name in names("*") if name.startswith("out")] == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nope", "there is no file or folder 'nope'"),
        ("day/nope.png", "no file or folder"),
        ("*.tif", "'*.tif' matches no file"),
        ("*.txt", "matches no image or video"),
        ("**/no[", "matches no file"),
        ("[", "matches no file"),
        ("a**b", "matches no file"),
        (".", "lies in the input folder"),
    ],
)
def test_what_holds_nothing_is_named(source, words, here):
    with pytest.raises(UserError) as caught:
        find_inputs(["a.png", source], Path("out"))
    assert words in str(caught.value)


def test_words_are_inputs_with_and_without_their_key(here):
    (here / "k=v.png").touch()
    words = ["run=r", "input=a.png", "b.JPG", "k=v.png", "*.png", "outptu=o", "--x", "input="]
    assert _inputs(words) == (
        ["input=a.png", "input=b.JPG", "input=k=v.png", "input=*.png"],
        ["run=r", "outptu=o", "--x", "input="],
    )
    for wrong in (["input=", "a.png"], ["a.png", "outptu=o"], ["a.png", "--x"], [""]):
        assert main(["predict", "run=r", "output=o", *wrong]) == 2, wrong


def test_predictions_lie_under_the_names_of_their_images(here):
    done = predict_files(Brightness(), ["day", "b.JPG", "night [1]/*"], here / "out")
    assert (done.images, done.videos, len(done.skipped)) == (5, 0, 1)
    assert "b.npy" in done.skipped[0]
    expected = ["b.png", "day/a.png", "day/deep/ü x.png", "night [1]/a.png"]
    for kind in ("masks", "overlays"):
        folder = here / "out" / kind
        written = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))
        assert written == expected
    assert len(table(here / "out/shares.csv")) == 4
    assert not np.array(Image.open(here / "out/masks/b.png")).any()
    for source in ("out/masks/b.png", "out/overlays/b.png"):
        with pytest.raises(UserError, match="would be written over"):
            predict_files(Brightness(), [source], here / "out")


def test_names_that_are_taken_are_avoided():
    paths = [Path(name) for name in ("clip.mp4", "Clip.avi", "x/clip.mov")]
    assert output_names(paths, "", taken=[Path("clip")]) == [
        Path("clip_mp4"), Path("Clip_avi"), Path("x/clip")]  # fmt: skip
    assert output_names(paths, ".mp4") == [
        Path("clip.mp4"), Path("Clip_avi.mp4"), Path("x/clip.mp4")]  # fmt: skip
