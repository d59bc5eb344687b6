"""Compact networks of other packages, and of trainings, give the outputs of the dense ones."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from torch import nn

from seg_l1.cli.main import main
from seg_l1.compaction import CaptureError, compact
from seg_l1.compaction.compact import Compactor
from seg_l1.metrics.sparsity import parameters
from seg_l1.models.seed_cnn import SeedCNN
from seg_l1.models.segnet import SegNet
from seg_l1.models.smp import SMP
from seg_l1.models.torchvision_models import TorchvisionModel
from seg_l1.training.saved import load_run
from tests.support.compaction import plant, randomize, two_dead_layers, zeros_of
from tests.support.runs import TINY, runs

warnings.filterwarnings("ignore", category=DeprecationWarning)


def smp(arch, encoder, *, channels=3, classes=4, side=32, **options):
    make = lambda: SMP(channels, classes, arch=arch, encoder=encoder, options=options)  # noqa: E731
    return make, (1, channels, side, side)


def torchvision(arch):
    return lambda: TorchvisionModel(3, 4, arch=arch), (1, 3, 32, 32)


NETWORKS = {
    "SegNet": (lambda: SegNet(3, 4, width=4, depth=2), (1, 3, 16, 16)),
    "seed_cnn": (lambda: SeedCNN(1, 4, width=8, hidden=16, image_size=(32, 32)), (1, 1, 32, 32)),
    "Unet": smp("Unet", "tu-test_efficientnet", encoder_depth=3, decoder_channels=[16] * 3,
                decoder_attention_type="scse"),
    "UnetPlusPlus": smp("UnetPlusPlus", "tu-test_resnet", channels=1, encoder_depth=3,
                        decoder_channels=[16, 8, 8]),
    "FPN": smp("FPN", "efficientnet-b0", encoder_depth=3, decoder_pyramid_channels=32,
               decoder_segmentation_channels=32),
    "Linknet": smp("Linknet", "tu-mobilenetv2_035", channels=1, encoder_depth=3),
    "DeepLabV3Plus": smp("DeepLabV3Plus", "tu-test_resnet", encoder_depth=4, decoder_channels=16),
    "PAN": smp("PAN", "tu-test_resnet", side=128, decoder_channels=16),
    "MAnet": smp("MAnet", "tu-test_efficientnet", channels=1, encoder_depth=3,
                 decoder_channels=[16, 8, 8], decoder_pab_channels=8),
    "UPerNet": smp("UPerNet", "tu-test_convnext", decoder_channels=16),
    "Segformer": smp("Segformer", "tu-test_resnet", classes=1, decoder_segmentation_channels=16),
    "lraspp": torchvision("lraspp_mobilenet_v3_large"),
    "deeplabv3": torchvision("deeplabv3_mobilenet_v3_large"),
}  # fmt: skip
"""Every architecture once, every family of encoders at least once; shape of an example.

