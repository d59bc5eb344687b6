"""`channel_l1`: groups of all that vanishes with a channel, across the tensors of a network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from seg_l1 import Rule, attach, penalties
from seg_l1.compaction import channel_groups, compact
from seg_l1.compaction.costs import cost_factors
from seg_l1.config.compose import compose_plain
from seg_l1.errors import UserError
from seg_l1.experiments.path.grid import alpha_for_zero_share
from seg_l1.losses import RegularizedLoss
from seg_l1.metrics.optimality import certificate, mapping_norm
from seg_l1.metrics.sparsity import multiply_adds
from seg_l1.models.smp import SMP
from seg_l1.models.unet import UNet
from seg_l1.schedules import LearningRate
from seg_l1.scope import scope
from seg_l1.solvers.blocks import blocks
from seg_l1.solvers.dual_averaging import DualAveraging
from seg_l1.solvers.factorized import Factorized
from seg_l1.solvers.proximal import Proximal
from seg_l1.solvers.subgradient import Subgradient
from seg_l1.training.build import build
from seg_l1.training.data import load_data
from tests.support.oracles import OPTIMIZERS, PROBLEMS, STEPS, gap, same_support
from tests.support.runs import TINY

ALL = (Rule(),)
GROUP_LASSO = PROBLEMS["group lasso"]
ORDER = torch.tensor([3, 0, 4, 1, 2])


class Parts(nn.Module):
    """The weights (5, 4) of the oracles in three tensors, of which two have other orders.

    `kernel` has columns 0 and 1, `transposed` column 2 along its second axis, `offset` column 3.
    """

    def __init__(self) -> None:
        super().__init__()
        start = torch.randn(GROUP_LASSO.shape, generator=torch.Generator().manual_seed(1)).double()
        self.kernel = nn.Parameter(0.3 * start[:, :2])
        self.transposed = nn.Parameter(0.3 * start[ORDER, 2][None])
        self.offset = nn.Parameter(0.3 * start[:, 3].flip(0))

    @property
    def weight(self):
        inverse = ORDER.argsort()
        return torch.cat(
            [self.kernel, self.transposed[0, inverse, None], self.offset.flip(0)[:, None]], 1
        )

    @property
    def tensors(self):
        numbers = {
            "kernel": (0, range(5)),
            "transposed": (1, ORDER.tolist()),
            "offset": (0, range(4, -1, -1)),
        }
        return [
            replace(s, axis=numbers[s.name][0], channels=tuple(numbers[s.name][1]))
            for s in scope(self, ALL)
        ]


def trained(optimizer, solver=Proximal, **options):
    """The network, its optimizer and solver after a training on the oracle's problem."""
    kind, settings = OPTIMIZERS[optimizer]
    settings = {**settings, **options}
    net, steps = Parts(), STEPS[optimizer]
    optimizer = kind(net.parameters(), **settings)
    penalty = solver(penalties.ChannelL1(), net.tensors, optimizer, strength=GROUP_LASSO.alpha)
    rate = LearningRate(steps, final=1e-5)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = settings["lr"] * rate(step)
        optimizer.zero_grad()
        GROUP_LASSO.data(net.weight).backward()
        optimizer.step()
    penalty.flush()
    return net, penalty


@pytest.mark.parametrize("optimizer", ["sgd", "momentum 0.9", "nesterov", "adam", "rmsprop 0.9"])
def test_groups_across_tensors_reach_the_optimum_of_the_group_lasso(optimizer):
    net, _ = trained(optimizer)
    assert abs(gap(GROUP_LASSO, net.weight.detach())) <= 1e-10
    assert same_support(GROUP_LASSO, net.weight.detach())


