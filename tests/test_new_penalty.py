"""A penalty is three places: a class, an option in `conf/regularizer`, a row of the table of tests.

Here a made-up one has a hyperparameter of its own that no file of this project knows. Its class
and its option lie in a folder of the user's; it is swept and reported like any other.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seg_l1.cli.main import main
from seg_l1.config.compose import compose_plain
from seg_l1.config.folders import CONF
from seg_l1.config.hyperparameters import options
from seg_l1.config.words import parse
from seg_l1.experiments.planning import plan
from seg_l1.report.plots.common import looks
from seg_l1.report.reading import collect
from seg_l1.report.runs import curves
from seg_l1.runs.directory import RunDirectory
from tests.support.penalties import TABLE
from tests.support.runs import TINY, table
from tests.test_prox import drawn, lowest_neighbour

CLASS = '''
from dataclasses import dataclass

import torch

from seg_l1.penalties import POSITIVE, Hyperparameters, number


@dataclass(frozen=True)
class Huber(Hyperparameters):
    """R(w) = Σ h(w), h(w) = w²/(2·tau) up to |w| = tau, then |w| − tau/2 (Huber, 1964)."""

    tau: float = number(0.3, *POSITIVE)

    def value(self, w):
        size = w.float() if w.dtype == torch.float16 else w
        size = size.abs()
        square = size.square() / (2 * self.tau)
        return torch.where(size <= self.tau, square, size - self.tau / 2).sum()

    def prox(self, w, step, *, out=None):
        step = torch.as_tensor(step, dtype=w.dtype)
        near = w * self.tau / (self.tau + step)
        result = torch.where(w.abs() <= self.tau + step, near, w - step * w.sign())
        return result if out is None else out.copy_(result)

    def distance(self, w, gradient, strength):
        return (gradient + strength * (w / self.tau).clamp(-1, 1)).abs()
'''

OPTION = """
# Huber: L2 near zero, L1 far from it
defaults:
  - _base
  - _self_
name: huber
tau: 0.3                # where L2 goes over into L1
penalty:
  _target_: made_up.Huber
  tau: ${regularizer.tau}
"""


def row():
    """The third place: R(w) by hand for w = (-3, 0, 4), and objects to prove."""
    from made_up import Huber

    return (3 - 0.15) + (4 - 0.15), [Huber(), Huber(1.5)]


PLACES = {"made_up.py": CLASS, "mine/regularizer/huber.yaml": OPTION, "the table": row}


@pytest.fixture
def mine(tmp_path, monkeypatch) -> Path:
    """The user's folder for `--config-dir`; the class beside it can be imported."""
    assert len(PLACES) == 3
    for place, content in PLACES.items():
        if isinstance(content, str):
            file = tmp_path / place
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content.lstrip(), "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "mine"


SWEEP = ["regularizer=l1,huber", "regularizer.tau=0.1,0.3", "regularizer.alpha=1e-5,1e-4"]


def planned(mine, *words):
    return plan(*parse(["-m", "-cd", str(mine), *TINY, *words]))


def test_the_row_proves_it(mine):
    expected, penalties = row()
    first = penalties[0].value(torch.tensor([-3.0, 0.0, 4.0]))
    assert float(first) == pytest.approx(expected)
    for penalty in penalties:
        w = drawn((6, 2))
        assert lowest_neighbour(penalty, w, 0.3, penalty.prox(w, 0.3)) <= 1e-13
        assert float(penalty.distance(w, -0.1 * (w / penalty.tau).clamp(-1, 1), 0.1).max()) < 1e-15


@pytest.mark.slow
def test_its_hyperparameter_is_a_key_of_every_regularizer(mine, command):
    jobs, configs = planned(mine, *SWEEP)
    assert len(jobs) == 8
    assert {config["regularizer"]["tau"] for config in configs} == {0.1, 0.3}
    assert "tau" not in compose_plain(["regularizer=mcp"])["regularizer"]  # without that folder
    code, _, err = command("regularizer=l1", "regularizer.tau=0.1")
    assert (code, "regularizer.tau" in err) == (2, True)


def test_a_sweep_trains_each_run_once(mine):
    jobs, _ = planned(mine, *SWEEP)
    assert [job.same_as for job in jobs] == [None, None, 0, 1, None, None, None, None]