Encoders have few layers: `torch.export`, which takes most of the time, is slow in their number.
"""

TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}


def logits(model, x):
    with torch.no_grad():
        output = model.eval()(x)
    return output["out"] if isinstance(output, dict) else output


def assert_equal(dense, small, x, tolerance):
    expected, got = logits(dense, x), logits(small, x)
    assert float((got - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_with_zeros_of_every_kind(name):
    make, shape = NETWORKS[name]
    model = make().eval()
    x, other = torch.randn(2, *shape, dtype=torch.float64)
    compactor, sizes, found = Compactor(model, x.float()), [], None

    def are_worth_it(zeros):
        """Not none at all, nor so many that the output is the same for all images."""
        if not (zeros.dead or zeros.unread or zeros.layers):
            return False
        plant(zeros, model)
        first, second = (logits(model, image.to(zeros.dtype)) for image in (x, other))
        return bool((first - second).abs().max() > 1e-9 * first.abs().max())

    @settings(max_examples=1 if parameters(model) > 1e6 else 2, deadline=None, derandomize=True,
              database=None, suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(zeros=zeros_of(model).filter(are_worth_it))
    @example(zeros=two_dead_layers(model, torch.float64))
    @example(zeros=two_dead_layers(model, torch.float32))
    def attempt(zeros):
        nonlocal found
        plant(zeros, model)
        compactor.inputs = [x.to(zeros.dtype)]
        found = compactor.compact()
        assert_equal(model, found.model, other.to(zeros.dtype), TOLERANCES[zeros.dtype])
        sizes.append(found.parameters)

    attempt()
    assert all(after <= before for before, after in sizes)
    assert any(after < before for before, after in sizes)
    again = compact(found.model, *compactor.inputs)
    assert again.is_unchanged
    assert again.parameters[0] == again.parameters[1] == found.parameters[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "penalty",
    [
        ["regularizer=l1", "regularizer.alpha=2e-3"],
        ["regularizer=group_l1", "regularizer.alpha=6e-4"],
        ["regularizer=mcp", "regularizer.alpha=2e-3"],
        ["regularizer=l1", "regularizer.alpha=2e-3", "regularizer.solver=frozen"],
        ["regularizer=l1", "regularizer.alpha=2e-3", "regularizer.solver=factorized"],
    ],
    ids=["l1", "group_l1", "mcp", "frozen", "factorized"],
)
@pytest.mark.usefixtures("undrawn")
def test_a_trained_network(penalty, tmp_path, monkeypatch):
    """Equal on validation images: no pixel changes its class."""
    monkeypatch.chdir(tmp_path)
    options = ["trainer.epochs=4", "trainer.kkt_every=null"]
    assert main(["train", *TINY, *penalty, *options]) == 0
    run = load_run(runs(tmp_path)[0], "val", device="cpu")
    x = torch.cat([images for images, _ in run.batches.epoch()])
    dense = run.experiment.loop.model.eval()
    compactor = Compactor(dense, x[:1])
    for dtype, tolerance in TOLERANCES.items():
        model, images = dense.to(dtype), x.to(dtype)
        compactor.inputs = [images[:1]]
        found = compactor.compact()
        assert found.is_unchanged == ("regularizer.solver=factorized" in penalty)  # nothing dies
        assert_equal(model, found.model, images, tolerance)
        assert torch.equal(logits(model, images).argmax(1), logits(found.model, images).argmax(1))


class Tokens(nn.Module):
    """A linear layer on the pixels as tokens, as in Segformer."""

    def __init__(self, count):
        super().__init__()
        self.linear = nn.Linear(count, 3)

    def forward(self, x):
        tokens = self.linear(x.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).reshape(len(x), -1, *x.shape[2:])


class Opaque(nn.Module):
    """An operator without a rule."""

    def forward(self, x):
        return x.cumsum(1)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Conv2d(3, 1, 1), Tokens(1), nn.Conv2d(3, 2, 1)),
        nn.Sequential(nn.Conv2d(3, 5, 1), Opaque(), nn.Conv2d(5, 1, 1), nn.Conv2d(1, 2, 1)),
        nn.Sequential(nn.Conv2d(3, 1, 1), nn.Conv2d(1, 1, (1, 3)), nn.Conv2d(1, 2, 1)),
    ],
    ids=["one channel is flattened", "an opaque input", "a kernel like a vector"],
)
@pytest.mark.parametrize("dead", [False, True])
def test_a_layer_of_one_channel_keeps_the_shape_of_its_weight(model, dead):
    model = randomize(model, 0, dead=0, unread=0)
    if dead:
        model[0].weight.data.zero_()
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    small = compact(model, x).model
    assert_equal(model, small, torch.randn_like(x), 1e-12)
    assert small[0].out_channels == model[0].out_channels or dead


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Foreign(nn.Module):
    """Leaves torch."""

    def forward(self, x):
        return torch.from_numpy(x.numpy() + 1)


@torch.library.custom_op("seg_l1_tests::untraceable", mutates_args=())
def untraceable(x: torch.Tensor) -> torch.Tensor:
    return x + 1


class Custom(nn.Module):
    """Has an operator of which torch does not know the shape of the output."""

    def forward(self, x):
        return untraceable(x)


@pytest.mark.parametrize(
    ("model", "channels"),
    [(Branching(), 3), (Foreign(), 3), (Custom(), 3), (nn.Conv2d(3, 2, 1), 1)],
)
def test_what_cannot_be_captured_is_refused_in_one_line(model, channels, capfd):
    with pytest.raises(CaptureError) as caught:
        compact(model, torch.zeros(1, channels, 8, 8))
    message = str(caught.value)
    assert "\n" not in message
    assert capfd.readouterr().err == ""
    assert message.startswith("torch.export cannot capture the network: ")
    assert 50 < len(message) < 300
