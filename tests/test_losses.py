from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax

from seg_l1 import penalties
from seg_l1.losses import CrossEntropy, CrossEntropyDice, Dice, RegularizedLoss
from seg_l1.scope import Rule, scope


@pytest.fixture
def batch():
    logits = torch.randn(2, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 4, (2, 5, 6))
    target[0, :2] = 255
    return logits, target


def test_cross_entropy_is_a_mean_over_valid_pixels(batch):
    logits, target = batch
    expected = cross_entropy(logits, target, ignore_index=255)
    torch.testing.assert_close(CrossEntropy()(logits, target), expected)


def test_class_weights_do_not_change_the_divisor(batch):
    logits, target = batch
    weights = [0.5, 1.0, 2.0, 0.0]
    valid = target != 255
    picked = -log_softmax(logits, 1).gather(1, target.where(valid, 0)[:, None])[:, 0]
    per_pixel = picked * torch.tensor(weights, dtype=torch.float64)[target.where(valid, 0)]
    expected = per_pixel[valid].sum() / valid.sum()
    torch.testing.assert_close(CrossEntropy(weights)(logits, target), expected)


@pytest.mark.parametrize("loss", [CrossEntropy(), Dice(), CrossEntropyDice()])
def test_unlabelled_pixels_count_in_no_loss(loss, batch):
    logits, target = batch
    changed = logits.detach().clone()
    changed[0, :, :2] += 10 * torch.randn(4, 2, 6, dtype=torch.float64)
    torch.testing.assert_close(loss(logits, target), loss(changed, target))


@pytest.mark.parametrize("loss", [CrossEntropy(), Dice(), CrossEntropyDice()])
def test_a_batch_without_labels_costs_nothing(loss, batch):
    logits, target = batch
    value = loss(logits, torch.full_like(target, 255))
    value.backward()
    assert value.item() == 0
    assert logits.grad.abs().sum() == 0


def test_dice_of_hard_predictions_is_one_minus_the_dice_score(batch):
    _, target = batch
    valid = target != 255
    answer = torch.randint(0, 4, target.shape)
    logits = 200.0 * nn.functional.one_hot(answer, 4).movedim(-1, 1).double()
    dice = []
    for label in target[valid].unique():
        mine, true = (answer == label) & valid, (target == label) & valid
        dice.append((2 * (mine & true).sum() + 1) / (mine.sum() + true.sum() + 1))
    assert Dice()(logits, target).item() == pytest.approx(1 - float(torch.stack(dice).mean()))


def test_gradients_are_right(batch):
    logits, target = batch
    assert torch.autograd.gradcheck(lambda x: CrossEntropyDice([1, 2, 3, 4])(x, target), logits)


def test_regularized_loss_reports_the_terms_of_the_objective(batch):
    logits, target = batch
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    tensors = scope(net, (Rule("0.weight", factor=2.0), Rule("1.weight"), Rule(penalize=False)))
    terms = RegularizedLoss(CrossEntropy(), penalties.L1(), tensors)(logits, target, 0.1)
    r = 2 * net[0].weight.abs().sum() + net[1].weight.abs().sum()
    assert terms.penalty.item() == pytest.approx(0.1 * r.item(), rel=1e-6)
    assert terms.total.item() == pytest.approx(terms.data.item() + terms.penalty.item())
