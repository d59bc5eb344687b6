"""`model.safetensors`: other libraries load it, and its metadata say how to use it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from seg_l1.config.compose import compose_plain
from seg_l1.models.tiles import tiled
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.weights import read_weights, write_weights
from seg_l1.training.network import build_model
from seg_l1.training.prediction import load_predictor
from tests.support.runs import TINY


def theirs(name: str, classes: int) -> nn.Module:
    """The network of the other library."""
    if name == "smp":
        smp = pytest.importorskip("segmentation_models_pytorch")
        return smp.Unet("resnet18", encoder_weights=None, classes=classes)
    from torchvision.models import segmentation

    more = {"aux_loss": True} if name.startswith("deeplab") else {}
    build = getattr(segmentation, name)
    return build(weights=None, weights_backbone=None, num_classes=classes, **more)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("smp", []),
        ("lraspp_mobilenet_v3_large", []),
        ("deeplabv3_mobilenet_v3_large", ["model.aux=true"]),
    ],
)
def test_weights_load_into_the_classes_of_other_libraries(name, words, tmp_path):
    model = build_model(compose_plain([f"model={name}", *words]), 3, 5).eval()
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1)
    path = tmp_path / "model.safetensors"
    write_weights(path, model, {})
    other = theirs(name, 5)
    other.load_state_dict(load_file(path))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        out = other.eval()(images)
        ours = model(images)
    assert torch.allclose(ours, out if name == "smp" else out["out"], atol=1e-5)
    names = list(model.state_dict())[:3]
    found = read_weights(path, names)
    assert all(np.array_equal(found[n], model.state_dict()[n].numpy()) for n in names)


def test_a_file_of_an_older_version_is_read(tmp_path):
    """It has the names of this program, and no prefix."""
    path = tmp_path / "model.safetensors"
    save_file({"net.weight": torch.ones(2)}, path, {"classes": "a,b"})
    assert read_weights(path, ["net.weight"])["net.weight"].tolist() == [1, 1]


def test_the_same_weights_are_the_same_file(tmp_path):
    about = {name: [1.5] for name in "zyxabc"}
    for number in range(8):
        write_weights(tmp_path / str(number), nn.Linear(3, 2, bias=False).to(torch.float16), about)
        with safe_open(tmp_path / str(number), "pt") as file:
            assert file.get_tensor("weight").shape == (2, 3)
    heads = {(tmp_path / str(number)).read_bytes()[:-12] for number in range(8)}
    assert len(heads) == 1


def test_metadata_and_weights_are_enough_to_predict(command, tmp_path):
    words = [*TINY, "trainer.epochs=1", "trainer.kkt_every=null", "hydra.run.dir=run"]
    assert command(*words)[0] == 0
    record = RunDirectory(tmp_path / "run")
    with safe_open(record.weights, "pt") as file:
        about = {k: json.loads(v) for k, v in file.metadata().items() if k not in _PLAIN}
    assert about["classes"] == ["background", *map(str, range(10))]
    assert (about["channels"], about["image_size"], about["fit"]) == (3, [48, 48], "resize")
    model = build_model({"model": about["model"]}, about["channels"], len(about["classes"]))
    model.load_state_dict(load_file(record.weights))
    predictor = load_predictor(record.path)
    pixels = torch.randint(0, 256, (1, 3, 48, 48), dtype=torch.uint8)
    mean, std = (torch.tensor(about[k]).view(1, -1, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        ours = model.eval()((pixels / 255 - mean) / std)
        expected = tiled(predictor._logits, pixels, None)
    assert torch.allclose(ours, expected, atol=1e-4)


_PLAIN = ("format", "prefix")