@pytest.mark.slow
def test_each_hyperparameter_counts_for_its_own_penalties_alone():
    """The same of every penalty of the table, and of every hyperparameter that conf/ has."""
    for option in options(CONF):
        for name, default in option.defaults.items():
            fields = [
                value for p in TABLE[option.name][1] if (value := getattr(p, name)) != default
            ]
            values = f"regularizer.{name}={default},{fields[0]}"
            jobs, _ = plan(*parse(["-m", "regularizer=none," + option.name, values]))
            assert [job.same_as for job in jobs] == [None, 0, None, None], name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["regularizer.tau=-1"], "regularizer.tau: got -1, expected a number above 0"),
        (["regularizer=huber", "regularizer.tau=x"], "regularizer.tau: got 'x', expected a number"),
        (["regularizer=huber", "regularizer.penalty.tau=0"], "regularizer.penalty.tau: got 0"),
        (["regularizer.tua=1"], "Did you mean 'regularizer.tau'?"),
        (["regularizer=hubert"], "Did you mean 'huber'?"),
    ],
)
def test_a_wrong_value_is_named_before_anything_runs(words, message, mine, command, tmp_path):
    code, _, err = command("-cd", str(mine), *words)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
    assert not (tmp_path / "outputs").exists()


def test_a_key_that_no_penalty_takes_is_refused(mine, command):
    (mine / "regularizer" / "huber.yaml").write_text(OPTION.lstrip() + "tua: 1\n", "utf-8")
    code, _, err = command("-cd", str(mine), "regularizer=huber")
    assert (code, err) == (
        2, "error: regularizer.tua: nothing reads this key. Did you mean 'regularizer.tau'?\n"
    )  # fmt: skip


@pytest.mark.slow
def test_it_is_swept_reported_and_resumed(mine, command, tmp_path, monkeypatch):
    """Exactly the distinct runs are trained, no curve is split, and each is drawn in its way."""
    small = [*TINY, "trainer.kkt_every=null", "hydra.sweep.dir=it"]
    code, _, err = command("-m", "-cd", str(mine), *small, "regularizer=none,l1,huber", *SWEEP[1:])
    assert (code, err) == (0, "")
    rows = table(tmp_path / "it" / "sweep.csv")
    assert len(rows) == 12
    assert {row["status"] for row in rows} == {"completed"}
    trained = [path for path in (tmp_path / "it").iterdir() if path.is_dir()]
    assert len(trained) == 1 + 2 + 4

    found = collect([tmp_path / "it"])
    assert len(found.runs) == 7
    assert (found.repeats, found.notes) == ([], [])
    drawn_curves = curves(found.runs)
    sizes = {curve.label: len(curve.configurations) for curve in drawn_curves}
    assert sizes == {"none": 1, "l1": 2, "huber, tau=0.1": 2, "huber, tau=0.3": 2}
    drawn = looks(drawn_curves).values()
    assert len({(look.color, look.marker) for look in drawn}) == 3
    assert len({(look.color, look.marker, look.line) for look in drawn}) == 4

    monkeypatch.setenv("SEG_L1_TRUST", "1")
    for name in ("none", "huber"):
        path = next(path for path in sorted(trained) if name in path.name)
        assert command(f"resume={path}", "trainer.epochs=3")[0] == 0


@pytest.mark.slow
def test_a_path_and_a_search_choose_its_strength(mine, tmp_path, monkeypatch, capsys):
    """Both take the folder, keep it absolute, and go on from another place."""
    monkeypatch.chdir(tmp_path)
    small = [*TINY, "trainer.kkt_every=null", "regularizer=huber", "regularizer.tau=0.2"]
    folder = f"--config-dir={mine}"

    words = [*small, "path.alphas=[1e-4,1e-5]", "path.folder=p", "path.folds=2"]
    assert main(["path", "-cd", "mine", *words]) == 0
    assert len(table(tmp_path / "p" / "path.csv")) == 4
    assert RunDirectory(tmp_path / "p/refit").read_overrides()[0] == folder
    config = RunDirectory(tmp_path / "p/fold0/00_alpha-0.0001").read_config()
    assert config["regularizer"]["penalty"] == {"_target_": "made_up.Huber", "tau": 0.2}
    capsys.readouterr()
    assert main(["path", folder, *words]) == 0
    assert "training" not in capsys.readouterr().out

    space = ["regularizer.alpha=log(1e-6,1e-4)", "trials=1"]
    assert main(["search", "--config-dir", "mine", *small, *space, "study=s"]) == 0
    assert f"{folder} " in capsys.readouterr().out
    (trial,) = [path for path in (tmp_path / "s").iterdir() if path.is_dir()]
    assert RunDirectory(trial).read_overrides()[0] == folder
    monkeypatch.setenv("SEG_L1_TRUST", "1")
    (tmp_path / "mine").rename(tmp_path / "moved")
    assert main(["search", "study=s", "trials=2"]) == 2
    assert "--config-dir: there is no folder" in capsys.readouterr().err
    assert main(["search", "study=s", "trials=2", "-cd", "moved"]) == 0
    assert len(table(tmp_path / "s" / "trials.csv")) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config-dir"], "--config-dir/-cd: expected one argument"),
        (["--config-dir=nowhere"], "--config-dir: there is no folder"),
        (["--config-name=x"], "--config-name: there is no such flag"),
    ],
)
def test_flags_of_a_search_that_make_no_sense(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["search", "regularizer.alpha=log(1e-6,1e-4)", *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
