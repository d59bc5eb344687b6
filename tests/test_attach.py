"""What people bring to `attach`: networks, wrapped optimizers, numbers, missing gradients."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from seg_l1 import Rule, attach, penalties
from seg_l1.config.compose import compose_plain
from seg_l1.scope import DEFAULT_RULES, KERNEL_TYPES, rules_of, scope
from seg_l1.solvers.dual_averaging import DualAveraging
from seg_l1.solvers.factorized import Factorized
from seg_l1.solvers.frozen import Frozen
from seg_l1.solvers.proximal import Proximal
from seg_l1.solvers.subgradient import Subgradient

SOLVERS = [Proximal, Subgradient, Factorized, DualAveraging, Frozen]


def sgd(net, lr=0.1, **options):
    return torch.optim.SGD(net.parameters(), lr=lr, **options)


def old_weight_norm(layer, name="weight"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still found in networks
        return nn.utils.weight_norm(layer, name)


PARAMETRIZED = "parametrizations.weight.original"
KERNELS = {
    "conv1d": (nn.Conv1d(2, 3, 3), ["weight"]),
    "conv3d": (nn.Conv3d(2, 3, 3), ["weight"]),
    "transposed 1d": (nn.ConvTranspose1d(2, 3, 3), ["weight"]),
    "transposed 3d": (nn.ConvTranspose3d(2, 3, 3), ["weight"]),
    "bilinear": (nn.Bilinear(2, 3, 4), ["weight"]),
    "attention": (nn.MultiheadAttention(4, 2, add_bias_kv=True),
                  ["in_proj_weight", "out_proj.weight"]),
    "cross attention": (nn.MultiheadAttention(4, 2, kdim=3, vdim=5),
                        ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"]),
    "lstm": (nn.LSTM(2, 3, 2, bidirectional=True, proj_size=2),
             [f"weight_{w}_l{layer}{way}" for layer in (0, 1) for way in ("", "_reverse")
              for w in ("ih", "hh", "hr")]),
    "gru cell": (nn.GRUCell(2, 3), ["weight_ih", "weight_hh"]),
    "weight_norm": (parametrizations.weight_norm(nn.Conv2d(2, 3, 3)), [PARAMETRIZED + "1"]),
    "old weight_norm": (old_weight_norm(nn.Conv2d(2, 3, 3)), ["weight_v"]),
    "old weight_norm of a GRU": (old_weight_norm(nn.GRU(2, 3), "weight_hh_l0"),
                                 ["weight_ih_l0", "weight_hh_l0_v"]),
    "spectral_norm": (parametrizations.spectral_norm(nn.Linear(3, 3)), [PARAMETRIZED]),
    "old spectral_norm": (nn.utils.spectral_norm(nn.Linear(3, 3)), ["weight_orig"]),
    "pruned": (prune.random_unstructured(nn.Linear(3, 3), "weight", 0.5), ["weight_orig"]),
    "pruned bias": (prune.random_unstructured(nn.Linear(3, 3), "bias", 0.5), ["weight"]),
}  # fmt: skip


@pytest.mark.parametrize("case", KERNELS)
def test_the_default_scope_is_all_kernels_and_no_other_tensor(case):
    net, kernels = KERNELS[case]
    assert {e.name for e in scope(net) if e.penalized} == set(kernels)


@pytest.mark.parametrize(
    "layer",
    [nn.Embedding(3, 2), nn.LayerNorm([2, 3]), nn.BatchNorm2d(3), nn.PReLU(3),
     parametrizations.weight_norm(nn.Embedding(3, 2)),
     parametrizations.orthogonal(nn.Linear(3, 3))],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_other_layers_are_no_kernels(layer):
    assert not any(e.penalized for e in scope(nn.Sequential(nn.Linear(1, 1), layer))[2:])


def test_kernels_of_a_parametrized_layer_are_found_by_its_types():
    net = nn.Sequential(parametrizations.weight_norm(nn.Conv2d(2, 3, 3)), nn.Linear(2, 2))
    rules = (Rule("0.*", types=("Conv2d",), kernels=True), Rule(penalize=False))
    assert [e.name for e in scope(net, rules) if e.penalized] == ["0." + PARAMETRIZED + "1"]


def test_the_configuration_has_the_default_rules():
    assert rules_of(compose_plain([])["regularizer"]["scope"]) == DEFAULT_RULES


def test_the_types_of_kernels_are_classes_of_torch():
    from torch.nn.modules import conv, rnn

    known = {**vars(nn), **vars(conv), **vars(rnn)}
    assert KERNEL_TYPES - set(known) == {"DeformConv2d"}  # torchvision's


@pytest.mark.slow
@pytest.mark.parametrize("name", ["video.r3d_18", "vit_b_16", "swin_t", "video.swin3d_t"])
def test_networks_of_torchvision_are_penalized_as_a_whole(name):
    import torchvision

    with torch.device("meta"):
        net = torchvision.models.get_model(name.removeprefix("video."))
    weights = [p for p in net.parameters() if p.ndim > 1]
    penalized = [e.tensor for e in scope(net) if e.penalized]
    assert sum(p.numel() for p in penalized) > 0.98 * sum(p.numel() for p in weights)


def test_what_is_left_out_is_told_with_a_remedy_that_works():
    net = nn.Sequential(nn.Embedding(60, 10), nn.Linear(10, 40))
    with pytest.warns(
        UserWarning, match=r"^attach: 40\.0 % .*0\.weight \(Embedding, 600\)"
    ) as caught:
        solver = attach(sgd(net), net, alpha=0.1)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert solver.summary().splitlines() == [
        "Proximal, L1, strength 0.1: 40.0 % of the weights",
        "  not penalized: 0.weight (Embedding, 600)",
    ]
    solver.detach()
    rules = str(caught[0].message).partition("rules=")[2]
    import seg_l1.scope

    solver = attach(sgd(net), net, alpha=0.1, rules=eval(rules, {"Rule": Rule, "seg_l1": seg_l1}))
    assert solver.summary() == "Proximal, L1, strength 0.1: 100.0 % of the weights"


def test_rules_of_ones_own_are_told_in_the_summary_alone():
    net = nn.Sequential(nn.Linear(10, 40), nn.Linear(40, 10))
    solver = attach(sgd(net), net, alpha=0.1, rules=[Rule("0.weight"), Rule(penalize=False)])
    assert "50.0 % of the weights" in solver.summary()
    assert "1.weight (Linear, 400)" in solver.summary()


def test_a_lazy_network_is_refused():
    net = nn.LazyLinear(3)
    with pytest.raises(ValueError, match="call the model on one batch"):
        attach(sgd(net), net, alpha=0.1)


@pytest.mark.parametrize("number", [-0.5, float("nan"), float("inf"), True, "1", np.float32(-1),
                                    torch.tensor(-1.0), np.ones(1), None])  # fmt: skip
def test_a_strength_or_factor_that_is_none_is_refused_where_it_is_given(number):
    net = nn.Linear(2, 2)
    solver = attach(sgd(net), net, alpha=0.5)
    with pytest.raises(
        ValueError, match=r"strength: got .* expected a finite number of at least 0"
    ):
        solver.strength = number
    assert solver.strength == 0.5
    with pytest.raises(ValueError, match=r"factor: got .* expected a finite number above 0"):
        Rule(factor=number)
    with pytest.raises(ValueError, match=r"alpha: got .* expected a finite number of at least 0"):
        attach(sgd(net), net, alpha=number)
    with pytest.raises(ValueError, match="strength"):
        solver.load_state_dict({**solver.state_dict(), "strength": number})


@pytest.mark.parametrize("number", [2, np.float32(2), np.int64(2), np.array(2.0), torch.tensor(2)])
def test_scalars_of_numpy_and_torch_are_floats(number):
    net = nn.Linear(2, 2)
    solver = attach(sgd(net), net, alpha=number, rules=[Rule(factor=number)])
    assert type(solver.strength) is type(solver.penalized_tensors[0].factor) is float
    solver.strength = number
    assert type(solver.strength) is float
    assert penalties.ElasticNet(np.float32(0.5)) == penalties.ElasticNet(0.5)


def test_the_factor_0_and_types_that_are_a_string_are_refused():
    with pytest.raises(ValueError, match="factor"):
        Rule(factor=0)
    with pytest.raises(ValueError, match=r"types.*\('Conv2d',\)"):
        Rule(types="Conv2d")


@pytest.mark.parametrize("max_norm", [-1.0, float("nan")])
def test_a_norm_that_is_none_is_refused(max_norm):
    net = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="max_norm"):
        attach(sgd(net), net, alpha=0.5).clip_grad_norm_(max_norm)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("solver", SOLVERS)
def test_weights_of_half_precision_are_refused_with_the_way(dtype, solver):
    net = nn.Linear(2, 2).to(dtype)
    with pytest.raises(TypeError, match=r"weight is b?float16.*model\.float\(\).*autocast"):
        attach(sgd(net), net, alpha=0.1, solver=solver)
    optimizer = sgd(net.float())
    attach(optimizer, net, alpha=0.1, solver=solver)
    net.to(dtype)(torch.ones(1, 2, dtype=dtype)).sum().backward()
    with pytest.raises(TypeError, match=r"float\(\)"):
        optimizer.step()


def test_only_the_penalized_tensors_must_be_float32():
    net = nn.ModuleList([nn.Linear(2, 2), nn.Embedding(2, 1).to(torch.bfloat16)])
    solver = attach(sgd(net), net, alpha=0.1, rules=[Rule("0.weight"), Rule(penalize=False)])
    assert [scoped.tensor.dtype for scoped in solver.penalized_tensors] == [torch.float32]


def heads():
    torch.manual_seed(0)
    return nn.ModuleList(nn.Linear(6, 4) for _ in "ab")


OPTIMIZERS = {
    "SGD": {"lr": 0.05, "momentum": 0.9, "nesterov": True},
    "Adam": {"lr": 0.01, "eps": 1e-4},
    "tiny steps": {"lr": 1e-6, "momentum": 0.9},
}


@pytest.mark.parametrize("options", OPTIMIZERS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_heads_that_are_trained_in_turn_are_as_if_each_was_trained_alone(solver, options):
    """The second starts late; in "tiny steps" float32 makes the penalty wait for several steps."""
    x, y = torch.randn(20, 6), torch.randn(20, 4)
    kind = torch.optim.Adam if options == "Adam" else torch.optim.SGD
    turns = [0 if step < 7 else step % 2 for step in range(60)]

    def train(net, turns):
        optimizer = kind(net.parameters(), **OPTIMIZERS[options])
        attached = attach(optimizer, net, alpha=0.05, solver=solver)
        for turn in turns:
            optimizer.zero_grad()
            (net[turn](x) - y).square().mean().backward()
            optimizer.step()
        if options == "tiny steps" and isinstance(attached, Proximal):
            assert attached.pending_steps[0].interval > 1
        attached.flush()
        return [head.weight.detach() for head in net]

    together = train(heads(), turns)
    for index, start in enumerate(heads()):
        (alone,) = train(nn.ModuleList([start]), [0] * turns.count(index))
        assert torch.equal(together[index], alone)


@pytest.mark.parametrize("decay", [0.3])
def test_l2_is_the_weight_decay_of_torch_where_gradients_are_missing(decay):
    torch.manual_seed(0)
    x = torch.randn(60, 10, dtype=torch.float64)
    start, weights = nn.ModuleList(nn.Linear(10, 1, dtype=torch.float64) for _ in "ab"), []
    for own in (decay, 0.0):
        net = copy.deepcopy(start)
        optimizer = sgd(net, lr=0.05, weight_decay=own)
        if not own:
            attach(optimizer, net, penalties.L2(), alpha=decay, rules=[Rule()])
        for step in range(2000):
            optimizer.zero_grad()
            (net[step % 2](x).squeeze(1) - x[:, :3].sum(1)).square().mean().backward()
            optimizer.step()
        weights.append(net[0].weight.detach())
    torch.testing.assert_close(*weights, rtol=0, atol=1e-9)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_tensor_that_never_has_a_gradient_keeps_its_weights(solver):
    net = heads()
    before = net[1].weight.detach().clone()
    optimizer = sgd(net)
    attached = attach(optimizer, net, alpha=10.0, solver=solver)
    for _ in range(3):
        optimizer.zero_grad()
        net[0](torch.ones(1, 6)).square().sum().backward()
        optimizer.step()
    attached.flush()
    assert torch.equal(net[1].weight, before)


@pytest.mark.parametrize("solver", SOLVERS)
def test_parameter_groups_are_found_by_their_tensors(solver):
    """After they were swapped, as lists of groups are edited, and loaded, which makes new ones."""
    results = []
    for swaps in (False, True):
        net = heads()
        groups = [{"params": net[0].parameters()}, {"params": net[1].parameters(), "lr": 1e-3}]
        optimizer = torch.optim.SGD(groups, lr=0.1)
        attach(optimizer, net, alpha=0.1, solver=solver)
        if swaps:
            optimizer.param_groups.reverse()
            optimizer.load_state_dict(optimizer.state_dict())
        for _ in range(3):
            optimizer.zero_grad()
            sum(head(torch.ones(1, 6)).square().sum() for head in net).backward()
            optimizer.step()
        results.append([head.weight.detach() for head in net])
    assert all(map(torch.equal, *results))


def test_tensors_that_left_the_optimizer_are_left_alone_unless_all_did():
    net = heads()
    optimizer = torch.optim.SGD([{"params": head.parameters()} for head in net], lr=0.1)
    solver = attach(optimizer, net, alpha=10.0)
    before = net[1].weight.detach().clone()
    gone = optimizer.param_groups.pop()
    for head in net:
        head(torch.ones(1, 6)).sum().backward()
    optimizer.step()
    solver.flush()
    assert (net[0].weight == 0).all()
    assert torch.equal(net[1].weight, before)
    optimizer.param_groups[:] = [{**gone, "params": [nn.Parameter(torch.ones(1))]}]
    with pytest.raises(ValueError, match="attach after what replaced them"):
        optimizer.step()


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 3])
def test_groups_of_transposed_convolutions_are_their_output_channels(dims, groups):
    """By what a zero group does: the output channel is its bias; depthwise ones in groups."""
    kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1]
    net = kind(3, 3, 2, groups=groups)
    (entry,) = (e for e in scope(net) if e.penalized)
    assert not entry.no_group_reason
    with torch.no_grad():
        entry.groups_first[1] = 0.0
        out = net(torch.randn(1, 3, *[3] * dims))
    constant = [bool((out[0, c] == net.bias[c]).all()) for c in range(3)]
    assert constant == [False, True, False]


def test_a_transposed_convolution_in_groups_is_refused_for_channels():
    net = nn.ConvTranspose1d(4, 6, 2, groups=2)
    with pytest.raises(ValueError, match="in groups"):
        attach(sgd(net), net, penalties.GroupL1(), alpha=0.1)


class AcceleratedOptimizer(torch.optim.Optimizer):
    """As accelerate's, which does not call the constructor of its base class."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    state = property(lambda self: self.optimizer.state)
    param_groups = property(lambda self: self.optimizer.param_groups)

    def step(self, closure=None):
        return self.optimizer.step(closure)


