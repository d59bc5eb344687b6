"""Files are written whole, and what cannot be written is named."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
from pathlib import Path

import pytest

from seg_l1.errors import RunError, UserError
from seg_l1.runs import files


def test_what_was_written_is_read_back(tmp_path):
    files.make_folder(tmp_path / "a" / "b")
    files.make_folder(tmp_path / "a" / "b")
    path = tmp_path / "a" / "b" / "file"
    rows = [["x", "1"], ['a "quoted", word', "line\nbreak"]]
    files.write_csv(path, rows[0], rows[1:])
    with open(path, newline="", encoding="utf-8") as file:
        assert list(csv.reader(file)) == rows
    files.write_json(path, {"é": [1, math.nan, (2.5, math.inf)], "x": {"y": -math.inf}})
    assert json.loads(path.read_text()) == {"é": [1, None, [2.5, None]], "x": {"y": None}}
    name = os.fsdecode(b"caf\xe9.png")
    files.write_text(path, name)
    assert path.read_bytes() == b"caf\xe9.png"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, RunError), (errno.EDQUOT, RunError), (errno.EROFS, UserError),
     (errno.EACCES, UserError)],
)  # fmt: skip
def test_a_full_disk_ends_a_run_and_another_place_is_the_users(number, kind, tmp_path, monkeypatch):
    def refuse(*names):
        raise OSError(number, "no", *names)

    monkeypatch.setattr(os, "fsync", refuse)
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(kind, match=r"/file: cannot be written \(no\)"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(kind, match=r"^other: cannot be written \(no\)"), files.writing(path):
        refuse("other")
    with pytest.raises(kind, match=r"/file: cannot be written \(no\)"), files.writing(path):
        refuse()


def test_a_folder_below_a_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/x/y: cannot be written \(Not a directory\)"):
        files.make_folder(tmp_path / "file" / "x" / "y")
    with pytest.raises(UserError, match=r"file: cannot be written \(File exists\)"):
        files.make_folder(tmp_path / "file")


def test_an_error_is_blamed_on_the_file():
    lacking = r"x: does not fit this run \(it lacks 'key'\)"
    with pytest.raises(UserError, match=lacking), files.blame_file(Path("x")):
        {}["key"]
    with pytest.raises(UserError, match=r"^mine$"), files.blame_file(Path("x")):
        raise UserError("mine")
