from __future__ import annotations

import pytest
from torch import nn

from seg_l1.errors import UserError
from seg_l1.models.unet import UNet
from seg_l1.scope import DEFAULT_RULES, Rule, scope


class Tied(nn.Module):
    """Two layers that share one weight, and one that is frozen."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.frozen = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.frozen.requires_grad_(False)


def test_default_rules_take_weights_of_convolutions_and_nothing_else():
    net = UNet(3, 5, width=4, depth=2)
    entries = scope(net)
    assert {id(e.tensor) for e in entries} == {id(p) for p in net.parameters()}
    for entry in entries:
        owner = net.get_submodule(entry.name.rpartition(".")[0])
        is_weight = entry.name.endswith("weight")
        layer = isinstance(owner, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        assert entry.penalized == (is_weight and layer), entry.name


def test_output_channels_come_first_also_for_transposed_convolutions():
    net = nn.Sequential(nn.Conv2d(3, 7, 3), nn.ConvTranspose2d(7, 5, 2))
    shapes = [tuple(e.groups_first.shape) for e in scope(net) if e.penalized]
    assert shapes == [(7, 3, 3, 3), (5, 7, 2, 2)]


def test_first_match_wins_and_the_factor_is_kept():
    rules = (Rule(name="0.*", penalize=False), Rule(name="*weight", factor=2.0), Rule("*"))
    entries = scope(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)), rules)
    assert [(e.name, e.rule, e.penalized, e.factor) for e in entries] == [
        ("0.weight", 0, False, 1.0),
        ("0.bias", 0, False, 1.0),
        ("1.weight", 1, True, 2.0),
        ("1.bias", 2, True, 1.0),
    ]


def test_base_classes_count_as_types():
    class Special(nn.Conv2d):
        pass

    assert [e.penalized for e in scope(nn.Sequential(Special(1, 1, 1)))] == [True, False]


def test_tied_weights_count_once_and_frozen_ones_not_at_all():
    assert [e.name for e in scope(Tied())] == ["first.weight", "first.bias", "second.bias"]


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ((*DEFAULT_RULES, Rule(name="haed.*")), "rule 2"),
        ((Rule(), *DEFAULT_RULES), "rule 1"),
        (DEFAULT_RULES[:1], "no rule covers the tensor '0.bias'"),
    ],
    ids=["matches nothing", "shadowed", "uncovered"],
)
def test_a_rule_without_effect_and_a_tensor_without_rule_are_errors(rules, words):
    with pytest.raises(UserError, match=words):
        scope(nn.Sequential(nn.Conv2d(1, 1, 1)), rules)
