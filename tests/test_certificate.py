"""The certificate against definitions: 0 at an optimum, the gradient's size elsewhere."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from seg_l1 import penalties
from seg_l1.losses import CrossEntropy
from seg_l1.metrics.optimality import certificate, gradients, mapping_norm
from seg_l1.models.unet import UNet
from seg_l1.scope import Rule, scope
from seg_l1.solvers.proximal import Proximal
from tests.support.oracles import OPTIMIZERS, PROBLEMS, STEPS, Linear, solve


def grad_at(problem, w):
    leaf = w.clone().requires_grad_()
    problem.data(leaf).backward()
    return leaf.grad


def scoped(problem, w):
    net = Linear(problem.shape)
    net.weight.data.copy_(w)
    return net, net.tensors


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_oracles_optimum_is_certified_and_a_shift_of_it_is_not(name):
    problem = PROBLEMS[name]
    exact = problem.optimum.masked_fill(problem.optimum.abs() <= 1e-9, 0.0)
    for w, right in ((exact, True), (exact + 0.01 * (exact != 0), False)):
        _, tensors = scoped(problem, w)
        row = certificate(
            problem.penalty, tensors, grads=[grad_at(problem, w)], strength=problem.alpha
        )
        assert (row["kkt/support"] < 1e-4) == right
        if (exact == 0).any():
            assert (row["kkt/zeros"] == 1) == right or not right


def test_a_zero_that_should_not_be_one_is_counted():
    problem = PROBLEMS["lasso"]
    w = problem.optimum.clone()
    w[w.abs() == w.abs().max()] = 0
    _, tensors = scoped(problem, w)
    row = certificate(problem.penalty, tensors, grads=[grad_at(problem, w)], strength=problem.alpha)
    zeros = int((w == 0).sum())
    assert row["kkt/zeros"] <= (zeros - 1) / zeros


@pytest.mark.parametrize("optimizer", ["sgd", "momentum 0.9", "adam"])
def test_the_gradient_mapping_vanishes_at_the_optimum(optimizer):
    problem = PROBLEMS["lasso"]
    w = solve(problem, optimizer, steps=STEPS[optimizer])
    norms = []
    for point in (w, w + 0.1):
        net, tensors = scoped(problem, point)
        kind, options = OPTIMIZERS[optimizer]
        step = kind(net.parameters(), **options)
        solver = Proximal(problem.penalty, tensors, step, strength=0.0)
        for _ in range(50):  # fills the state without moving the weights
            net.weight.grad = grad_at(problem, point)
            step.step()
        net.weight.data.copy_(point)
        solver.strength = problem.alpha
        norms.append(mapping_norm(solver, [grad_at(problem, point)]))
    assert norms[0] < 1e-3 * norms[1]


def test_without_a_penalty_the_mapping_is_the_gradient():
    problem = PROBLEMS["lasso"]
    net, tensors = scoped(problem, problem.optimum)
    solver = Proximal(
        penalties.Zero(), tensors, torch.optim.SGD(net.parameters(), lr=0.1), strength=1.0
    )
    grad = grad_at(problem, problem.optimum)
    row = certificate(penalties.Zero(), tensors, grads=[grad], strength=1.0)
    assert math.isnan(row["kkt/support"])
    assert mapping_norm(solver, [grad]) == pytest.approx(float(grad.norm()), rel=1e-4)


def test_gradients_are_the_mean_over_labeled_pixels_and_leave_the_network_alone():
    net = UNet(3, 4, width=4, depth=1, norm="none", dropout=0.5)
    tensors = scope(net)
    images, masks = torch.randn(6, 3, 8, 8), torch.randint(0, 4, (6, 8, 8))
    masks[0, :4] = 255
    parts = [(images[:2], masks[:2]), (images[2:], masks[2:])]
    net.eval()
    loss = CrossEntropy()(net(images), masks)
    expected = torch.autograd.grad(loss, [entry.tensor for entry in tensors])
    net.train()
    found = gradients(net, CrossEntropy(), batches=parts, tensors=tensors)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert net.training
    assert all(p.grad is None for p in net.parameters())


def test_batch_statistics_stay_and_no_random_number_is_drawn():
    net = UNet(3, 4, width=4, depth=1, dropout=0.5)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    sample = [(torch.randn(2, 3, 8, 8), torch.zeros(2, 8, 8).long())]
    for training in (False, True):
        net.train(training)
        state = torch.get_rng_state()
        gradients(net, CrossEntropy(), batches=sample, tensors=scope(net))
        assert torch.equal(torch.get_rng_state(), state)
        assert net.training == training
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_mapping_has_no_value_before_adam_has_a_metric():
    net = nn.Linear(3, 2)
    for kind in (torch.optim.Adam, torch.optim.SGD):
        solver = Proximal(penalties.L1(), scope(net), kind(net.parameters()), strength=0.1)
        norm = mapping_norm(solver, [torch.ones_like(net.weight)])
        assert math.isnan(norm) == (kind is torch.optim.Adam)


def test_groups_are_certified_as_groups():
    net = nn.Conv2d(2, 3, 1, bias=False)
    with torch.no_grad():
        net.weight[0] = 0
        net.weight[1] = 0
    grad = torch.zeros_like(net.weight)
    grad[1] = 10.0
    row = certificate(penalties.GroupL1(), scope(net, (Rule(),)), grads=[grad], strength=1.0)
    assert row["kkt/zeros"] == 0.5
