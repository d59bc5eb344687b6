"""`regularizer.cost`: what a weight costs is what compaction saves when it is zero."""

from __future__ import annotations

import csv

import pytest
import torch
from torch import nn

from seg_l1.cli.main import main
from seg_l1.compaction import compact
from seg_l1.compaction.costs import cost_factors
from seg_l1.config.compose import compose_plain
from seg_l1.errors import UserError
from seg_l1.metrics.sparsity import multiply_adds
from seg_l1.models.smp import SMP
from seg_l1.models.unet import UNet
from seg_l1.scope import Rule, scope
from seg_l1.training.build import build
from seg_l1.training.data import load_data
from tests.support.runs import TINY

MEASURES = {
    "multiply_adds": multiply_adds,
    "parameters": lambda model, x: sum(p.numel() for p in model.parameters()),
}


class Residual(nn.Module):
    """Two layers whose outputs are added, a depthwise one, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.second = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.strided = nn.Conv2d(6, 4, 2, stride=2, bias=False)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.first(x)
        x = (x + self.second(x)).relu()
        x = self.strided(self.depthwise(x).relu())
        return self.head(x.mean((2, 3)))


def unet(**more):
    return UNet(3, 4, width=4, depth=2, norm="none", **more)


@torch.no_grad()
def saved(make, names, measure, x):
    """What compaction saves when channel 0 of the tensors `names` is 0, measured."""
    model = make().eval()
    for module in model.modules():
        if getattr(module, "bias", None) is not None:
            module.bias.zero_()
    before = measure(model, x)
    entries = {scoped.name: scoped for scoped in scope(model)}
    for name in names:
        entries[name].groups_first[0] = 0
    return before - measure(compact(model, x).model, x)


@pytest.mark.parametrize("cost", MEASURES)
def test_a_group_costs_what_compaction_saves_without_it(cost):
    x, model = torch.randn(1, 3, 20, 28), unet()
    entries = scope(model)
    factors = cost_factors(model, x, entries, cost=cost, grouped=True)
    weights = {e.name: e for e in entries if e.penalized}
    omega = {e.name: f for e, f in zip(entries, factors, strict=True)}
    savings = {}
    for name, entry in weights.items():
        if name != "head.weight":  # a class cannot go
            group = entry.groups_first[0].numel()
            savings[name] = saved(unet, [name], MEASURES[cost], x) / group
    scale = omega["up.0.weight"] / savings["up.0.weight"]
    for name, saving in savings.items():
        assert omega[name] == pytest.approx(scale * saving, rel=1e-12), name
    if cost == "parameters":
        assert omega["head.weight"] == pytest.approx(scale)
    else:
        assert omega["head.weight"] == pytest.approx(scale * 20 * 28)


@pytest.mark.parametrize("cost", MEASURES)
def test_layers_that_an_addition_ties_save_together(cost):
    x, model = torch.randn(1, 3, 8, 8), Residual()
    entries = scope(model)
    factors = cost_factors(model, x, entries, cost=cost, grouped=True)
    omega = {e.name: f for e, f in zip(entries, factors, strict=True)}
    tied = ["first.weight", "second.weight"]
    both = saved(Residual, tied, MEASURES[cost], x)
    alone = saved(Residual, ["strided.weight"], MEASURES[cost], x)
    for name, weights in (("first.weight", 27), ("second.weight", 54)):
        expected = (both / weights) / (alone / 24)
        assert omega[name] / omega["strided.weight"] == pytest.approx(expected)


@pytest.mark.parametrize(
    "make", [unet, Residual, lambda: SMP(3, 4, arch="Unet", encoder="resnet18", options={})]
)
def test_a_weight_costs_the_multiply_adds_of_its_layer_divided_by_its_weights(make):
    x, model = torch.randn(1, 3, 32, 32), make()
    entries = scope(model)
    factors = cost_factors(model, x, entries, cost="multiply_adds")
    total = multiply_adds(model, x)
    penalized = [(e, f) for e, f in zip(entries, factors, strict=True) if e.penalized]
    weights = sum(e.tensor.numel() for e, _ in penalized)
    assert sum(e.tensor.numel() * f for e, f in penalized) == pytest.approx(weights)
    # all multiply-adds are those of penalized weights, so that the mean cost is total/weights
    name, factor = next((e.name, f) for e, f in penalized)
    layer = dict(model.named_modules())[name.removesuffix(".weight")]
    uses = {}
    layer.register_forward_hook(lambda m, i, o: uses.update(count=o[0, 0].numel()))
    model.eval()(x)
    assert factor == pytest.approx(uses["count"] * weights / total)


def test_the_power_and_equal_costs():
    x, model = torch.randn(1, 3, 16, 16), unet()
    entries = scope(model)
    plain, root, flat = (
        cost_factors(model, x, entries, cost="multiply_adds", power=power) for power in (1, 0.5, 0)
    )
    ratios = {
        e.name: r / p**0.5 for e, p, r in zip(entries, plain, root, strict=True) if e.penalized
    }
    assert max(ratios.values()) == pytest.approx(min(ratios.values()))
    assert flat == pytest.approx([1.0] * len(entries))
    assert cost_factors(model, x, entries, cost="parameters") == pytest.approx([1.0] * len(entries))


def test_a_scale_of_a_norm_layer_costs_its_channel():
    x, model = torch.randn(1, 3, 16, 16), UNet(3, 4, width=4, depth=1)
    rules = (Rule("*weight", types=("_NormBase",)), Rule(penalize=False))
    entries = scope(model, rules)
    factors = cost_factors(model, x, entries, cost="multiply_adds")
    scales = [f for e, f in zip(entries, factors, strict=True) if e.penalized]
    kernels = scope(model)
    grouped = cost_factors(model, x, kernels, cost="multiply_adds", grouped=True)
    # the channels of the convolutions before them, whose saving is ω times the weights of a group
    channels = [
        f * e.tensor[0].numel()
        for e, f in zip(kernels, grouped, strict=True)
        if e.penalized and e.name.startswith(("down", "merge"))
    ]
    ratios = [s / c for s, c in zip(scales, channels, strict=True)]
    assert max(ratios) == pytest.approx(min(ratios))


def test_a_tensor_of_unknown_cost_keeps_its_factor():
    class Computed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.weight = nn.Parameter(torch.randn(4, 4))

        def forward(self, x):
            return torch.einsum("ij,njhw->nihw", self.weight, self.conv(x))

    model, x = Computed(), torch.randn(1, 3, 8, 8)
    entries = scope(model, (Rule("*weight"), Rule(penalize=False)))
    factors = dict(
        zip(
            [entry.name for entry in entries],
            cost_factors(model, x, entries, cost="multiply_adds"),
            strict=True,
        )
    )
    assert factors["weight"] == 1 and factors["conv.weight"] == pytest.approx(1)


def test_a_network_that_cannot_be_captured_is_refused():
    x = torch.randn(1, 3, 8, 8)

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.conv(x) if float(x.sum()) > 0 else x

    model = Loop()
    with pytest.raises(UserError, match=r"cannot capture.*cost=none"):
        cost_factors(model, x, scope(model), cost="multiply_adds")


def test_a_run_penalizes_with_the_factors():
    words = ["regularizer=l1", "regularizer.cost=multiply_adds", "regularizer.scope.0.factor=2"]
    words[-1] = "regularizer.scope=[{kernels: true, factor: 2.0}, {penalize: false}]"
    config = compose_plain([*TINY, *words])
    tensors = build(config, load_data(config)).loop.tensors
    first, last = tensors[0], next(e for e in tensors if e.name == "head.weight")
    assert first.factor == pytest.approx(last.factor)  # both at full resolution
    sizes = [e.tensor.numel() for e in tensors if e.penalized]
    mean = sum(e.factor * e.tensor.numel() for e in tensors if e.penalized) / sum(sizes)
    assert mean == pytest.approx(2)
    none = compose_plain([*TINY, "regularizer=none", "regularizer.cost=multiply_adds"])
    assert all(e.factor == 1 for e in build(none, load_data(none)).loop.tensors)


@pytest.mark.slow
def test_scope_csv_of_a_run_and_of_its_compact_network_have_the_factors(command, tmp_path):
    words = [*TINY, "regularizer=group_l1", "regularizer.alpha=1e-2", "trainer.compact=true"]
    code, _, err = command(*words, "regularizer.cost=multiply_adds", "hydra.run.dir=run")
    assert code == 0, err
    tables = []
    for folder in ("run", "run/compact"):
        with open(tmp_path / folder / "scope.csv") as file:
            tables.append({row["tensor"]: float(row["factor"]) for row in csv.DictReader(file)})
    assert tables[0].items() <= tables[1].items()
    assert len({*tables[0].values()}) > 3
    assert main(["evaluate", "run=run/compact"]) == 0
