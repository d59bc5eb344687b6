"""ONNX files give the outputs of their networks at every batch and size."""

from __future__ import annotations

import logging

import onnx
import pytest
import torch
from torch import nn

from seg_l1.deployment import onnx_file
from seg_l1.deployment.onnx_file import ExportError, OnnxNetwork, export, run, to_onnx
from seg_l1.errors import UserError
from seg_l1.models.seed_cnn import SeedCNN
from seg_l1.models.segnet import SegNet
from seg_l1.models.smp import SMP
from seg_l1.models.torchvision_models import TorchvisionModel
from seg_l1.models.unet import UNet

pytestmark = pytest.mark.slow


def smp(arch, **options):
    return lambda: SMP(3, 4, arch=arch, options=options)


def torchvision(arch):
    return lambda: TorchvisionModel(3, 4, arch=arch)


NETWORKS = {
    "unet": lambda: UNet(3, 4, width=4, depth=2),
    "flat_unet": lambda: UNet(3, 4, width=4, depth=1, growth=1.0, norm="group"),
    "segnet": lambda: SegNet(3, 4, width=4, depth=2),
    "seed_cnn": lambda: SeedCNN(3, 4, width=4, hidden=8, image_size=(32, 32)),
    "lraspp_mobilenet_v3_large": torchvision("lraspp_mobilenet_v3_large"),
    "deeplabv3_mobilenet_v3_large": torchvision("deeplabv3_mobilenet_v3_large"),
    "fcn_resnet50": torchvision("fcn_resnet50"),
    "deeplabv3_resnet50": torchvision("deeplabv3_resnet50"),
    "smp": smp("Unet", encoder_depth=3, decoder_channels=[16, 8, 8]),
    "smp FPN": smp("FPN", encoder_depth=3),
    "smp DeepLabV3Plus": smp("DeepLabV3Plus", encoder_depth=4),
}
"""Every option of conf/model, and three architectures of smp."""


def trained(model: nn.Module) -> nn.Module:
    """Gives batch norms the statistics and factors of a trained network."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return model


def shallow(model: nn.Module) -> nn.Module:
    """Leaves out residual blocks like the one before, which export as that one does."""
    for name, module in [*model.named_modules()]:
        repeated = (
            getattr(module, "downsample", module) is None and not name.endswith("layer1.0")
        ) or (getattr(module, "use_res_connect", False) and not name.endswith(".1"))
        if repeated:
            model.set_submodule(name, nn.Identity())
    return model


@torch.no_grad()
def relative_difference(model: nn.Module, content: bytes, images: torch.Tensor) -> float:
    expected = model.eval()(images)
    return float((run(content, images) - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_of_a_network_gives_its_outputs_at_every_size(name):
    model = trained(shallow(NETWORKS[name]())).train()
    found = export(model, torch.randn(1, 3, 32, 32))
    assert all(module.training for module in model.modules())
    fixed = name == "seed_cnn"
    assert found.dynamic == (("batch",) if fixed else ("batch", "height", "width"))
    assert ("built for images of (32, 32)" in found.reason) == fixed
    for batch, height, width in ((1, 37, 45), (1, 32, 32), (3, 129, 67)):
        size = (32, 32) if fixed else (height, width)
        assert relative_difference(model, found.content, torch.randn(batch, 3, *size)) < 3e-5


@pytest.fixture(scope="module")
def unet() -> tuple[nn.Module, OnnxNetwork]:
    torch.manual_seed(0)
    model = trained(UNet(1, 2, width=4, depth=1))
    return model, export(model, torch.randn(2, 1, 33, 35), output="logits")


def test_names_axes_and_one_file(unet):
    _, found = unet
    graph = onnx.load_from_string(found.content).graph
    ((images,), (scores,)) = graph.input, graph.output
    assert (images.name, scores.name) == ("images", "logits")
    sizes = [[d.dim_param or d.dim_value for d in x.type.tensor_type.shape.dim]
             for x in (images, scores)]  # fmt: skip
    assert sizes[0] == ["batch", 1, "height", "width"]
    assert sizes[1][:2] == ["batch", 2]
    assert not any(tensor.external_data for tensor in graph.initializer)


def test_batch_norms_are_folded(unet):
    _, found = unet
    graph = onnx.load_from_string(found.content).graph
    assert "BatchNormalization" not in {node.op_type for node in graph.node}


def test_nothing_is_printed_or_logged(capfd, caplog):
    to_onnx(nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 4, 4), dynamic=False)
    said = capfd.readouterr()
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (said.out, said.err, warned) == ("", "", [])


def test_a_fixed_file_takes_the_size_of_the_example_alone():
    net = nn.Conv2d(1, 2, 1)
    found = export(net, torch.zeros(3, 1, 5, 7), dynamic=False)
    assert found.dynamic == ()
    assert run(found.content, torch.zeros(3, 1, 5, 7)).shape == (3, 2, 5, 7)
    with pytest.raises(Exception, match="Got invalid dimensions"):
        run(found.content, torch.zeros(1, 1, 5, 7))


class DataDependent(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


def test_a_network_that_cannot_be_exported_is_refused_with_the_reason():
    with pytest.raises(ExportError, match="cannot be exported to ONNX: "):
        export(DataDependent(), torch.ones(1, 1, 4, 4), dynamic=False)


def test_a_file_with_other_outputs_is_refused(monkeypatch):
    """As if the exporter had folded a wrong bias."""
    true, wrong = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1)
    exported = onnx_file._exported
    monkeypatch.setattr(onnx_file, "_exported", lambda model, *rest: exported(wrong, *rest))
    with pytest.raises(ExportError, match="outputs differ"):
        export(true, torch.randn(1, 1, 4, 4), dynamic=False)


def test_a_missing_package_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None if name == "onnx" else True)
    with pytest.raises(UserError, match=r"pip install 'seg-l1\[export\]'"):
        to_onnx(nn.Conv2d(1, 2, 1), torch.zeros(1, 1, 4, 4))
