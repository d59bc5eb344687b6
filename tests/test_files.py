"""Files are written whole, and what cannot be written is named."""

from __future__ import annotations

import csv
import errno
import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from seg_l1.errors import RunError, UserError
from seg_l1.runs import files
from seg_l1.runs.files import read_yaml, write_yaml


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


def nested(inner):
    return inner | st.lists(inner, max_size=4) | st.dictionaries(st.text("abc_"), inner, max_size=4)


VALUES = (
    st.none() | st.booleans() | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_subnormal=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="$"), max_size=12)
    | st.sampled_from(["1e-5", "2026-11-27", "1:30", ".5", "null", "yes", "0x1F", "1_000", "~"])
)  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.dictionaries(st.text("abc"), nested(nested(VALUES)), max_size=5))
def test_a_configuration_is_read_as_it_was_written(content, tmp_path):
    path = tmp_path / "config.yaml"
    write_yaml(path, content)
    assert repr(read_yaml(path)) == repr(OmegaConf.to_container(OmegaConf.load(path)))


@pytest.mark.parametrize(
    "value",
    [
        "1e-5", "1E5", "-1.5e-3", ".5", "1.", "+.inf", ".nan", "1_0.5", "012", "1:30", "2026-01-01",
        "12e03", "e5", ".", "1e", "0x1F", "on", "~", "-.5", "+3", "1.5.2", "3e+2", "1:30.5",
    ],
)  # fmt: skip
def test_what_a_person_types_into_a_configuration_is_read_as_omegaconf_reads_it(value, tmp_path):
    (path := tmp_path / "config.yaml").write_text(f"a: {value}\n", encoding="utf-8")
    assert repr(read_yaml(path)) == repr(OmegaConf.to_container(OmegaConf.load(path)))


@pytest.mark.parametrize(
    "text", ["a: 1\na: 2\n", "a: !!set {b}\n", "a: [1\n", "a: !!binary aGk=\n"]
)
def test_what_is_no_configuration_is_refused(text, tmp_path):
    (path := tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.yaml: is not a configuration"):
        read_yaml(path)
