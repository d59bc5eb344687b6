from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn
from torch.nn.functional import cross_entropy, l1_loss, log_softmax

from seg_l1 import penalties
from seg_l1.config.compose import compose_plain
from seg_l1.config.folders import CONF
from seg_l1.data.class_weights import class_weights
from seg_l1.losses import (
    CrossEntropy,
    CrossEntropyDice,
    Dice,
    Focal,
    Lovasz,
    MeanAbsoluteError,
    RegularizedLoss,
    Tversky,
    data_term,
)
from seg_l1.scope import Rule, scope
from seg_l1.training.instantiate import instantiate

OPTIONS = sorted(path.stem for path in (CONF / "loss").glob("*.yaml"))
LOSSES = [
    instantiate("loss", compose_plain([f"loss={name}", "dataset.class_weights=null"])["loss"])
    for name in OPTIONS
]
LOSSES += [CrossEntropy([1, 2, 3, 4]), Focal([1, 2, 3, 4], gamma=0.5)]
LOSSES += [MeanAbsoluteError([1, 2, 3, 4])]


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


@pytest.mark.parametrize("loss", LOSSES)
def test_unlabelled_pixels_count_in_no_loss(loss, batch):
    logits, target = batch
    changed = logits.detach().clone()
    changed[0, :, :2] += 10 * torch.randn(4, 2, 6, dtype=torch.float64)
    value = loss(logits, target)
    value.backward()
    torch.testing.assert_close(value, loss(changed, target))
    assert logits.grad[0, :, :2].abs().sum() == 0
    assert (logits.grad.abs().sum(1) > 0)[target != 255].all()


@pytest.mark.parametrize("loss", LOSSES)
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


@pytest.mark.parametrize("loss", [*LOSSES, CrossEntropyDice([1, 2, 3, 4])])
def test_gradients_are_right(loss, batch):
    logits, target = batch
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_finite_where_the_network_is_certain(loss):
    target = torch.randint(0, 4, (1, 3, 4))
    sure = 300.0 * nn.functional.one_hot(target, 4).movedim(-1, 1)
    for logits in (sure, -sure):
        logits = logits.clone().requires_grad_()
        value = loss(logits, target)
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_of_two_classes_is_that_of_torchvision(gamma):
    from torchvision.ops import sigmoid_focal_loss

    logits, target = torch.randn(3, 2, 4, 5).double(), torch.randint(0, 2, (3, 4, 5))
    margin = logits[:, 1] - logits[:, 0]
    expected = sigmoid_focal_loss(margin, target.double(), alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(Focal(gamma=gamma)(logits, target), expected)
    expected = sigmoid_focal_loss(
        margin, target.double(), alpha=0.25, gamma=gamma, reduction="mean"
    )
    torch.testing.assert_close(Focal([0.75, 0.25], gamma)(logits, target), expected)


def test_focal_is_that_of_smp(batch):
    from segmentation_models_pytorch.losses._functional import softmax_focal_loss_with_logits

    logits, target = batch[0].detach(), batch[1]
    per_pixel = softmax_focal_loss_with_logits(
        logits, target.where(target != 255, 0), gamma=2.0, reduction="none"
    )
    expected = per_pixel[target != 255].mean()
    torch.testing.assert_close(Focal()(logits, target), expected)


def test_focal_with_gamma_0_is_weighted_cross_entropy(batch):
    weights = [0.5, 1.0, 2.0, 0.0]
    torch.testing.assert_close(Focal(weights, gamma=0)(*batch), CrossEntropy(weights)(*batch))


def test_mae_is_k_times_the_l1_loss_of_torch(batch):
    logits, target = batch
    valid = target != 255
    scores, truth = logits.softmax(1).movedim(1, -1)[valid], target[valid]
    expected = 4 * l1_loss(scores, nn.functional.one_hot(truth, 4).double())
    torch.testing.assert_close(MeanAbsoluteError()(logits, target), expected)
    weights = torch.tensor([0.5, 1.0, 2.0, 0.0], dtype=torch.float64)
    per_pixel = l1_loss(scores, nn.functional.one_hot(truth, 4).double(), reduction="none").sum(1)
    weighted = MeanAbsoluteError(weights.tolist())(logits, target)
    torch.testing.assert_close(weighted, (weights[truth] * per_pixel).mean())


@given(
    logits=hnp.arrays(
        "float64",
        st.tuples(st.integers(2, 9)),
        elements=st.floats(-1e3, 1e3, allow_subnormal=False),
    ),
)
def test_mae_of_all_labels_of_a_pixel_is_a_constant(logits):
    """The symmetry of Ghosh, Kumar, Sastry (2017): Σ_k ℓ(f, k) = 2K − 2 for every f."""
    pixel, classes = torch.from_numpy(logits).view(1, -1, 1, 1), len(logits)
    losses = [
        MeanAbsoluteError()(pixel, torch.full((1, 1, 1), label)).item() for label in range(classes)
    ]
    assert sum(losses) == pytest.approx(2 * classes - 2)
    assert all(0 <= loss <= 2 for loss in losses)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_few_bits_have_the_loss_of_their_values_in_float32(loss, dtype, batch):
    logits, target = (20 * batch[0].detach()).to(dtype).requires_grad_(), batch[1]
    value = data_term(loss, logits, target)
    value.backward()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(logits.detach().float(), target))
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("classes", [2, 4, 7])
def test_lovasz_and_its_gradient_are_those_of_smp(classes, batch):
    from segmentation_models_pytorch.losses import LovaszLoss

    target = batch[1].where(batch[1] < min(classes, 3), 255)  # class 3 and more are absent
    logits = torch.randn(2, classes, 5, 6, requires_grad=True)
    values = [Lovasz()(logits, target), LovaszLoss("multiclass", ignore_index=255)(logits, target)]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in values))


