"""Paths: against scikit-learn on a convex problem, and by definition."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import enet_path, lasso_path
from torch import nn

from seg_l1 import attach, penalties
from seg_l1.compaction import compact
from seg_l1.config.compose import compose_plain
from seg_l1.data.partition import group_keys
from seg_l1.errors import UserError
from seg_l1.experiments.path import sizes, stability
from seg_l1.experiments.path.folds import draw_folds, fold_data
from seg_l1.experiments.path.grid import alpha_for_zero_share, alpha_grid, zero_share
from seg_l1.experiments.path.refit import blend, recalibrate
from seg_l1.experiments.path.selection import select
from seg_l1.experiments.path.warm_starts import path_order, regularization_path
from seg_l1.runs import checkpoints
from seg_l1.solvers.frozen import Frozen
from seg_l1.training.build import build
from seg_l1.training.data import load_data
from tests.support.oracles import X, Y
from tests.support.runs import TINY


def image_of(samples: np.ndarray) -> torch.Tensor:
    """Samples as the pixels of one image: (N, F) -> (1, F, 16, N / 16)."""
    return torch.from_numpy(samples.T.reshape(1, samples.shape[1], 16, -1).copy())


def linear_path(penalty, alphas, *, lr=0.3, steps=20_000):
    """Our path on a 1×1 convolution without bias: the weights at each alpha."""
    images, target = image_of(X), torch.from_numpy(Y).reshape(1, 1, 16, -1)

    def fit(alpha, start):
        net = nn.Conv2d(X.shape[1], 1, 1, bias=False, dtype=torch.float64)
        nn.init.zeros_(net.weight) if start is None else net.load_state_dict(start)
        optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.5)
        attach(optimizer, net, penalty, alpha=alpha)
        before = None
        for step in range(steps):
            optimizer.zero_grad()
            (0.5 * (net(images) - target).square().mean()).backward()
            optimizer.step()
            if step % 50 == 0:
                now = net.weight.detach().clone()
                if before is not None and (now - before).abs().max() < 1e-10:
                    break
                before = now
        return {k: v.clone() for k, v in net.state_dict().items()}

    return [state["weight"].flatten().numpy() for _, state in regularization_path(alphas, fit)]


@pytest.fixture(scope="module")
def dense_gradient():
    """The convolution at w = 0, its scope and its gradient."""
    net = nn.Conv2d(X.shape[1], 1, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(net.weight)
    images, target = image_of(X), torch.from_numpy(Y).reshape(1, 1, 16, -1)
    loss = 0.5 * (net(images) - target).square().mean()
    solver = attach(torch.optim.SGD(net.parameters(), lr=1.0), net, alpha=0.0)
    grads = list(torch.autograd.grad(loss, list(net.parameters())))
    return {"tensors": solver.penalized_tensors, "grads": grads}


@pytest.mark.parametrize(
    ("direction", "low", "num"),
    [
        ("down", 0.05, 4),
        *(pytest.param(d, 1e-3, 10, marks=pytest.mark.slow) for d in ("down", "up")),
    ],
)
def test_the_path_is_that_of_lasso_path(direction, low, num, dense_gradient):
    top = alpha_for_zero_share(1.0, penalties.L1(), **dense_gradient)
    assert top == pytest.approx(np.abs(X.T @ Y).max() / len(Y), rel=1e-6)
    grid = path_order(alpha_grid(top, low * top, num=num), direction)
    ours = linear_path(penalties.L1(), grid)
    _, truth, _ = lasso_path(X, Y, alphas=sorted(grid, reverse=True), tol=1e-12, max_iter=10**6)
    theirs = truth.T if direction == "down" else truth.T[::-1]
    assert np.abs(np.array(ours) - theirs).max() <= 1e-6
    assert [(w != 0).sum() for w in ours] == [(w != 0).sum() for w in theirs]


@pytest.mark.slow
def test_the_path_is_that_of_enet_path():
    ratio = 0.7
    penalty = penalties.ElasticNet(l1_ratio=ratio)
    grid = alpha_grid(1.0, 1e-3, num=10)
    _, truth, _ = enet_path(X, Y, l1_ratio=ratio, alphas=grid, tol=1e-12, max_iter=10**6)
    assert np.abs(np.array(linear_path(penalty, grid)) - truth.T).max() <= 1e-6


def test_a_one_per_cent_wrong_penalty_is_seen(monkeypatch):
    grid = alpha_grid(1.0, 0.1, num=2)
    _, truth, _ = lasso_path(X, Y, alphas=grid, tol=1e-12, max_iter=10**6)
    right = penalties.L1.prox
    monkeypatch.setattr(
        penalties.L1, "prox", lambda self, w, s, *, out=None: right(self, w, 1.01 * s, out=out)
    )
    assert np.abs(np.array(linear_path(penalties.L1(), grid)) - truth.T).max() > 1e-4


def test_a_grid_has_equal_ratios_and_its_ends():
    grid = alpha_grid(1e-2, 1e-5, num=7)
    assert (grid[0], grid[-1], len(grid)) == (1e-2, 1e-5, 7)
    assert np.allclose(np.diff(np.log(grid)), np.log(1e-3) / 6, atol=1e-5)
    assert alpha_grid(0.5, 0.1, num=1) == [0.5]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize(
    ("penalty", "factor"), [(penalties.L1(), 1.0), (penalties.ElasticNet(l1_ratio=0.25), 4.0)]
)
def test_a_reference_alpha_is_a_quantile_of_the_gradients(penalty, factor, share, dense_gradient):
    sizes = np.sort(dense_gradient["grads"][0].abs().flatten().numpy())
    expected = factor * sizes[int(np.ceil(share * len(sizes))) - 1]
    alpha = alpha_for_zero_share(share, penalty, **dense_gradient)
    assert alpha == pytest.approx(expected, rel=1e-6)
    assert zero_share(penalty, **dense_gradient, alpha=alpha) >= share
    assert zero_share(penalty, **dense_gradient, alpha=alpha * 0.999) < share


def test_the_reference_of_groups_is_that_of_the_group_lasso():
    net = nn.Conv2d(3, 4, 2, bias=False)
    tensors = attach(torch.optim.SGD(net.parameters(), lr=1.0), net, alpha=0.0).penalized_tensors
    grad = torch.randn_like(net.weight)
    expected = float(grad.flatten(1).norm(dim=1).max()) / 12**0.5
    alpha = alpha_for_zero_share(1.0, penalties.GroupL1(), tensors=tensors, grads=[grad])
    assert alpha == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("penalty", [penalties.L2(), penalties.Bridge(depth=3)])
def test_penalties_without_a_reference_alpha_say_so(penalty, dense_gradient):
    with pytest.raises(ValueError, match="alpha"):
        alpha_for_zero_share(0.5, penalty, **dense_gradient)


def followed(alphas, deaths=(), merits=None, **options):
    """(alpha, start) of every fit; the state of a fit is its alpha."""
    calls = []

    def fit(alpha, start):
        calls.append((alpha, start))
        return alpha

    merit = None if merits is None else merits.__getitem__
    list(regularization_path(alphas, fit, dead=lambda a: a in deaths, merit=merit, **options))
    return calls


def test_each_alpha_starts_from_the_one_before():
    assert path_order([1, 3, 2], "down") == [3, 2, 1]
    assert followed([3, 2, 1]) == [(3, None), (2, 3), (1, 2)]
    assert followed([3, 2, 1], warm_start=False) == [(3, None), (2, None), (1, None)]


def test_downwards_a_dead_network_is_no_start():
    assert followed([4, 3, 2, 1], deaths={4, 3}) == [(4, None), (3, None), (2, None), (1, 2)]


def test_upwards_a_path_ends_at_a_dead_network():
    assert followed([1, 2, 3, 4], deaths={2}) == [(1, None), (2, 1)]


def test_a_path_ends_at_a_collapse_upwards_alone():
    merits = {1: 0.8, 2: 0.81, 3: 0.39, 4: 0.1}
    assert [a for a, _ in followed([1, 2, 3, 4], merits=merits, collapse=0.5)] == [1, 2, 3]
    assert [a for a, _ in followed([4, 3, 2, 1], merits=merits, collapse=0.5)] == [4, 3, 2, 1]


def test_the_choices_are_those_of_the_textbook():
    """Numbers worked out by hand: means .60 .70 .74 .73, sd of the best .02, K = 4."""
    alphas = [1e-3, 1e-4, 1e-5, 1e-6]
    scores = np.array(
        [[0.60, 0.70, 0.72, 0.73], [0.60, 0.72, 0.74, 0.73],
         [0.58, 0.70, 0.74, 0.73], [0.62, 0.68, 0.76, 0.73]]
    )  # fmt: skip
    found = select(alphas, scores, folds=4)
    assert found.mean == pytest.approx([0.60, 0.70, 0.74, 0.73])
    assert found.error[2] == pytest.approx((0.0008 / 3) ** 0.5 / 2)  # .00816
    assert (alphas[found.best], alphas[found.one_se]) == (1e-5, 1e-5)
    wide = scores + np.array([[0, 0, -0.06, 0], [0, 0, 0.06, 0]] * 2)
    assert alphas[select(alphas, wide, folds=4).one_se] == 1e-4  # .74 − .0355 ≤ .70
    assert alphas[select(alphas, 1 - wide, folds=4, metric="loss").one_se] == 1e-4


def test_of_equals_the_larger_alpha_is_best():
    assert select([1e-6, 1e-4, 1e-5], np.full((3, 3), 0.5), folds=3).best == 1


def test_an_alpha_that_lacks_a_score_is_not_chosen():
    scores = np.array([[np.nan, 0.4, 0.3], [0.9, 0.5, 0.3]])
    found = select([3.0, 2.0, 1.0], scores, folds=2)
    assert (found.best, found.one_se) == (1, 1)
    assert np.isnan(found.mean[0]) and np.isnan(found.error[0])
    with pytest.raises(ValueError, match="every fold"):
        select([1.0], np.array([[np.nan]]), folds=2)


@given(
    st.integers(2, 6).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(0, 99), min_size=n, max_size=n), min_size=2, max_size=5
        )
    ),
    st.sampled_from(["miou", "loss"]),
)
def test_the_one_standard_error_choice_by_definition(scores, metric):
    values = np.array(scores) / 99
    alphas = [10.0**-k for k in range(values.shape[1])]
    found = select(alphas, values, folds=len(values), metric=metric)
    sign = -1 if metric == "loss" else 1
    means = [sign * float(np.mean(column)) for column in values.T]
    best = max(range(len(alphas)), key=lambda k: (means[k], alphas[k]))
    error = np.std(values[:, best], ddof=1) / len(values) ** 0.5
    fit = [alphas[k] for k in range(len(alphas)) if means[k] >= means[best] - error]
    assert alphas[found.one_se] == max(fit) >= alphas[found.best]


def test_a_choice_among_some_alphas_is_the_choice_if_there_were_no_others():
    rng = np.random.default_rng(0)
    alphas = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5]
    for _ in range(50):
        scores, allowed = rng.random((4, 5)), rng.random(5) < 0.6
        allowed[rng.integers(5)] = True
        found = select(alphas, scores, folds=4, allowed=allowed)
        among = np.flatnonzero(allowed)
        alone = select([alphas[k] for k in among], scores[:, among], folds=4)
        assert (found.best, found.one_se) == (among[alone.best], among[alone.one_se])
        assert np.array_equal(found.mean, scores.mean(0))
    with pytest.raises(ValueError, match="no alpha"):
        select(alphas, scores, folds=4, allowed=np.zeros(5, bool))


def digits(*words):
    return load_data(compose_plain([*TINY, "dataset.num_train=20", *words]))


def test_folds_are_disjoint_and_cover_the_training_images():
    folds = draw_folds(digits(), 4, 2, seed=0)
    assert len(folds) == 8
    for repeat in (folds[:4], folds[4:]):
        assert sorted(index for fold in repeat for index in fold) == list(range(20))
        assert {len(fold) for fold in repeat} == {5}
    assert folds[:4] != folds[4:]


def test_groups_are_not_torn_apart():
    data = digits()
    data.groups = [f"scene {index // 3}" for index in range(20)]
    for fold in draw_folds(data, 3, 1, seed=0):
        inside = {data.groups[i] for i in fold}
        outside = {data.groups[i] for i in range(20) if i not in fold}
        assert not inside & outside
    pattern = r"(\d)$"
    for fold in draw_folds(digits(), 3, 1, seed=0, group_pattern=pattern):
        names = data.splits["train"].names
        inside = set(group_keys([names[i] for i in fold], pattern))
        assert not inside & set(
            group_keys([n for i, n in enumerate(names) if i not in fold], pattern)
        )


def test_more_folds_than_images_are_refused():
    with pytest.raises(UserError, match=r"path.folds=21: there are only 20 training images"):
        draw_folds(digits(), 21, 1, seed=0)


def test_parts_of_the_digits_share_no_digit_and_no_piece_of_photograph(monkeypatch):
    from seg_l1.data.digits import split_range

    ranges = [split_range("train", 1797, part, 5) for part in range(5)]
    joined = [index for each in ranges for index in each]
    assert joined == list(split_range("train", 1797))
    whole, cut = digits(), digits("dataset.parts=5")
    assert not whole.groups and [set(cut.groups[k::5]) for k in range(5)] == [
        {f"part {k}"} for k in range(5)
    ]
    assert torch.equal(whole.splits["val"].images, cut.splits["val"].images)
    assert compose_plain(["path.folds=3"])["dataset"]["parts"] == 3


def test_the_data_of_a_fold_is_measured_on_its_own_training_images():
    data = digits()
    (fold, *_) = draw_folds(data, 4, 1, seed=0)
    cut = fold_data(data, fold)
    assert sorted(cut.splits) == ["train", "val"]
    kept = [i for i in range(20) if i not in fold]
    images = data.splits["train"].images[kept].double() / 255
    assert cut.mean == pytest.approx(images.mean((0, 2, 3)).tolist())
    assert torch.equal(cut.splits["val"].masks, data.splits["train"].masks[fold])
    assert cut.indices == {"train": kept, "val": fold}


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW"])
def test_a_frozen_support_stays_whatever_the_optimizer_remembers(kind):
    net = nn.Conv2d(4, 4, 3)
    options = {"momentum": 0.9} if kind == "SGD" else {}
    optimizer = getattr(torch.optim, kind)(net.parameters(), lr=0.05, **options)

    def step():
        optimizer.zero_grad()
        net(torch.randn(2, 4, 8, 8)).square().mean().backward()
        optimizer.step()

    for _ in range(3):
        step()  # moments fill
    with torch.no_grad():
        net.weight[net.weight.abs() < 0.1] = 0
    alive, before = net.weight != 0, net.weight.detach().clone()
    solver = attach(optimizer, net, alpha=0.0, solver=Frozen)
    for _ in range(5):
        step()
    assert torch.equal(net.weight != 0, alive) and 0 < alive.float().mean() < 1
    assert (net.weight != before)[alive].all()
    saved = solver.state_dict()
    solver.support[0].fill_(True)
    solver.load_state_dict(saved)
    assert torch.equal(solver.support[0], alive)


def test_a_frozen_support_can_be_restricted():
    net = nn.Conv2d(4, 4, 3)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    with torch.no_grad():
        net.weight[0] = 0
    solver = attach(optimizer, net, alpha=0.0, solver=Frozen)
    mask = torch.ones_like(net.weight, dtype=torch.bool)
    mask[1] = False
    solver.restrict({"weight": mask, "elsewhere": mask})
    assert not net.weight[:2].any() and net.weight[2:].all()
    net(torch.randn(2, 4, 8, 8)).square().mean().backward()
    optimizer.step()
    assert not net.weight[:2].any() and net.weight[2:].all()
    with torch.no_grad():
        net.weight.fill_(1.0)  # as a blend with other weights does
    solver.restrict({})
    assert not net.weight[:2].any() and net.weight[2:].all()


def test_a_path_is_cut_to_its_budget_before_it_is_relaxed():
    words = [*TINY, "model.depth=1", "model.width=24", "regularizer.solver=frozen"]
    config = compose_plain([*words, "regularizer=group_l1", "regularizer.alpha=0"])
    loop = build(config, load_data(config)).loop
    dense = compact(loop.model, loop.fixed[0][0][:1]).multiply_adds[0]
    sizes.cut(loop, 0.4)
    found = compact(loop.model, loop.fixed[0][0][:1]).multiply_adds[1]
    assert 0.98 * 0.4 * dense <= found <= 0.4 * dense
    for _ in loop.rows():
        pass
    assert compact(loop.model, loop.fixed[0][0][:1]).multiply_adds[1] == found
    with pytest.raises(UserError, match="give a larger one"):
        sizes.cut(loop, 1e-6)


def test_the_mean_over_the_jobs_is_what_has_to_be_within_a_budget(monkeypatch):
    shares = np.array([[0.1, 0.20, 0.2501, 0.9], [0.1, 0.30, 0.2503, np.nan]])
    monkeypatch.setattr(sizes, "shares", lambda plan: shares)
    assert sizes.within(None, 0.25).tolist() == [True, True, False, False]
    with pytest.raises(UserError, match=r"the smallest network of this path has 0\.100"):
        sizes.within(None, 0.099)
    monkeypatch.setattr(sizes, "shares", lambda plan: np.full((2, 4), np.nan))
    with pytest.raises(UserError, match="not known"):
        sizes.within(None, 0.5)


def test_a_blend_is_a_mean_of_the_two_networks():
    one, other = nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)
    first, second = deepcopy(one.weight.data), other.weight.data
    blend(one, other.state_dict(), 0.25)
    assert torch.allclose(one.weight, 0.25 * second + 0.75 * first)


def test_batch_norm_is_measured_over_one_epoch():
    net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Dropout(0.5))
    images = [torch.randn(4, 1, 5, 5) + k for k in range(3)]

    class Epoch:
        def epoch(self):
            return ((image, None) for image in images)

    recalibrate(net, Epoch())
    outputs = [net[0](image).detach() for image in images]
    means = torch.stack([out.mean((0, 2, 3)) for out in outputs]).mean(0)
    spreads = torch.stack([out.transpose(0, 1).flatten(1).var(1) for out in outputs]).mean(0)
    assert torch.allclose(net[1].running_mean, means, atol=1e-6)
    assert torch.allclose(net[1].running_var, spreads, atol=1e-6)
    assert net[1].momentum == 0.1 and not net.training


def test_a_run_starts_from_the_weights_of_another(finished, command):
    path, _ = finished
    config = compose_plain([*TINY, f"start={path}"])
    data = load_data(config)
    loop = build(config, data).loop
    best = checkpoints.load(path / "checkpoints/best.pt")["model"]
    assert all(torch.equal(value, best[name]) for name, value in loop.model.state_dict().items())
    last = checkpoints.load(path / "checkpoints/last.pt")["loop"]["model"]
    loop = build({**config, "start": str(path / "checkpoints/last.pt")}, data).loop
    assert all(torch.equal(value, last[name]) for name, value in loop.model.state_dict().items())
    code, _, err = command(*TINY, f"start={path}", "model.width=8")
    assert code == 2 and "is of another network" in err
    code, _, err = command(*TINY, "start=nowhere")
    assert code == 2 and "nowhere" in err


def test_only_a_fresh_run_without_a_start_asks_for_trained_weights(finished, monkeypatch):
    from seg_l1.training import build as module

    path, _ = finished
    config, asked, right = compose_plain(TINY), [], module.build_model

    def spy(*arguments, pretrained):
        asked.append(pretrained)
        return right(*arguments, pretrained=pretrained)

    monkeypatch.setattr(module, "build_model", spy)
    data = load_data(config)
    for start in (None, str(path)):
        for pretrained in (True, False):
            module.build({**config, "start": start}, data, pretrained=pretrained)
    assert asked == [True, False, False, False]


def test_overlaps_by_definition():
    supports = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]]).bool()
    assert stability.jaccard(supports) == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)
    assert stability.jaccard(torch.zeros(2, 5).bool()) == 1
    drawn = torch.rand(2, 2_000_000) < torch.tensor([[0.3], [0.6]])
    assert stability.by_chance(drawn) == pytest.approx(stability.jaccard(drawn), abs=1.5e-3)
