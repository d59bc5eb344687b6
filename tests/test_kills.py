"""Killed at any moment and resumed, a run ends with the bits of one that was not."""

from __future__ import annotations

import pytest

from tests.kills import (
    BASE,
    KINDS,
    PATH,
    differences,
    finished,
    moments,
    outcome,
    path_outcome,
    path_with_kills,
    run_with_kills,
)  # fmt: skip

KEPT = ("workers", "accumulating", "stopping early", "factorized", "dual_averaging")
"""Of all `KINDS`; `benchmarks/kills.py` has the others."""

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", KEPT)
def test_a_killed_run_ends_with_the_same_bits(kind, tmp_path):
    words = [*BASE, *KINDS[kind]]
    log = tmp_path / "log"
    finished([*words, f"hydra.run.dir={tmp_path / 'whole'}"], log)
    plan = moments(3, seconds=1.0, writes=12, seed=list(KINDS).index(kind))
    kills = run_with_kills(words, tmp_path / "killed", plan, log)
    assert kills >= 1
    assert not differences(outcome(tmp_path / "whole"), outcome(tmp_path / "killed"))


def test_the_comparison_sees_one_bit(tmp_path):
    log = tmp_path / "log"
    finished([*BASE, f"hydra.run.dir={tmp_path / 'whole'}"], log)
    one, other = outcome(tmp_path / "whole"), outcome(tmp_path / "whole")
    assert not differences(one, other)
    name = "head.weight"
    other["last"]["loop"]["model"][name][0, 0] *= 1 + 2**-23
    assert differences(one, other) == [f"/last/loop/model/{name}"]


def test_a_killed_path_ends_with_the_same_selection(tmp_path, monkeypatch):
    log = tmp_path / "log"
    for name, kills in (("whole", 0), ("killed", 4)):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        assert path_with_kills(PATH, kills, 4.0, log) >= kills // 2
    assert not differences(path_outcome(tmp_path / "whole/p"), path_outcome(tmp_path / "killed/p"))
