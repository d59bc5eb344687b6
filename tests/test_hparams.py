"""TensorBoard's HPARAMS table, as the event files of a sweep have it."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import (
    EXPERIMENT_TAG,
    SESSION_START_INFO_TAG,
    parse_experiment_plugin_data,
    parse_session_start_info_plugin_data,
)

from seg_l1.config.compose import compose_plain
from seg_l1.display.hparams import columns
from seg_l1.display.tensorboard import Board
from seg_l1.training import finish
from tests.support.runs import TINY, runs


def record(run: Path) -> tuple[dict, set[str]]:
    """The hyperparameters of a run, and the columns that it names."""
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    content = events.PluginTagToContent("hparams")
    start = parse_session_start_info_plugin_data(content[SESSION_START_INFO_TAG])
    table = parse_experiment_plugin_data(content[EXPERIMENT_TAG])
    values = {
        name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()
    }
    return values, {info.name for info in table.hparam_infos}


@pytest.mark.slow
def test_a_sweep_has_a_column_for_every_swept_key(command, tmp_path):
    words = [word for word in TINY if not word.startswith(("model.width", "trainer.epochs"))]
    swept = {"regularizer": ["none", "elastic_net"], "model.width": [2, 3], "seed": [5]}
    swept |= {"augmentation": ["light"], "regularizer.l1_ratio": [0.25]}
    lines = [f"{key}={','.join(map(str, values))}" for key, values in swept.items()]
    lines += ["dataset.digits_per_scene=[1,2]", "model.depth=1", "trainer.epochs=1"]
    code, _, err = command("-m", *words, *lines, "trainer.kkt_every=null", "regularizer.alpha=1e-3")
    assert code == 0, err
    found = [record(run) for run in runs(tmp_path)]
    assert len(found) == 4
    (names,) = {frozenset(names) for _, names in found}
    assert {*swept, "alpha", "dataset.digits_per_scene"} <= names
    both = {(v["regularizer"], v["model.width"]) for v, _ in found}
    assert both == {(name, width) for name in ("none", "elastic_net") for width in (2, 3)}
    for values, _ in found:
        assert (values["seed"], values["augmentation"]) == (5, "light")
        assert values["dataset.digits_per_scene"] == "[1, 2]"
        penalized = values["regularizer"] == "elastic_net"
        assert values.get("alpha") == (1e-3 if penalized else None)
        assert values.get("regularizer.l1_ratio") == (0.25 if penalized else None)


@pytest.mark.parametrize("cost", [{}, {"compact/parameters": 7, "compact/multiply_adds": 90}])
def test_a_record_says_what_the_compact_network_costs(cost, tmp_path):
    board = Board(tmp_path / "tensorboard")
    row = {"val/miou": 0.5, "sparsity/exact": 0.25, "gap/miou": 0.125, **cost}
    experiment = SimpleNamespace(config=compose_plain(["regularizer=l1"]))
    finish._write_hparams(
        SimpleNamespace(board=board, experiment=experiment, overrides=["regularizer=l1"]), row, {}
    )
    board.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name in ("compact/parameters", "compact/multiply_adds"):
        (event,) = events.Scalars(f"summary/{name.replace('/', '_')}")
        assert event.value == pytest.approx(cost.get(name, math.nan), nan_ok=True)


def test_columns_are_those_that_were_typed():
    words = ["regularizer=dropout", "regularizer.dropout=0.2", "trainer.channels_last=true"]
    found = columns(compose_plain(words), ["--config-dir=x", *words, "start='a'", "~optimizer.eps"])
    assert found == {
        "regularizer": "dropout", "optimizer": "adam", "network": "UNet", "seed": 0, "lr": 0.01,
        "alpha": None, "solver": None, "regularizer.dropout": 0.2, "trainer.channels_last": "true",
    }  # fmt: skip
