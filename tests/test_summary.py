"""The summary of a run: what is written comes back, and what is damaged is said to be."""

from __future__ import annotations

import json
import math

import pytest

from seg_l1.errors import UserError
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.summary import RunSummary

SUMMARY = RunSummary(
    "interrupted",
    "the disk is full",
    best={"epoch": 2, "val/miou": 0.5, "val/iou/cat": math.nan},
    last={"epoch": 3, "val/miou": 0.25},
    test={"test/miou": 0.375},
    certificate={"epoch": 3, "kkt/zeros": 1.0},
    epochs=4,
    wall_time_s=1.5,
)


@pytest.fixture
def record(tmp_path):
    return RunDirectory(tmp_path)


def test_a_summary_comes_back(record):
    record.write_summary(SUMMARY)
    back = record.read_summary()
    assert back.best.pop("val/iou/cat") is None  # NaN is no JSON
    known = {**vars(SUMMARY), "best": {"epoch": 2, "val/miou": 0.5}}
    assert vars(back) == known


def test_before_the_first_epoch_there_are_no_scores(record):
    record.write_summary(RunSummary("running"))
    assert json.loads(record.summary.read_text())["best"] is None
    assert record.read_summary() == RunSummary("running")


def test_scores_are_of_the_best_epoch_unless_the_last_is_asked_for(record):
    record.write_summary(SUMMARY)
    for summary in (SUMMARY, record.read_summary()):
        assert summary.score("val/miou") == 0.5
        assert summary.score("val/miou", epoch="last") == 0.25
        assert summary.score("test/miou") == 0.375
        assert summary.score("kkt/zeros", epoch="last") == 1
        for name in ("kkt/zeros", "val/iou/cat", "unheard of"):
            assert math.isnan(summary.score(name))
        assert math.isnan(summary.score("test/miou", epoch="last"))


def test_a_row_has_what_was_asked_for(record):
    columns = ("epochs", "last_epoch", "epoch", "val/miou", "test/miou", "wall_time_s", "other")
    assert SUMMARY.row(columns) == {
        "status": "interrupted", "error": "the disk is full", "epochs": 4, "last_epoch": 3,
        "epoch": 2, "val/miou": 0.5, "test/miou": 0.375, "wall_time_s": 1.5, "other": None,
    }  # fmt: skip
    assert SUMMARY.row(["epoch"], epoch="last")["epoch"] == 3
    assert set(RunSummary("pending").row(columns).values()) == {"pending", None}


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "5", "{}", '{"status": "asleep"}', '{"status": ["running"]}',
     '{"status": "running", "best": 5}', '{"status": "completed", "epochs": "two"}',
     '{"status": "failed", "error": 5}', "[" * 100_000, "\xff", None],
    ids=ascii,
)  # fmt: skip
def test_a_damaged_summary_is_named_or_stands_for_none(content, record):
    if content is not None:
        record.summary.write_text(content, "latin-1")
    assert record.read_summary(missing_ok=True) == RunSummary("pending")
    with pytest.raises(UserError, match=r"summary\.json: does not fit this run"):
        record.read_summary()


def test_keys_of_another_version_are_left_out(record):
    record.summary.write_text(json.dumps({"status": "completed", "colour": "blue"}))
    assert record.read_summary() == RunSummary("completed")
