"""An optimizer of one's own is a class, its metric a function; both lie in a folder of the user's.

`train.py` takes their names from the configuration.
"""

from __future__ import annotations

import json

import pytest
import torch

from seg_l1.config.compose import compose_plain
from seg_l1.errors import UserError
from seg_l1.runs.trust import check_targets
from seg_l1.solvers.metric import check_metric, prox_step
from seg_l1.training.optimizer import build_optimizer
from tests.support.runs import TINY, runs

MODULE = '''
import torch


class Scaled(torch.optim.Optimizer):
    """w ← w − lr·g/scale."""

    def __init__(self, params, lr, scale=4.0):
        super().__init__(params, {"lr": lr, "scale": scale})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is not None:
                    w.sub_(w.grad, alpha=group["lr"] / group["scale"])


def metric(optimizer, group, tensor, scaled_lr, count):
    return scaled_lr / group["scale"]


def short(optimizer, group):
    return 1.0


constant = 3
'''
OPTION = """
# steps as short as I like them
_target_: made_up_steps.Scaled
lr: 0.4
scale: 4.0
metric: made_up_steps.metric
"""
SAME = ["optimizer=sgd", "optimizer.momentum=0", "optimizer.lr=0.1"]
"""What the option amounts to."""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The user's folder for `--config-dir`; the module beside it can be imported."""
    (tmp_path / "made_up_steps.py").write_text(MODULE, "utf-8")
    (tmp_path / "mine" / "optimizer").mkdir(parents=True)
    (tmp_path / "mine" / "optimizer" / "scaled.yaml").write_text(OPTION.lstrip(), "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "mine"


def final_weights(path):
    return torch.load(path / "checkpoints" / "last.pt", weights_only=True)["loop"]["model"]


@pytest.mark.slow
def test_a_run_with_an_own_optimizer_and_metric_finds_the_weights_of_sgd(mine, command, tmp_path):
    """The same steps and thresholds; resumed with trust only."""
    common = [*TINY, "regularizer=l1", "regularizer.alpha=1e-2", "trainer.kkt_every=1"]
    words = ["-cd", str(mine), "optimizer=scaled", *common, "hydra.run.dir=own"]
    code, _, err = command(*words)
    assert (code, err) == (0, ""), err
    assert command(*SAME, *common, "hydra.run.dir=sgd")[0] == 0
    own, sgd = (final_weights(tmp_path / name) for name in ("own", "sgd"))
    for name, weights in sgd.items():
        torch.testing.assert_close(own[name], weights, rtol=1e-3, atol=1e-5)
    assert any((weights == 0).any() for name, weights in own.items() if name.endswith("weight"))
    certificate = json.loads((tmp_path / "own" / "summary.json").read_text())["certificate"]
    assert certificate["kkt/mapping"] > 0  # it needs the metric too

    code, _, err = command("resume=own", "trainer.epochs=3")
    assert (code, "SEG_L1_TRUST=1" in err) == (2, True)


def test_a_metric_is_not_called_from_a_file_without_trust(monkeypatch):
    """As torch's own optimizers may be, whose names are known."""
    config = {"optimizer": {"_target_": "torch.optim.SGD", "metric": "made_up_steps.metric"}}
    monkeypatch.delenv("SEG_L1_TRUST", raising=False)
    with pytest.raises(UserError, match=r"config\.yaml: optimizer\.metric calls 'made_up_steps"):
        check_targets(config, "config.yaml")
    check_targets({"optimizer": {**config["optimizer"], "metric": None}}, "config.yaml")


@pytest.mark.slow
def test_an_optimizer_without_its_metric_is_refused_with_the_way(mine, command, tmp_path):
    target = ["optimizer=sgd", "optimizer._target_=made_up_steps.Scaled"]
    taken = [f"~optimizer.{key}" for key in ("momentum", "dampening", "nesterov", "weight_decay")]
    code, _, err = command(*TINY, *target, *taken)
    assert (code, err.count("\n")) == (2, 1)
    assert "the metric of Scaled is not known" in err
    assert "+optimizer.metric=<module>.<function>" in err
    assert not runs(tmp_path)
    followed = [*target, *taken, "+optimizer.metric=made_up_steps.metric"]
    assert command(*TINY, *followed, "trainer.epochs=1")[0] == 0
    assert command(*TINY, *target, *taken, "regularizer.solver=subgradient")[0] == 0


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("made_up_steps.nope", "optimizer.metric: .*nope"),
        ("no_such_module.metric", "optimizer.metric: .*no_such_module.*PYTHONPATH"),
        ("metric", "optimizer.metric: "),
        ("made_up_steps.constant", "optimizer.metric: .*"),
        ("made_up_steps.short", r"must be a function of \(optimizer, group, tensor"),
    ],
)
def test_a_metric_that_is_none_is_named(metric, words, mine):
    model = torch.nn.Linear(2, 2)
    spec = {"_target_": "made_up_steps.Scaled", "lr": 0.1, "metric": metric}
    with pytest.raises(UserError, match=words):
        build_optimizer(spec, model)


def test_a_metric_counts_for_its_optimizer_alone(mine):
    """Jobs of a sweep share a process."""
    spec = {"_target_": "made_up_steps.Scaled", "lr": 0.1}
    model = torch.nn.Linear(2, 2)
    own = build_optimizer({**spec, "metric": "made_up_steps.metric"}, model)
    check_metric(own)
    assert prox_step(own, own.param_groups[0], model.weight, 1.0, 1) == 0.25
    with pytest.raises(TypeError, match="Scaled is not known"):
        check_metric(build_optimizer(spec, model))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("LBFGS", r"optimizer \(LBFGS\): .*optimizer=adam"),
        ("SparseAdam", r"optimizer \(SparseAdam\): .*optimizer=adam"),
    ],
)
def test_an_optimizer_that_the_loop_cannot_step_is_refused(target, words):
    with pytest.raises(UserError, match=words):
        build_optimizer({"_target_": f"torch.optim.{target}", "lr": 0.1}, torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    "word", ["optimizer.lr=1e20", "optimizer.eps=1e20", "optimizer.weight_decay=1e20"]
)
def test_absurd_numbers_are_refused_by_their_limit(word, command):
    code, _, err = command(word)
    key = word.partition("=")[0]
    assert (code, err.count("\n")) == (2, 1)
    assert f"{key}: got 1e+20, expected a number" in err and "below 10000" in err


def test_a_strength_typed_by_its_last_name_is_not_taken_for_the_constant_of_rmsprop(command):
    assert compose_plain(["optimizer=rmsprop"])["optimizer"]["alpha"] == 0.99
    code, _, err = command("optimizer=rmsprop", "alpha=1e-4")
    assert code == 2
    assert "'regularizer.alpha'" in err