def test_the_optimum_is_certified_and_its_objective_is_the_oracles():
    net, solver = trained("adam")
    net.zero_grad()
    GROUP_LASSO.data(net.weight).backward()
    grads = [scoped.tensor.grad for scoped in net.tensors]
    found = certificate(solver.penalty, net.tensors, grads=grads, strength=GROUP_LASSO.alpha)
    assert found["kkt/zeros"] == 1
    assert found["kkt/support"] < 1e-4
    assert mapping_norm(solver, grads) < 1e-4
    term = RegularizedLoss(nn.Identity(), solver.penalty, net.tensors).penalty_term(0.2)
    w = net.weight.detach()
    expected = GROUP_LASSO.objective(w) - float(GROUP_LASSO.data(w))
    assert float(term.detach()) == pytest.approx(expected, rel=1e-12)
    with torch.no_grad():
        net.kernel[int(net.kernel.abs().sum(1).argmax())] += 0.1
    net.zero_grad()
    GROUP_LASSO.data(net.weight).backward()
    grads = [scoped.tensor.grad for scoped in net.tensors]
    assert mapping_norm(solver, grads) > 1e-2


def test_the_largest_strength_is_that_of_the_group_lasso():
    net = Parts()
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.zero_()
    GROUP_LASSO.data(net.weight).backward()
    grads = [scoped.tensor.grad for scoped in net.tensors]
    found = alpha_for_zero_share(1, penalties.ChannelL1(), tensors=net.tensors, grads=grads)
    whole = torch.zeros(GROUP_LASSO.shape, dtype=torch.float64, requires_grad=True)
    GROUP_LASSO.data(whole).backward()
    assert found == pytest.approx(float(whole.grad.norm(dim=1).max()) / 2, rel=1e-6)


def test_the_textbook_subgradient_is_that_of_the_groups():
    net, _ = trained("sgd", Subgradient)
    assert 0 <= gap(GROUP_LASSO, net.weight.detach()) < 1e-3


def test_parameter_groups_with_rates_of_their_own_have_one_optimum():
    net = Parts()
    fast, slow = {"params": [net.kernel], "lr": 0.3}, {"params": [net.transposed, net.offset]}
    optimizer = torch.optim.SGD([fast, slow], lr=0.1)
    solver = Proximal(penalties.ChannelL1(), net.tensors, optimizer, strength=GROUP_LASSO.alpha)
    for _ in range(2000):
        optimizer.zero_grad()
        GROUP_LASSO.data(net.weight).backward()
        optimizer.step()
    solver.flush()
    assert abs(gap(GROUP_LASSO, net.weight.detach())) <= 1e-10
    assert same_support(GROUP_LASSO, net.weight.detach())


def test_a_tensor_without_a_gradient_is_left_alone():
    net = Parts()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    Proximal(penalties.ChannelL1(), net.tensors, optimizer, strength=100.0)
    net.kernel.grad = torch.zeros_like(net.kernel)
    net.transposed.grad = torch.zeros_like(net.transposed)
    before = [tensor.detach().clone() for tensor in net.parameters()]
    optimizer.step()
    assert torch.equal(net.offset, before[2])
    assert (net.kernel.abs() < before[0].abs()).all() and (net.kernel != 0).all()


class Residual(nn.Module):
    """Two branches that are added, each with a norm layer, then a depthwise one and a head."""

    def __init__(self, norm=nn.BatchNorm2d) -> None:
        super().__init__()
        self.first, self.norm_1 = nn.Conv2d(3, 6, 3, padding=1), norm(6)
        self.second, self.norm_2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), norm(6)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        x = self.norm_1(self.first(x)).relu()
        x = (x + self.norm_2(self.second(x))).relu()
        return self.head(self.depthwise(x).relu())


def smp_residual(**options):
    options = {"encoder_depth": 3, "decoder_channels": [16, 8, 8], **options}
    return SMP(3, 4, arch="Unet", encoder="resnet18", options=options)


NETWORKS = {
    "unet": lambda: UNet(3, 4, width=4, depth=2, norm="batch"),
    "residual": Residual,
    "group norm": lambda: Residual(lambda channels: nn.GroupNorm(3, channels)),
    "smp resnet": smp_residual,
    "smp densenet": lambda: SMP(3, 4, arch="Unet", encoder="densenet121", options={}),
}

MOST = [name for name in NETWORKS if name != "smp densenet"]


def found_in(make, rules=ALL, seed=0):
    torch.manual_seed(seed)
    model = make().eval()
    return model, channel_groups(model, torch.randn(1, 3, 32, 32), scope(model, rules))


