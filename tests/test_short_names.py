"""Long values, such as scopes, have short names that a table explains."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from seg_l1.cli.main import main
from seg_l1.config.short_names import explained, short_names, shortened
from tests.support.runs import TINY, runs

SCOPES = [
    "[{name: '*weight', types: [Conv2d, Linear], penalize: true}, {name: '*', penalize: false}]",
    "[{name: '*weight', types: [Conv2d], penalize: true}, {name: '*', penalize: false}]",
]
"""They agree in their first 40 letters."""


def test_names_are_letters_in_the_order_of_appearance():
    settings = [{"a.scope": letter * 40, "b": "short"} for letter in "xyx"]
    names = short_names(settings)
    assert list(names.values()) == ["scope A", "scope B"]
    assert shortened(settings[1], names) == {"a.scope": "scope B", "b": "short"}
    assert explained(names)[0] == f"scope A: a.scope={'x' * 40}"
    many = short_names({"k": f"{number:040d}"} for number in range(28))
    assert [*many.values()][25:] == ["k Z", "k AA", "k AB"]


@pytest.mark.slow
def test_scopes_of_a_sweep_have_names(command, tmp_path, capsys):
    words = [*TINY, "trainer.kkt_every=null", "model.depth=1"]
    code, out, err = command(
        "-m", *words, f"regularizer.scope={','.join(SCOPES)}", "hydra.sweep.dir=sweep"
    )
    assert code == 0, err
    assert [run.name for run in runs(tmp_path)] == ["0_scope-A", "1_scope-B"]
    plan = json.loads((tmp_path / "sweep/sweep.json").read_text())
    values = [job["swept"]["regularizer.scope"] for job in plan["jobs"]]
    lines = out.splitlines()
    for letter, value in zip("AB", values, strict=True):
        assert f"scope {letter}: regularizer.scope={value}" in lines
    assert sum("scope A" in line and "mIoU" in line for line in lines) >= 1
    assert main(["report", "sweep", "output=report"]) == 0
    page = Path("report/report.html").read_text()
    for letter in "AB":
        assert f"l1, scope {letter}" in page
    assert page.count("<code>[") == 2
    with Path("report/best.csv").open() as file:
        labels = [row["regularizer"] for row in csv.DictReader(file)]
    assert len(set(labels)) == 2 and all("types" in label for label in labels)