def test_lovasz_of_hard_predictions_is_one_minus_the_miou(batch):
    _, target = batch
    valid, answer = target != 255, torch.randint(0, 4, target.shape)
    logits = 200.0 * nn.functional.one_hot(answer, 4).movedim(-1, 1).double()
    iou = []
    for label in target[valid].unique():
        mine, true = (answer == label) & valid, (target == label) & valid
        iou.append((mine & true).sum() / (mine | true).sum())
    assert Lovasz()(logits, target).item() == pytest.approx(1 - float(torch.stack(iou).mean()))


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.7), (0.5, 0.5), (1.0, 1.0), (0.0, 1.0)])
def test_tversky_is_that_of_smp(a, b, batch):
    from segmentation_models_pytorch.losses import TverskyLoss

    logits, target = batch
    target.view(-1)[-4:] = torch.arange(4)  # its mean is over all classes, ours over those present
    theirs = TverskyLoss("multiclass", alpha=a, beta=b, smooth=1.0, ignore_index=255)
    torch.testing.assert_close(Tversky(a, b)(logits, target), theirs(logits, target))


def test_tversky_with_equal_prices_is_dice(batch):
    torch.testing.assert_close(Tversky(0.5, 0.5, smooth=0.5)(*batch), Dice(smooth=1.0)(*batch))


def test_absent_classes_do_not_count_in_overlap_losses(batch):
    target = batch[1].where(batch[1] != 2, 255)
    for loss in (Dice(smooth=0), Tversky(smooth=0), Lovasz()):
        right = 300.0 * nn.functional.one_hot(target.where(target != 255, 0), 4).movedim(-1, 1)
        assert loss(right, target).item() == pytest.approx(0)
        assert loss(-right, target).item() == pytest.approx(1)


def test_inverse_weights_give_every_class_the_same_say_and_keep_the_unit():
    shares = [0.85, 0.1, 0.0, 0.05]
    weights = class_weights("inverse", shares, shares)
    says = [share * weight for share, weight in zip(shares, weights, strict=True)]
    assert says == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
    assert weights[2] == 0


def test_median_weights_are_those_of_eigen_and_fergus():
    # two images of 10 pixels: classes 0 and 1 share the first as 8:2, 0 and 2 the second as 5:5
    weights = class_weights("median", [13 / 20, 2 / 20, 5 / 20, 0], [13 / 20, 2 / 10, 5 / 10, 0])
    assert weights == pytest.approx([0.5 / 0.65, 0.5 / 0.2, 1.0, 0])


@pytest.mark.parametrize("kind", ["inverse", "median"])
def test_class_weights_of_nothing_labelled_are_zero(kind):
    assert class_weights(kind, [0.0, 0.0], [0.0, 0.0]) == [0.0, 0.0]


def test_unknown_class_weights_are_refused():
    with pytest.raises(ValueError, match="inverse or median"):
        class_weights("inverted", [1.0], [1.0])


def test_regularized_loss_reports_the_terms_of_the_objective(batch):
    logits, target = batch
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1))
    tensors = scope(net, (Rule("0.weight", factor=2.0), Rule("1.weight"), Rule(penalize=False)))
    terms = RegularizedLoss(CrossEntropy(), penalties.L1(), tensors)(logits, target, 0.1)
    r = 2 * net[0].weight.abs().sum() + net[1].weight.abs().sum()
    assert terms.penalty.item() == pytest.approx(0.1 * r.item(), rel=1e-6)
    assert terms.total.item() == pytest.approx(terms.data.item() + terms.penalty.item())


@pytest.mark.parametrize("kind", [Tversky, Lovasz])
def test_class_weights_weigh_the_mean_over_classes(kind, batch):
    """A loss that counts one class alone, for each class, says what the weighted mean is."""
    logits, target = batch
    weights = [0.5, 2.0, 0.0, 3.0]
    alone = [kind(class_weights=torch.eye(4)[k].tolist())(logits, target) for k in range(4)]
    expected = sum(w * one for w, one in zip(weights, alone, strict=True)) / sum(weights)
    torch.testing.assert_close(kind(class_weights=weights)(logits, target), expected)
    torch.testing.assert_close(
        kind(class_weights=[2.0] * 4)(logits, target), kind()(logits, target)
    )


@pytest.mark.parametrize("kind", [CrossEntropy, Focal, MeanAbsoluteError, Tversky, Lovasz])
def test_weights_that_are_all_zero_are_refused(kind):
    with pytest.raises(ValueError, match="all are 0"):
        kind(class_weights=[0.0, 0.0])


def test_mistakes_must_have_a_cost():
    with pytest.raises(ValueError, match="cost"):
        Tversky(fp_weight=0, fn_weight=0)