Unknown = type("Unknown", (torch.optim.Optimizer,), dict(vars(AcceleratedOptimizer)))


class ZeroRedundancyOptimizer:
    def __init__(self, optimizer):
        self.optim = optimizer


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_wrapper_of_accelerate_is_seen_through(solver):
    net = nn.Linear(3, 2)
    wrapped = AcceleratedOptimizer(sgd(net))
    attached = attach(wrapped, net, alpha=100.0, solver=solver)
    before = net.weight.detach().clone()
    net(torch.ones(1, 3)).sum().backward()
    wrapped.step()
    assert attached.optimizer is wrapped.optimizer
    assert not torch.equal(net.weight, before - 0.1)
    with pytest.raises(ValueError, match="the SGD that AcceleratedOptimizer wraps already"):
        attach(wrapped, net, alpha=1.0)


def test_other_wrappers_are_refused_with_the_way():
    net = nn.Linear(3, 2)
    unknown = Unknown(sgd(net))
    for solver in SOLVERS:
        with pytest.raises(TypeError, match=r"Unknown wraps SGD.*attach\(optimizer\.optimizer"):
            attach(unknown, net, alpha=0.1, solver=solver)
        with pytest.raises(TypeError, match="train with the plain optimizer"):
            attach(ZeroRedundancyOptimizer(sgd(net)), net, alpha=0.1, solver=solver)
    attach(unknown.optimizer, net, alpha=0.1)


def test_what_is_no_optimizer_or_no_model_is_refused():
    net = nn.Linear(3, 2)
    with pytest.raises(TypeError, match="optimizer: got list"):
        attach([sgd(net)], net, alpha=0.1)
    with pytest.raises(TypeError, match="model: got SGD"):
        attach(net, sgd(net), alpha=0.1)