def members(tensors):
    """Channel: the slices (position of the tensor, row) that go with it."""
    found = {}
    for index, scoped in enumerate(tensors):
        for row, channel in enumerate(scoped.channels or ()):
            found.setdefault(channel, []).append((index, row))
    return found


@pytest.mark.parametrize(
    "name",
    [
        "unet",
        "residual",
        "group norm",
        "smp resnet",
        pytest.param("smp densenet", marks=pytest.mark.slow),
    ],
)
def test_every_weight_is_in_one_group_and_comes_back_to_its_place(name):
    _, tensors = found_in(NETWORKS[name])
    total = sum(scoped.tensor.numel() for scoped in tensors)
    numbers, begin = [], 0
    for scoped in tensors:
        size = scoped.tensor.numel()
        numbers.append(torch.arange(begin, begin + size).float().view(scoped.tensor.shape))
        begin += size
    arrays = [(b, b.gather(numbers)) for b in blocks(penalties.ChannelL1(), tensors)]
    assert torch.cat([a.flatten() for _, a in arrays]).sort().values.tolist() == list(range(total))
    copies = [torch.full_like(n, -1) for n in numbers]
    for block, array in arrays:
        block.store(array, copies)
    assert all(torch.equal(c, n) for c, n in zip(copies, numbers, strict=True))
    rows = sum(len(array) for _, array in arrays)
    assert rows == len(members(tensors))


@pytest.mark.parametrize("name", MOST)
@torch.no_grad()
def test_a_group_that_is_zero_is_a_channel_that_compaction_removes(name):
    model, tensors = found_in(NETWORKS[name])
    x = torch.randn(2, 3, 32, 32)
    groups = members(tensors)
    final = {c for s in tensors if s.name.endswith(("head.weight", "head.0.weight"))
             for c in s.channels}  # fmt: skip
    used = {c for c, slices in groups.items() if c >= 0 and c not in final}
    before = sum(p.numel() for p in compact(model, x).model.parameters())
    chosen = sorted(used)[:: max(1, len(used) // 12)]
    for channel in chosen:
        saved = [tensor.clone() for tensor in model.parameters()]
        for index, row in groups[channel]:
            tensors[index].groups_first[row] = 0
        smaller = compact(model, x)
        assert torch.allclose(smaller.model(x), model(x), atol=1e-4)
        own = sum(tensors[i].groups_first[r].numel() for i, r in groups[channel])
        assert before - sum(p.numel() for p in smaller.model.parameters()) > own
        for tensor, old in zip(model.parameters(), saved, strict=True):
            tensor.copy_(old)


def test_all_layers_that_an_addition_ties_are_one_group():
    _, tensors = found_in(Residual)
    slices = {frozenset(tensors[i].name for i, _ in group) for group in members(tensors).values()}
    added = {f"{layer}.{kind}" for layer in ("norm_1", "norm_2") for kind in ("weight", "bias")}
    added |= {"first.weight", "first.bias", "second.weight", "depthwise.weight", "depthwise.bias"}
    assert slices == {frozenset(added), frozenset({"head.weight", "head.bias"})}


@pytest.mark.parametrize("measure", ["multiply_adds", "parameters"])
@torch.no_grad()
def test_a_group_costs_what_compaction_saves_without_it(measure):
    model, tensors = found_in(Residual)
    x = torch.randn(1, 3, 16, 16)
    factors = cost_factors(model, x, tensors, cost=measure, grouped=True)
    tied, head = ({f for s, f in zip(tensors, factors, strict=True) if s.name.startswith("head")
                   is at_head} for at_head in (False, True))  # fmt: skip
    assert (len(tied), len(head)) == (1, 1)
    sizes = [s.tensor.numel() for s in tensors]
    mean = sum(n * f for n, f in zip(sizes, factors, strict=True)) / sum(sizes)
    assert mean == pytest.approx(1)

    def size(network):
        if measure == "parameters":
            return sum(p.numel() for p in network.parameters())
        return multiply_adds(network, x)

    before, own = size(model), 0
    for index, row in members(tensors)[tensors[0].channels[0]]:
        own += tensors[index].groups_first[row].numel()
        tensors[index].groups_first[row] = 0
    saving = (before - size(compact(model, x).model)) / own
    of_class = 1 if measure == "parameters" else 16 * 16 * 6 / 7
    assert tied.pop() / head.pop() == pytest.approx(saving / of_class)


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_a_network_loses_channels_where_layers_are_added(kind):
    torch.manual_seed(0)
    model, x = Residual(), torch.randn(8, 3, 16, 16)
    target = (x[:, :1] > 0).long()[:, 0]
    settings = {"adam": (torch.optim.Adam, 0.01), "sgd": (torch.optim.SGD, 0.3)}
    make, lr = settings[kind]
    optimizer = make(model.parameters(), lr=lr)
    attach(optimizer, model, penalties.ChannelL1(), alpha=1e-2, rules=ALL, example=x)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), target).backward()
        optimizer.step()
    smaller = compact(model.eval(), x)
    assert torch.allclose(smaller.model(x), model(x), atol=1e-4)
    assert smaller.model.first.out_channels < 6
    assert smaller.model.first.out_channels == smaller.model.second.in_channels


