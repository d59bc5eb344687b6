"""`target=`: runs whose compact network meets a budget."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from seg_l1.config.check import check_overrides
from seg_l1.config.compose import compose_plain
from seg_l1.config.words import parse
from seg_l1.deployment import latency_model
from seg_l1.deployment.timing import NetworkTimer
from seg_l1.metrics.sparsity import multiply_adds
from seg_l1.runs import checkpoints
from tests.support.forks import Forked, signal_at
from tests.support.runs import TINY, same_bits, table

OWN = [word for word in TINY if not word.startswith(("trainer.epochs", "trainer.compact"))]
WORDS = [
    *OWN, "model.depth=1", "model.width=24", "trainer.epochs=6", "trainer.threads=1",
    "regularizer.alpha=1e-4", "optimizer.lr=0.01",
    "target=multiply_adds", "target.share=0.4", "trainer.early_stopping=3",
]  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run with a target that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    assert Forked([*WORDS, "hydra.run.dir=run"], folder=folder).wait().code == 0
    return folder / "run"


def shares(run: Path) -> list[float]:
    return [float(row["target/share"]) for row in table(run / "metrics.csv")]


def test_the_compact_network_meets_the_budget(whole):
    summary = json.loads((whole / "summary.json").read_text())
    content = json.loads((whole / "compact/compact.json").read_text())
    adds = content["multiply_adds"]
    assert 0.98 * 0.4 <= adds["compact"] / adds["dense"] <= 0.4
    assert adds["dense"] == summary["multiply_adds"]
    rows = table(whole / "metrics.csv")
    penalized = [i for i, row in enumerate(rows) if float(row["target/multiplier"]) > 0]
    fixed = penalized[-1] + 1
    assert penalized == [*range(2, fixed)] and fixed <= 4  # from 0.3 to 0.6 of the 6 epochs
    assert summary["best"]["epoch"] > fixed
    for row, share in zip(rows[fixed:], shares(whole)[fixed:], strict=True):
        assert float(row["lam"]) == float(row["train/penalty"]) == 0
        assert share == pytest.approx(adds["compact"] / adds["dense"], rel=1e-12)
        assert float(row["compact/multiply_adds"]) == adds["compact"]
    for index, row in enumerate(rows[:fixed]):
        assert float(row["lam"]) == float(row["target/multiplier"])
        assert (float(row["lam"]) > 0) == (index >= 2)
        assert index >= 2 or float(row["sparsity/exact"]) == 0


def test_the_screen_says_how_it_went(whole):
    log = (whole / "train.log").read_text()
    assert re.search(r"epoch   1/6 .* size \d\.\d{3} -> 0\.4 ", log)
    (line,) = re.findall("^.*target: (.*)$", log, re.M)
    share, alpha = (
        shares(whole)[-1],
        [float(r["target/multiplier"]) for r in table(whole / "metrics.csv")],
    )
    assert line.startswith(f"{share:.4f} of the multiply_adds (0.4 was asked for)")
    used = [1e-4 * a for a in alpha if a]
    assert f"from {used[0]:.2g} to {used[-1]:.2g} in {len(used)} epochs" in line


@pytest.mark.parametrize("saves", [2, 3, 4, 5, 6])
def test_a_stopped_run_goes_on_to_the_same_end(saves, whole, command, tmp_path):
    """Stopped within an epoch, before the channels are fixed and after."""
    prepare = signal_at(signal.SIGINT, "last.pt", saves)
    ended = Forked([*WORDS, "hydra.run.dir=part"], prepare=prepare).wait()
    assert ended.code == 130, ended.err
    assert checkpoints.load(tmp_path / "part/checkpoints/last.pt")["loop"]["batch"] == 1
    assert command("resume=part")[0] == 0
    for name in ("last.pt", "best.pt"):
        states = [
            checkpoints.load(run / "checkpoints" / name) for run in (whole, tmp_path / "part")
        ]
        assert same_bits(*({**state, "config": None} for state in states))
    assert shares(whole) == shares(tmp_path / "part")


@pytest.mark.parametrize("epochs", [4, 10])
def test_a_target_is_planned_anew_for_another_number_of_epochs(epochs, command, tmp_path):
    """Stopped in its second epoch, before the penalty, and resumed shorter or longer."""
    ended = Forked(
        [*WORDS, "hydra.run.dir=part"], prepare=signal_at(signal.SIGINT, "last.pt", 2)
    ).wait()
    assert ended.code == 130, ended.err
    code, _, err = command("resume=part", f"trainer.epochs={epochs}")
    assert code == 0, err
    rows = table(tmp_path / "part/metrics.csv")
    penalized = [i for i, row in enumerate(rows) if float(row["target/multiplier"]) > 0]
    assert len(rows) == epochs
    assert set(penalized) <= {*range(round(0.3 * epochs), round(0.6 * epochs))}
    assert shares(tmp_path / "part")[-1] <= 0.4


def test_a_network_that_became_too_small_is_that_of_the_epoch_before(command, tmp_path):
    """A penalty that removes nearly everything in its second epoch."""
    words = [
        "regularizer.alpha=3e-2",
        "scheduler=constant",
        "target.share=0.6",
        "target.dense=0",
        "optimizer.lr=5e-3",
    ]
    code, _, err = command(*WORDS, *words, "hydra.run.dir=run")
    assert code == 0, err
    found = shares(tmp_path / "run")
    assert min(found[:2]) < 0.98 * 0.6  # it was too small before the channels were fixed
    assert all(0.98 * 0.6 <= share <= 0.6 for share in found[-3:])


def test_parameters_are_a_target_too(command, tmp_path):
    words = ["target=parameters", "target.share=0.3", "hydra.run.dir=run"]
    code, _, err = command(*WORDS, *words)
    assert code == 0, err
    sizes = json.loads((tmp_path / "run/compact/compact.json").read_text())["parameters"]
    assert 0.98 * 0.3 <= sizes["compact"] / sizes["dense"] <= 0.3


def test_a_budget_may_be_a_number(command, tmp_path):
    words = ["target=parameters", "target.limit=2000", "hydra.run.dir=run"]
    code, out, err = command(*WORDS, *words)
    assert code == 0, err
    sizes = json.loads((tmp_path / "run/compact/compact.json").read_text())["parameters"]
    assert 0.98 * 2000 <= sizes["compact"] <= 2000
    assert "(2000 in all was asked for)" in out


SCOPES = {
    "network slimming": ["regularizer=l1", "{name: '*.weight', types: [BatchNorm2d]}"],
    "every second convolution left out": [
        "regularizer=group_l1",
        "{name: '*.3.weight', penalize: false}, {kernels: true}",
    ],
}


@pytest.mark.parametrize("kind", SCOPES)
def test_channels_that_are_gone_stay_gone_whatever_is_penalized(kind, command, tmp_path):
    """Kernels that the scope leaves out are held at zero too, also by a run that goes on."""
    regularizer, rule = SCOPES[kind]
    scope = f"regularizer.scope=[{rule}, {{name: '*', penalize: false}}]"
    words = [*WORDS, regularizer, scope, "regularizer.cost=none", "trainer.early_stopping=null"]
    if "slimming" in kind:
        words.append("regularizer.alpha=1e-3")
    ended = Forked(
        [*words, "hydra.run.dir=run"],
        folder=tmp_path,
        prepare=signal_at(signal.SIGINT, "last.pt", 5),
    ).wait()
    assert ended.code == 130, ended.err
    assert command("resume=run")[0] == 0
    run = tmp_path / "run"
    adds = json.loads((run / "compact/compact.json").read_text())["multiply_adds"]
    assert adds["compact"] <= 0.4 * adds["dense"]
    assert max(shares(run)[4:]) <= 0.4 and shares(run)[-1] == adds["compact"] / adds["dense"]


@pytest.mark.parametrize("more", [[], ["regularizer=mcp"], ["regularizer.solver=dual_averaging"]])
def test_a_share_of_zeros_is_met_and_kept(more, command, tmp_path):
    words = ["target=nonzeros", "target.share=0.1", *more, "hydra.run.dir=run"]
    code, out, err = command(*WORDS, *words)
    assert code == 0, err
    rows = table(tmp_path / "run/metrics.csv")
    for row in rows:
        assert float(row["sparsity/exact"]) == pytest.approx(1 - float(row["target/share"]))
    fixed = [row for row in rows if float(row["target/multiplier"]) == 0][2:]
    assert fixed and all(0.098 <= float(row["target/share"]) <= 0.1 for row in fixed)
    assert len({row["target/share"] for row in fixed}) == 1
    assert f"target: {float(fixed[-1]['target/share']):.4f} of the nonzeros (0.1 was" in out


class Clock(NetworkTimer):
    """Counts multiply-adds, and a third of those of the largest network for whatever it does."""

    def ms(self, **_):
        sizes = {key: multiply_adds(net, self._example) for key, net in self._networks.items()}
        return {key: size + max(sizes.values()) / 3 for key, size in sizes.items()}

    def beside(self, key, network):
        return Clock({**self._networks, key: network}, self._example)


def test_a_latency_is_met_as_it_was_measured(command, tmp_path, monkeypatch):
    monkeypatch.setattr(latency_model, "NetworkTimer", Clock)
    words = ["target=latency_ms", "target.share=0.7", "target.runtime=torch", "hydra.run.dir=run"]
    code, _, err = command(*WORDS, *words)
    assert code == 0, err
    found = shares(tmp_path / "run")
    assert found[0] == 1 and max(found[-2:]) <= 0.7
    adds = json.loads((tmp_path / "run/compact/compact.json").read_text())["multiply_adds"]
    assert adds["compact"] < adds["dense"]
    state = checkpoints.load(tmp_path / "run/checkpoints/last.pt")["loop"]["target"]
    assert state["measured"]["points"][adds["compact"]] / state["measured"]["dense"] == found[-1]


def test_a_target_brings_a_regularizer_which_can_be_given_anew():
    config = compose_plain(["target=parameters"])["regularizer"]
    assert (config["name"], config["cost"], config["cost_power"]) == ("group_l1", "parameters", 0.5)
    config = compose_plain(["target=parameters", "regularizer=l1", "regularizer.cost=none"])
    assert (config["regularizer"]["name"], config["regularizer"]["cost"]) == ("l1", "none")
    plain = compose_plain(["regularizer=l1"])["regularizer"]
    assert (plain["name"], plain["cost"], plain["schedule_start"]) == ("l1", "none", 0)


def test_the_default_job_has_costs_and_begins_its_penalty_late():
    default = compose_plain(["trainer.epochs=40"])["regularizer"]
    assert (default["name"], default["cost"]) == ("cost_group_l1", "multiply_adds")
    assert default["schedule_start"] == 12


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["target.share=0.001"], "give a larger one"),
        (["target.share=1"], "below 1"),
        (["regularizer=l2"], "makes no weights exactly zero"),
        (["regularizer=none"], "makes no weights exactly zero"),
        (["regularizer=bridge"], "makes no weights exactly zero"),
        (["regularizer=l1", "regularizer.solver=factorized"], "cannot steer the solver factorized"),
        (["target.penalized=0.99"], "no epoch is left"),
        (["target=flops"], "multiply_adds"),
        (["target.limit=10"], "give a larger one"),
        (["target=nonzeros", "target.limit=3"], "give a larger one"),
        (["target=nonzeros", "regularizer=l2"], "makes no weights exactly zero"),
        (["target.limit=1e12"], "give a smaller one"),
        (["regularizer.schedule_start=1"], "give regularizer.schedule_start=0"),
        (["regularizer=cost_group_l1"], "give regularizer.schedule_start=0"),
    ],
)
def test_what_cannot_be_is_refused_at_once(words, expected, command, tmp_path):
    code, _, err = command(*WORDS, *words)
    assert code == 2 and expected in err and err.count("\n") == 1, err
    assert not [*tmp_path.glob("outputs/*")]


def test_keys_of_a_target_need_one(command):
    code, _, err = command(*OWN, "target.share=0.25")
    assert (code, err.count("\n")) == (2, 1)
    assert "target.share: there is no target; give target=multiply_adds, parameters," in err
    check_overrides(*parse([*OWN, "target.share=0.25", "target=none"]))
    check_overrides(*parse(["-m", *OWN, "target.share=0.25,0.5", "target=none,parameters"]))
