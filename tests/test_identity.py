"""Which keys make another run: by training, and by the commands that ask."""

from __future__ import annotations

import pytest
import torch

from seg_l1.config import limits
from seg_l1.config.compose import compose_plain
from seg_l1.config.identity import (
    BUDGET,
    COMMAND,
    MACHINE,
    PRESENTATION,
    differences,
    duplicates,
)
from seg_l1.report.reading import collect
from seg_l1.runs import checkpoints
from tests.support.runs import TINY, runs, table

OTHERS = {
    "trainer.log_every": "1",
    "trainer.pictures": "1",
    "trainer.pictures_every": "1",
    "trainer.kkt_every": "1",
    "trainer.kkt_images": "3",
    "trainer.compact": "true",
}


def test_every_key_of_a_kind_exists_and_has_one_kind():
    keys = [*PRESENTATION, *MACHINE, *BUDGET, *COMMAND]
    assert len(keys) == len(set(keys))
    assert set(keys) <= limits.LIMITS.keys()


@pytest.mark.slow
def test_presentation_changes_no_weight_blocks_no_resume_and_splits_no_curve(command, tmp_path):
    elsewhere = {"traceback", "regularizer.name", "dataset.show"}  # a name; a key of folders
    assert OTHERS.keys() == {*PRESENTATION} - elsewhere
    others = [f"{key}={value}" for key, value in OTHERS.items()]
    rest = [word for word in TINY if word.split("=")[0] not in OTHERS]
    for name, more in (("one", []), ("other", others)):
        assert command(*rest, *more, f"hydra.run.dir=runs/{name}")[0] == 0
    one, other = runs(tmp_path)
    states = [checkpoints.load(path / "checkpoints/last.pt") for path in (one, other)]
    first, second = (state["loop"]["model"] for state in states)
    assert all(torch.equal(weights, second[name]) for name, weights in first.items())

    found = collect([tmp_path / "runs"])
    assert [run.setting for run in found.runs] == [{}]
    assert [name for _, name in found.repeats] == [found.runs[0].name]

    code, _, err = command("resume=runs/one", *others, "trainer.epochs=3")
    assert (code, err) == (0, "")
    assert len(table(one / "metrics.csv")) == 3


def test_differences_name_what_makes_another_run():
    before = {"seed": 0, "trainer.pictures": 6, "old": 1, "gone": 2}
    now = {"seed": 1, "trainer.pictures": 1, "old": 1, "new": 3}
    assert differences(before, now, where="path") == [
        "gone: 2 in the path, now not given",
        "new: not given in the path, now 3",
        "seed: 0 in the path, now 1",
    ]
    assert differences(before, now, where="sweep", typed=["new", "other"]) == [
        "new: not given in the sweep, now 3",
        "seed: 0 in the sweep, now 1",
    ]
    assert differences(before, now, where="sweep", free=("seed", "gone", "new")) == [
        "trainer.pictures: 6 in the sweep, now 1"
    ]


@pytest.mark.parametrize(
    ("words", "alike"),
    [
        (["regularizer=none", "regularizer.alpha=1"], ["regularizer=none", "regularizer.lam=2"]),
        (["regularizer=none", "regularizer.cost=parameters"], ["regularizer=none"]),
        (["regularizer.cost_power=0.5"], ["target.share=0.5", "target.penalized=0.2"]),
        (["regularizer=l1", "regularizer.knot=5"], ["regularizer=l1"]),
        (["sweep.on_error=stop"], []),
        (["regularizer.schedule_epochs=3"], []),
        (
            ["regularizer.schedule=linear", "regularizer.schedule_multiple=3"],
            ["regularizer.schedule=linear"],
        ),
    ],
)
def test_what_a_run_does_not_read_makes_no_other_run(words, alike):
    assert duplicates([compose_plain(words), compose_plain(alike)]) == [None, 0]


@pytest.mark.parametrize(
    ("words", "other"),
    [
        (["device=cpu"], []),
        (["regularizer=mcp", "regularizer.knot=5"], ["regularizer=mcp"]),
        (["model.width=5"], []),
        (["regularizer.schedule=linear"], ["regularizer.schedule=cosine"]),
    ],
)
def test_what_a_run_reads_makes_another_run(words, other):
    assert duplicates([compose_plain(words), compose_plain(other)]) == [None, None]
