from __future__ import annotations

import errno
import os
import random

import numpy as np
import pytest
import torch

from seg_l1.errors import RunError
from seg_l1.runs import checkpoints


def test_what_was_saved_comes_back(tmp_path):
    state = {"w": torch.randn(3), "step": 4, "name": "x", "list": [1.5, None, {"a": (1, 2)}]}
    checkpoints.save(tmp_path / "a.pt", state)
    back = checkpoints.load(tmp_path / "a.pt")
    assert torch.equal(back.pop("w"), state.pop("w"))
    assert back == state


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    checkpoints.save(path, {"step": 1})

    def full(descriptor):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"a\.pt: cannot be written \(disk full\)"):
        checkpoints.save(path, {"step": 2})
    assert checkpoints.load(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def draw():
    return random.random(), np.random.rand(), torch.rand(2).tolist()


def test_random_states_come_back_through_a_file(tmp_path):
    checkpoints.seed_everything(3)
    draw()
    checkpoints.save(tmp_path / "r.pt", checkpoints.random_state())
    expected = draw()
    checkpoints.seed_everything(4)
    checkpoints.set_random_state(checkpoints.load(tmp_path / "r.pt"))
    assert draw() == expected
