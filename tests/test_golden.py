"""Short trainings against stored numbers, which a refactoring must reproduce.

See ``tests/golden/record.py`` for what is stored, and for when to record it again.
"""

from __future__ import annotations

import json

import pytest

from tests.golden.record import CASES, FILE, train

STORED = json.loads(FILE.read_text("utf-8"))


def test_every_case_is_stored():
    assert STORED.keys() == CASES.keys()


@pytest.mark.parametrize("case", CASES)
def test_a_training_reproduces_its_stored_numbers(case):
    stored, trained = STORED[case], train(CASES[case])
    assert trained["losses"] == pytest.approx(stored["losses"], rel=1e-8, abs=0)
    assert trained["tensors"].keys() == stored["tensors"].keys()
    for name, expected in stored["tensors"].items():
        found = trained["tensors"][name]
        assert found["zeros"] == expected["zeros"], name
        assert found["l1"] == pytest.approx(expected["l1"], rel=1e-8, abs=0), name
        assert found["l2"] == pytest.approx(expected["l2"], rel=1e-8, abs=0), name