class Softmax(Residual):
    def forward(self, x):
        return self.head(self.first(x).softmax(1))


REFUSED = {
    "layer norm": (
        lambda: SMP(3, 4, arch="Segformer", encoder="mit_b0", options={}),
        "layer_norm in .* normalizes over the channels",
    ),
    "no rule": (Softmax, "softmax needs them all, since it has no rule"),
    "computed": (
        lambda: nn.Sequential(weight_norm(nn.Conv2d(3, 4, 3)), nn.Conv2d(4, 2, 1)),
        "its weight is computed from others",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_channels_that_cannot_go_are_refused_by_name(case):
    make, reason = REFUSED[case]
    with pytest.raises(UserError, match=f"channel_l1: the channels of .*{reason}"):
        found_in(make)


def test_a_shard_of_a_tensor_is_refused_and_the_others_are_counted():
    model = Residual().eval()
    tensors = [replace(s, flat=True) for s in scope(model, ALL)]
    with pytest.raises(UserError, match=rf"first.weight .*shard of it \({len(tensors) - 1} other"):
        channel_groups(model, torch.randn(1, 3, 16, 16), tensors)


def test_tensors_without_a_penalty_need_no_channels():
    rules = (Rule("head.*"), Rule(penalize=False))
    _, tensors = found_in(Softmax, rules)
    assert {s.name for s in tensors if s.channels} == {"head.weight", "head.bias"}


def test_layers_that_are_not_used_have_groups_of_their_own():
    _, tensors = found_in(smp_residual)
    deep = [s for s in tensors if "layer4" in s.name]
    assert deep and all(c < 0 for s in deep for c in s.channels)
    assert len({c for s in deep for c in s.channels}) == sum(len(s.groups_first) for s in deep)


@pytest.mark.parametrize("solver", [DualAveraging, Factorized])
def test_solvers_that_take_single_tensors_refuse_it(solver):
    net = Parts()
    with pytest.raises(TypeError, match="cannot carry out ChannelL1"):
        solver(penalties.ChannelL1(), net.tensors, torch.optim.SGD(net.parameters(), lr=0.1))


def test_channels_that_nobody_looked_for_are_asked_for():
    net = Residual()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="give example="):
        attach(optimizer, net, penalties.ChannelL1(), alpha=1e-3)
    with pytest.raises(ValueError, match=r"channel_groups"):
        Proximal(penalties.ChannelL1(), scope(net, ALL), optimizer)


def test_a_run_penalizes_whole_channels():
    words = [*TINY, "regularizer=channel_l1", "regularizer.cost=multiply_adds"]
    config = compose_plain(words)
    loop = build(config, load_data(config)).loop
    assert all(scoped.penalized and scoped.channels for scoped in loop.tensors)
    sizes = {block.gather([s.tensor for s in loop.tensors]).shape for block in loop.solver.blocks}
    assert max(width for _, width in sizes) > 9
    assert len({scoped.factor for scoped in loop.tensors}) > 1
