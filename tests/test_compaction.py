"""A compact network gives the outputs of the dense one, and is no larger than it has to be."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from seg_l1.compaction import CaptureError, compact, mixing, pointwise, spatial
from seg_l1.compaction.slicing import set_shapes
from seg_l1.metrics.sparsity import parameters
from seg_l1.models.segnet import SegNet
from seg_l1.models.unet import UNet
from tests.support.compaction import check_analysis, randomize

warnings.filterwarnings("ignore", category=DeprecationWarning)


def conv(before, after, size=3, **options):
    return nn.Conv2d(before, after, size, **{"padding": size // 2, **options})


class Between(nn.Module):
    """A convolution, something between, and a convolution; images (N, 3, H, W)."""

    def __init__(self, middle, count=8, after=None, head=None):
        super().__init__()
        self.first = conv(3, count)
        self.middle = middle
        self.last = head or conv(after or count, 2)

    def forward(self, x):
        return self.last(self.middle(self.first(x)))


class Function(nn.Module):
    def __init__(self, function, *modules):
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(modules)

    def forward(self, x):
        return self.function(x, *self.parts)


def function(f, *modules):
    return Function(f, *modules)


class Scaled(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(shape))

    def forward(self, x):
        return x * self.scale


class Attention(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.q, self.v = conv(count, count, 1), conv(count, count, 1)

    def forward(self, x):
        q, v = self.q(x).flatten(2), self.v(x).flatten(2)
        return ((q @ q.transpose(1, 2)).softmax(-1) @ v).reshape(x.shape) + x


def gate(x, squeeze, excite):
    return x * torch.sigmoid(excite(F.relu(squeeze(F.adaptive_avg_pool2d(x, 1)))))


def unpooled(x, inner):
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(inner(pooled), indices, 2, output_size=list(x.shape))


OPERATORS = {
    "nothing": nn.Identity(),
    "relu": nn.ReLU(),
    "sigmoid": nn.Sigmoid(),
    "hardsigmoid, in place": nn.Hardsigmoid(inplace=True),
    "hardswish": nn.Hardswish(),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "leaky_relu": nn.LeakyReLU(),
    "relu6": nn.ReLU6(),
    "prelu": nn.PReLU(8),
    "prelu, one slope": nn.PReLU(),
    "softmax over channels": nn.Softmax(1),
    "batch_norm": nn.BatchNorm2d(8),
    "batch_norm without statistics": nn.BatchNorm2d(8, track_running_stats=False),
    "group_norm": nn.GroupNorm(4, 8),
    "instance_norm": nn.InstanceNorm2d(8, affine=True),
    "layer_norm over channels": function(
        lambda x, norm: norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.LayerNorm(8)
    ),
    "dropout": nn.Dropout2d(0.5),
    "max_pool": nn.MaxPool2d(3, 2, padding=1),
    "avg_pool": nn.AvgPool2d(2),
    "avg_pool, padded": nn.AvgPool2d(3, 2, padding=1),
    "avg_pool, padded, borders left out": nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
    "adaptive_avg_pool": nn.AdaptiveAvgPool2d(3),
    "upsample, nearest": nn.Upsample(scale_factor=2),
    "upsample, bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "upsample, bicubic": nn.Upsample(scale_factor=2, mode="bicubic"),
    "conv 1x1": conv(8, 8, 1),
    "conv without bias": conv(8, 8, bias=False),
    "conv 1x1 without bias": conv(8, 8, 1, bias=False),
    "conv without padding": conv(8, 8, padding=0),
    "conv, same": conv(8, 8, padding="same"),
    "conv, reflect": conv(8, 8, padding_mode="reflect"),
    "conv, circular": conv(8, 8, padding_mode="circular"),
    "conv, stride and dilation": conv(8, 8, stride=2, dilation=2),
    "depthwise": conv(8, 8, groups=8),
    "depthwise, two per channel": conv(8, 16, groups=8),
    "grouped": conv(8, 8, groups=2),
    "transposed, tiles": nn.ConvTranspose2d(8, 8, 2, stride=2),
    "transposed, overlapping": nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1),
    "transposed, depthwise": nn.ConvTranspose2d(8, 8, 2, stride=2, groups=8),
    "transposed, grouped": nn.ConvTranspose2d(8, 8, 2, stride=2, groups=2),
    "scale per channel": Scaled(8, 1, 1),
    "scale of one": Scaled(1),
    "scale per pixel": Scaled(1, 1, 13, 18),
    "add": function(lambda x, a, b: a(x) + b(x), conv(8, 8), conv(8, 8, 1)),
    "add, in place": function(lambda x, a: a(x).add_(x), conv(8, 8)),
    "add, one channel": function(lambda x, a: x + a(x), conv(8, 1)),
    "multiply": function(lambda x, a, b: a(x) * b(x), conv(8, 8), conv(8, 8)),
    "multiply, one channel": function(lambda x, a: x * torch.sigmoid(a(x)), conv(8, 1)),
    "multiply with itself": function(lambda x: x * x),
    "divide": function(lambda x, a: x / (1 + a(x) ** 2), conv(8, 8)),
    "gate per channel": function(gate, conv(8, 4, 1), conv(4, 8, 1)),
    "scalars": function(lambda x: 2 * x - 1),
    "clamp": function(lambda x: x.clamp(-0.5, 0.5)),
    "pad with zeros": function(lambda x: F.pad(x, (1, 2, 0, 1))),
    "pad with ones": function(lambda x: F.pad(x, (1, 2, 0, 1), value=1.0)),
    "pad, reflect": function(lambda x: F.pad(x, (1, 2, 0, 1), mode="reflect")),
    "crop": function(lambda x: x[..., 1:-2, 2:]),
    "mean over pixels": function(lambda x, a: x + a(x.mean((2, 3), keepdim=True)), conv(8, 8, 1)),
    "sum over pixels": function(lambda x: x + x.sum((2, 3), keepdim=True)),
    "mean over channels": function(lambda x: x * x.mean(1, keepdim=True)),
    "split over channels": function(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)),
    "channel shuffle": function(
        lambda x: x.view(x.shape[0], 2, 4, *x.shape[2:]).transpose(1, 2).reshape(x.shape)
    ),
    "stack and sum": function(lambda x, a: torch.stack([x, a(x)]).sum(0), conv(8, 8)),
    "max_unpool": function(unpooled, conv(8, 8)),
    "max_unpool, two dead layers": function(
        unpooled, nn.Sequential(conv(8, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 8))
    ),
    "attention": Attention(8),
    "einsum": function(lambda x: torch.einsum("nchw,cd->ndhw", x, torch.ones(8, 8).to(x))),
    "three convolutions": nn.Sequential(conv(8, 8), nn.ReLU(), conv(8, 8), nn.ReLU(), conv(8, 8)),
    "shared": function(lambda x, a: a(F.relu(a(x))), conv(8, 8)),
}  # fmt: skip
"""What stands between two convolutions; 8 channels in, 8 out (16 for one of them)."""

OTHERS = {
    "cat": Between(function(lambda x, a: torch.cat([x, a(x)], 1), conv(8, 6)), after=14),
    "cat, twice the same": Between(function(lambda x: torch.cat([x, x], 1)), after=16),
    "pixel_shuffle": Between(nn.PixelShuffle(2), after=2),
    "flatten": Between(nn.Flatten(), head=nn.Linear(8 * 13 * 18, 5)),
    "flatten of pooled": Between(
        nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 8), nn.ReLU()),
        head=nn.Linear(8, 3),
    ),
    "unflatten": Between(
        nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 54), nn.Unflatten(1, (6, 3, 3))
        ),
        after=6,
    ),
    "tokens": Between(
        function(
            lambda x, a, b: b(F.gelu(a(x.flatten(2).transpose(1, 2)))).transpose(1, 2).unflatten(
                2, x.shape[2:]
            ),
            nn.Linear(8, 16),
            nn.Linear(16, 8),
        )
    ),
}  # fmt: skip


def network(name):
    if name in OTHERS:
        return OTHERS[name]
    return Between(OPERATORS[name], after=16 if "two per" in name else None)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*OPERATORS, *OTHERS])
def test_an_operator(name):
    """Equal outputs, also at other inputs; noise in irrelevant channels changes nothing."""
    for seed in range(2):
        torch.manual_seed(seed)
        model = randomize(network(name), seed)
        x = torch.randn(2, 3, 13, 18, dtype=torch.float64)
        check_analysis(model, x, seed)
        small = compact(model, x)
        assert_equal(model, small.model, x)
        assert small.parameters[1] <= small.parameters[0]
        if seed == 0:
            assert compact(small.model, x).parameters[1] == small.parameters[1]


def assert_equal(dense, small, like):
    x = torch.randn_like(like)
    with torch.no_grad():
        expected, got = dense(x), small.eval()(x)
    scale = max(1.0, float(expected.abs().max()))
    assert torch.allclose(got, expected, rtol=0, atol=1e-12 * scale)


def dead_chain(norm=True):
    """A network in which all of the second of three layers is dead, and emits constants ≠ 0."""
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(8) if norm else nn.Identity() for _ in range(2)]
    model = nn.Sequential(
        conv(3, 8), norms[0], nn.ReLU(), conv(8, 8), norms[1], nn.Sigmoid(), conv(8, 2)
    )
    randomize(model, 0)
    model[3].weight.data[:] = 0
    return model


def test_a_dead_layer_keeps_the_one_channel_that_carries_its_constants():
    model = dead_chain()
    small = compact(model, torch.zeros(1, 3, 8, 8, dtype=torch.float64)).model
    assert [small[i].out_channels for i in (0, 3, 6)] == [1, 1, 2]
    for size in ((8, 8), (5, 11), (1, 1)):  # exact at the borders of any size
        assert_equal(model, small, torch.zeros(2, 3, *size, dtype=torch.float64))


def test_constants_move_into_a_bias_where_nothing_is_padded():
    model = nn.Sequential(conv(3, 4), nn.Sigmoid(), conv(4, 2, 1, bias=False))
    randomize(model, 1, dead=0, unread=0)
    model[0].weight.data[1:] = 0
    small = compact(model, torch.zeros(1, 3, 8, 8, dtype=torch.float64)).model
    assert small[0].out_channels == 1
    constants = torch.sigmoid(model[0].bias[1:])
    expected = model[2].weight[:, 1:, 0, 0] @ constants
    assert torch.allclose(small[2].bias, expected, rtol=1e-14)


def test_the_constants_of_a_dead_group_are_normalized_by_each_other():
    model = nn.Sequential(conv(3, 4), nn.GroupNorm(2, 4), nn.Sigmoid(), conv(4, 2, 1))
    randomize(model, 0, dead=0, unread=0)
    model[0].weight.data[2:] = 0
    model[0].bias.data[2:] = torch.tensor([0.2, -0.1])
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    check_analysis(model, x)
    small = compact(model, x).model
    assert (small[0].out_channels, small[1].num_groups) == (2, 1)
    assert_equal(model, small, x)


def test_a_transposed_convolution_repeats_a_constant_if_its_taps_are_equal():
    model = nn.Sequential(conv(3, 4), nn.Sigmoid(), nn.ConvTranspose2d(4, 4, 2, 2), conv(4, 2))
    randomize(model, 0, dead=0, unread=0)
    model[0].weight.data[2:] = 0
    model[2].weight.data[:2, 2:] = 0
    model[2].weight.data[2:, 2:] = torch.tensor([[0.5, -0.3], [1.0, 0.7]])[..., None, None]
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    check_analysis(model, x)
    found = compact(model, x)
    assert [layer.constant for layer in found.layers] == [2, 2, 0]
    assert_equal(model, found.model, x)


def test_a_constant_channel_carries_nothing_for_another_group():
    model = nn.Sequential(conv(3, 8), nn.Sigmoid(), conv(8, 4, groups=2))
    randomize(model, 0, dead=0, unread=0)
    model[0].weight.data[[2, 3, 6, 7]] = 0  # the same positions of both groups
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    assert_equal(model, compact(model, x).model, x)


def test_sizes_that_can_be_counted_by_hand():
    """3 of 8 channels of the first layer live; the second reads two of them."""
    model = nn.Sequential(conv(3, 8, bias=False), nn.ReLU(), conv(8, 4, bias=False))
    randomize(model, 0, dead=0, unread=0)
    model[0].weight.data[3:] = 0
    model[2].weight.data[:, 0] = 0
    found = compact(model, torch.zeros(1, 3, 6, 6, dtype=torch.float64))
    assert found.parameters == (3 * 8 * 9 + 8 * 4 * 9, 3 * 2 * 9 + 2 * 4 * 9)
    assert found.multiply_adds == tuple(36 * count for count in found.parameters)
    first = found.layers[0]
    assert (first.name, first.total) == ("0", 8)
    assert (first.live, first.constant, first.unread, first.kept) == (2, 5, 1, 2)
    assert "fewer" in str(found)


def test_a_network_without_zeros_stays_as_it_is_and_says_so():
    model = randomize(UNet(3, 4, width=4), 0, dead=0, unread=0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data[:] = 1
    found = compact(model, torch.zeros(1, 3, 16, 16, dtype=torch.float64))
    assert found.parameters[0] == found.parameters[1]
    assert "nothing to remove" in str(found)


@pytest.mark.parametrize("multiple", [1, 4, 8])
def test_channels_are_kept_up_to_a_multiple(multiple):
    model = randomize(UNet(3, 4, width=8), 3)
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    found = compact(model, x, multiple=multiple)
    assert_equal(model, found.model, x)
    assert any(layer.kept < layer.total for layer in found.layers)
    for layer in found.layers:
        assert layer.kept % multiple == 0 or layer.kept == layer.total


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("channels", [1, 3])
@settings(
    max_examples=2, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(seed=st.integers(0, 10_000), percent=st.integers(0, 190))
def test_our_networks(norm, channels, seed, percent):
    for kind in (UNet, SegNet):
        torch.manual_seed(0)
        model = randomize(kind(channels, 4, width=4, norm=norm, depth=2), seed, dead=percent / 100)
        x = torch.randn(2, channels, 16, 24, dtype=torch.float64)
        check_analysis(model, x, seed)
        found = compact(model, x)
        assert_equal(model, found.model, x)
        # in SegNet a tie between pixels, which rounding breaks, decides what is unpooled where
        other = (19, 13) if kind is UNet else (20, 12)
        assert_equal(model, found.model, torch.zeros(1, channels, *other, dtype=torch.float64))
        assert found.parameters[1] <= found.parameters[0]


def test_the_shapes_rebuild_the_network():
    model = randomize(UNet(3, 4, width=8, norm="group"), 1, dead=1.5)
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    small = compact(model, x).model
    state = small.state_dict()
    rebuilt = UNet(3, 4, width=8, norm="group").double().eval()
    set_shapes(rebuilt, state)
    rebuilt.load_state_dict(state)
    with torch.no_grad():
        assert torch.equal(rebuilt(x), small.eval()(x))
    assert parameters(rebuilt) == parameters(small) < parameters(model)


def test_a_compact_network_trains_on():
    model = randomize(UNet(3, 4, width=8), 1)
    small = compact(model.train(), torch.randn(1, 3, 32, 32, dtype=torch.float64)).model
    assert small.training
    assert model.training
    optimizer = torch.optim.SGD(small.parameters(), lr=0.01)
    small(torch.randn(2, 3, 32, 32, dtype=torch.float64)).square().mean().backward()
    assert all(p.grad is not None for p in small.parameters())
    optimizer.step()


def test_the_dense_network_is_not_changed():
    model = dead_chain()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    compact(model, torch.zeros(1, 3, 8, 8, dtype=torch.float64))
    after = model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_sizes_in_the_code_of_a_network_keep_what_depends_on_them():
    model = Between(function(lambda x: x.reshape(2, 8, -1).reshape(2, 8, 13, 18)))
    randomize(model, 0, dead=0, unread=0)
    model.first.weight.data[4:] = 0
    x = torch.randn(2, 3, 13, 18, dtype=torch.float64)
    found = compact(model, x)
    assert_equal(model, found.model, x)
    assert found.model.first.out_channels == 8
    assert {(operator, reason) for operator, _, reason in found.whole} == {
        ("reshape", "it has no rule")
    }


def test_what_cannot_be_captured_is_refused():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(CaptureError, match=r"torch\.export"):
        compact(Branching(), torch.zeros(1, 3, 4, 4))


def forget_the_border(monkeypatch):
    everywhere = lambda _, patterns: np.ones(len(patterns), bool)  # noqa: E731
    monkeypatch.setattr(mixing.Convolution, "uniform", everywhere)
    return "three convolutions"


def tie_broadcast_operands(monkeypatch):
    """An operand of one channel is taken for one of as many as the output."""
    original = pointwise.Pointwise.transfer

    def transfer(self):
        original(self)
        if self.out.axis is not None and len(self.operands) == 2:
            first, second = (value.spread(self.out.channels) for value in self.operands)
            self.out.varying = first[0] & second[0]

    monkeypatch.setattr(pointwise.Pointwise, "transfer", transfer)
    return "add, one channel"


def take_sigmoid_of_zero_for_zero(monkeypatch):
    original = pointwise.Pointwise._evaluate

    def evaluate(self, states):
        result = original(self, states)
        return np.zeros_like(result) if self.operator == "sigmoid" else result

    monkeypatch.setattr(pointwise.Pointwise, "_evaluate", evaluate)
    return "sigmoid"


def lose_the_indices(monkeypatch):
    def link(self, slots):
        x = self.inputs[0]
        self.out.axis, self.out.slots = 1, x.slots

    def read(self, kept):
        self.inputs[0].use(self.out.used & self.out.varying)

    monkeypatch.setattr(spatial.Unpool, "link", link)
    monkeypatch.setattr(spatial.Unpool, "read", read)
    return "max_unpool"


def forget_the_bias(monkeypatch):
    original = mixing.Mixing.transfer

    def transfer(self):
        bias, self.bias = self.bias, None
        original(self)
        self.bias = bias

    monkeypatch.setattr(mixing.Mixing, "transfer", transfer)
    return "three convolutions"


@pytest.mark.parametrize(
    "fault",
    [
        forget_the_border,
        tie_broadcast_operands,
        take_sigmoid_of_zero_for_zero,
        lose_the_indices,
        forget_the_bias,
    ],
)
def test_a_planted_fault_is_found(fault, monkeypatch):
    name = fault(monkeypatch)
    with pytest.raises(Exception):  # noqa: B017 - of the check, of `compact` or of torch
        test_an_operator(name)
