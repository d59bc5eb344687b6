from __future__ import annotations

import sys
from urllib.error import URLError

import pytest
import torch
from torch import nn

from seg_l1.config.compose import compose_plain
from seg_l1.config.folders import CONF
from seg_l1.errors import UserError
from seg_l1.losses import CrossEntropy, data_term, main_logits
from seg_l1.metrics.shrinkage import scale_invariant_layers
from seg_l1.metrics.sparsity import multiply_adds
from seg_l1.models import TrainingOutput
from seg_l1.models.layers import pad_to_multiple
from seg_l1.models.seed_cnn import SeedCNN
from seg_l1.models.segnet import SegNet
from seg_l1.models.smp import SMP
from seg_l1.models.torchvision_models import TorchvisionModel
from seg_l1.models.unet import UNet
from seg_l1.scope import scope
from seg_l1.training.network import build_model

OPTIONS = sorted(path.stem for path in (CONF / "model").glob("[!_]*.yaml"))
TORCHVISION = [name for name in OPTIONS if "resnet50" in name or "mobilenet" in name]
LRASPP, DEEPLAB = "lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"


def option(name, *overrides, channels=3, classes=5, size=(37, 53)):
    """The network of an option of conf/model, as a run would build it."""
    shape = f"dataset.image_size=[{size[0]},{size[1]}]"
    config = compose_plain([f"model={name}", shape, *overrides])
    return build_model(config, channels, classes)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_option_gives_a_score_per_class_and_pixel_for_odd_sizes(name, channels):
    net, images = option(name, channels=channels), torch.randn(2, channels, 37, 53)
    assert net(images).shape == (2, 5, 37, 53)
    assert net.eval()(images).shape == (2, 5, 37, 53)


@pytest.mark.parametrize("name", OPTIONS)
def test_default_scope_covers_every_tensor_of_an_option(name):
    net = option(name)
    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    weights = {id(m.weight) for _, m in net.named_modules() if isinstance(m, layers)}
    tensors = scope(net)
    assert sorted(id(e.tensor) for e in tensors if e.penalized) == sorted(weights)
    assert sorted(id(e.tensor) for e in tensors) == sorted(map(id, net.parameters()))
    free = {e.kind.__name__ for e in tensors if not e.penalized and e.name.endswith("weight")}
    assert free <= {"BatchNorm2d", "_BatchNorm", "GroupNorm"}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_facts_of_a_run_can_be_taken_of_every_option(name):
    net, image = option(name), torch.zeros(1, 3, 37, 53)
    assert multiply_adds(net, image) == counted_by_hooks(net.eval(), image)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(scale_invariant_layers(net.train(), image)) == len(norms)
    assert net.training


def counted_by_hooks(net, image):
    """Multiply-adds: the weights of a layer, for each place that they are applied at."""
    counts = []

    def count(layer, inputs, output):
        x = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        counts.append(x.numel() * layer.weight[0].numel())

    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            layer.register_forward_hook(count)
    net(image)
    return sum(counts)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (9, 50)])
@pytest.mark.parametrize("channels", [1, 3])
def test_unet_gives_a_score_per_class_and_pixel_for_any_size(norm, size, channels):
    net = UNet(channels, 5, width=4, depth=3, norm=norm)
    assert net(torch.randn(2, channels, *size)).shape == (2, 5, *size)


def test_unet_sees_the_whole_neighbourhood_and_every_weight_has_a_gradient():
    net = UNet(3, 4, width=4, depth=2)
    net(torch.randn(2, 3, 17, 18)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_a_convolution_has_a_bias_only_where_no_norm_follows():
    for norm, expected in (("batch", 1 + 2), ("none", 1 + 2 + 10)):
        net = UNet(3, 4, width=4, depth=2, norm=norm)
        layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        assert sum(layer.bias is not None for layer in layers) == expected


@pytest.mark.parametrize("kind", [UNet, SegNet])
@pytest.mark.parametrize("wrong", [{"norm": "instance"}, {"width": 0}, {"depth": 0}])
def test_what_makes_no_network_is_refused(kind, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        kind(3, 4, **wrong)


def test_a_flat_unet_has_the_same_channels_everywhere():
    net = option("flat_unet", "model.width=6", "model.depth=4")
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert {layer.out_channels for layer in layers if layer is not net.head} == {6}
    assert net.state_dict().keys() == UNet(3, 5, depth=4).state_dict().keys()
    with pytest.raises(ValueError, match="growth"):
        UNet(3, 4, growth=0.5)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (9, 50)])
@pytest.mark.parametrize("depth", [1, 3, 4])
def test_segnet_gives_a_score_per_class_and_pixel_for_any_size(norm, size, depth):
    net = SegNet(1, 5, width=4, depth=depth, norm=norm)
    assert net(torch.randn(2, 1, *size)).shape == (2, 5, *size)


def test_segnet_of_the_papers_size_has_the_encoder_of_vgg16():
    from torchvision.models import vgg16

    net = SegNet(3, 12, width=64, depth=5)
    with torch.device("meta"):
        vgg = vgg16().features

    def shapes(module):
        return [m.weight.shape for m in module.modules() if isinstance(m, nn.Conv2d)]

    assert shapes(net.encoder) == shapes(vgg)
    mirrored = [(a, b, *k) for b, a, *k in reversed(shapes(vgg))]
    assert [tuple(s) for s in shapes(net.decoder[::-1]) + shapes(net.last)] == mirrored[:-1]
    assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == 29.4  # 29.45 M: theirs


def test_segnet_puts_values_back_to_where_the_maxima_were():
    net, seen = SegNet(3, 4, width=4, depth=1), {}
    net.encoder[0].register_forward_hook(lambda m, x, y: seen.update(before=y))
    net.last.register_forward_pre_hook(lambda m, x: seen.update(after=x[0].clone()))
    net(torch.randn(1, 3, 5, 6))
    for channel, back in zip(seen["before"][0], seen["after"][0], strict=True):
        for top in range(0, 5, 2):
            for left in range(0, 6, 2):
                window = (slice(top, top + 2), slice(left, left + 2))
                expected = torch.where(channel[window] == channel[window].max(), 1.0, 0.0)
                torch.testing.assert_close(back[window], expected * channel[window])


@pytest.mark.parametrize("kind", [UNet, SegNet])
def test_dropout_is_that_of_the_regularizer(kind):
    net = kind(3, 4, width=4, dropout=0.25)
    assert {m.p for m in net.modules() if isinstance(m, nn.Dropout2d)} == {0.25}
    assert not [m for m in kind(3, 4, width=4).modules() if isinstance(m, nn.Dropout2d)]


@pytest.mark.parametrize(("channels", "size"), [(1, (28, 28)), (3, (48, 48)), (3, (35, 50))])
def test_seed_cnn_is_the_network_of_the_article(channels, size):
    net = SeedCNN(channels, 11, image_size=size)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [64, 128, 256]
    assert {m.kernel_size for m in convolutions} == {(3, 3)}
    assert net.bottleneck.out_features == 1024
    assert net(torch.randn(2, channels, *size)).shape == (2, 11, *size)
    weights = {name: p.numel() for name, p in net.named_parameters()}
    assert max(weights, key=weights.get) == "bottleneck.weight"


def test_seed_cnn_says_which_size_it_was_built_for():
    with pytest.raises(ValueError, match=r"\(28, 28\).*\(32, 32\)"):
        SeedCNN(1, 2, image_size=(28, 28), width=2, hidden=4)(torch.zeros(1, 1, 32, 32))


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_model_is_that_of_torchvision(name):
    from torchvision.models import get_model

    ours = option(name).eval()
    theirs = get_model(name, num_classes=5, weights=None, weights_backbone=None).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(1, 3, 37, 53)
    torch.testing.assert_close(ours(images), theirs(images)["out"], rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TORCHVISION if name != LRASPP])
def test_auxiliary_head_trains_along(name):
    net = option(name, "model.aux=true", "model.aux_weight=0.3")
    images, masks = torch.randn(2, 3, 37, 53), torch.randint(0, 5, (2, 37, 53))
    output = net(images)
    assert isinstance(output, TrainingOutput)
    assert output.main.shape == output.aux.shape == (2, 5, 37, 53)
    criterion = CrossEntropy()
    loss = data_term(criterion, output, masks)
    expected = criterion(output.main, masks) + 0.3 * criterion(output.aux, masks)
    assert loss.item() == pytest.approx(expected.item())
    assert main_logits(output) is output.main
    loss.backward()
    assert all(p.grad is not None for p in net.parameters())
    net.eval()
    assert isinstance(net(images), torch.Tensor)
    assert not [n for n, _ in option(name).named_parameters() if n.startswith("aux_classifier")]


def test_data_term_of_plain_logits_is_the_loss_itself():
    logits, masks = torch.randn(2, 5, 6, 7), torch.randint(0, 5, (2, 6, 7))
    assert data_term(CrossEntropy(), logits, masks) == CrossEntropy()(logits, masks)
    assert data_term(CrossEntropy(), logits.bfloat16(), masks).dtype == torch.float32


@pytest.mark.parametrize("name", [DEEPLAB, LRASPP])
def test_a_batch_of_one_small_image_can_be_trained_on(name):
    net = option(name)
    net(torch.randn(1, 3, 16, 16)).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_a_batch_norm_of_one_value_takes_its_running_statistics():
    norm = option(DEEPLAB).classifier[0].convs[-1][2]
    torch.nn.init.normal_(norm.weight)
    norm.running_mean.normal_()
    x, before = torch.randn(1, 256, 1, 1), norm.running_mean.clone()
    assert torch.equal(norm(x), norm.eval()(x))
    assert torch.equal(norm.running_mean, before)
    two = torch.randn(2, 256, 1, 1)
    plain = nn.BatchNorm2d(256)
    plain.load_state_dict(norm.state_dict())
    assert torch.equal(norm.train()(two), plain(two))


@pytest.fixture
def download(monkeypatch):
    """Serves a state dict in place of what torchvision would download."""

    def serve(state):
        monkeypatch.setattr(
            "torchvision.models._api.load_state_dict_from_url", lambda url, **more: state
        )
        return state

    return serve


def trained_lraspp():
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None).state_dict()


@pytest.mark.parametrize(("classes", "new_layers"), [(21, 0), (5, 2)])
def test_trained_weights_are_kept_but_for_other_classes(classes, new_layers, download):
    state = download(trained_lraspp())
    net = option(LRASPP, "model.weights=DEFAULT", classes=classes)
    found = net.state_dict()
    same = {n for n, x in state.items() if x.shape == found[n].shape and torch.equal(x, found[n])}
    assert len(state) - len(same) == 2 * new_layers  # weight and bias
    assert found.keys() == option(LRASPP).state_dict().keys()
    assert net(torch.randn(2, 3, 32, 32)).shape[1] == classes


@pytest.mark.parametrize("aux", ["true", "false"])
def test_trained_weights_leave_the_choice_of_the_auxiliary_head(aux, download):
    from torchvision.models.segmentation import deeplabv3_mobilenet_v3_large

    state = download(
        deeplabv3_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=21, aux_loss=True
        ).state_dict()
    )
    net = option(DEEPLAB, "model.weights=DEFAULT", f"model.aux={aux}", classes=21)
    names = {n for n in state if aux == "true" or not n.startswith("aux_classifier")}
    assert net.state_dict().keys() == names
    assert all(torch.equal(net.state_dict()[name], state[name]) for name in names)


def test_trained_weights_see_grey_images_as_colour_images_of_that_grey(download):
    download(trained_lraspp())
    colour = option(LRASPP, "model.weights=DEFAULT", classes=21).eval()
    grey = option(LRASPP, "model.weights=DEFAULT", classes=21, channels=1).eval()
    images = torch.randn(1, 1, 40, 40)
    torch.testing.assert_close(grey(images), colour(images.expand(-1, 3, -1, -1)))


def test_trained_backbone_is_kept(download):
    from torchvision.models import mobilenet_v3_large

    state = download(mobilenet_v3_large().state_dict())
    net = option(LRASPP, "model.weights_backbone=IMAGENET1K_V2")
    assert torch.equal(net.backbone["1"].block[0][0].weight, state["features.1.block.0.0.weight"])


@pytest.mark.parametrize("key", ["weights", "weights_backbone"])
def test_a_refused_download_says_what_goes_where(key, monkeypatch):
    def refuse(url, **more):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    expected = rf"model.{key}: https://.*\.pth .*no network.*checkpoints.*model.{key}=null"
    with pytest.raises(UserError, match=expected):
        option(LRASPP, f"model.{key}=DEFAULT")


def test_a_broken_file_of_weights_is_a_user_error(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "lraspp_mobilenet_v3_large-d234d4ea.pth").write_bytes(b"half")
    with pytest.raises(UserError, match=r"model.weights: .* could not be .*read"):
        option(LRASPP, "model.weights=DEFAULT")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"arch": "deeplabv3_resnet5"}, "Did you mean 'deeplabv3_resnet50'"),
        ({"weights": "COCO"}, "There are COCO_WITH_VOC_LABELS_V1, DEFAULT"),
        ({"weights_backbone": "IMAGENET"}, "There are IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT"),
        ({"weights": "DEFAULT", "weights_backbone": "DEFAULT"}, "choose one"),
        ({"aux": True}, "no auxiliary head"),
        ({"dropout": 0.1}, "no dropout layer"),
    ],
)
def test_torchvision_model_refuses_what_there_is_not(wrong, message):
    with pytest.raises(ValueError, match=message):
        TorchvisionModel(3, 4, **{"arch": LRASPP, **wrong})


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_dropout_of_the_heads_is_that_of_the_regularizer(rate):
    net = option(DEEPLAB, "model.aux=true", f"regularizer.dropout={rate}")
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout)] == [rate, rate]


def test_padding_repeats_the_border():
    images = torch.arange(6.0).view(1, 1, 2, 3)
    padded = pad_to_multiple(images, 4)[0, 0]
    rows = [[0, 1, 2, 2], [3, 4, 5, 5]]
    assert padded.tolist() == [*rows, rows[1], rows[1]]
    assert torch.equal(pad_to_multiple(images, 1), images)


@pytest.mark.parametrize("arch", ["Linknet", "DeepLabV3Plus", "PSPNet", "FPN"])
@pytest.mark.parametrize("size", [(37, 53), (64, 32)])
def test_smp_takes_images_of_any_size(arch, size):
    net = SMP(3, 4, arch=arch)
    images = torch.randn(1, 3, *size)
    assert net(images).shape == (1, 4, *size)
    inner = net.eval().net(pad_to_multiple(images, net.multiple))
    assert torch.equal(net(images), inner[..., : size[0], : size[1]])


def test_smp_passes_options_on():
    net = SMP(1, 4, options={"encoder_depth": 3, "decoder_channels": [16, 8, 4]})
    assert net.net.segmentation_head[0].in_channels == 4
    assert {m.p for m in SMP(3, 4, arch="PSPNet", dropout=0.3).modules()
            if isinstance(m, nn.Dropout2d)} == {0.3}  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"arch": "unet"}, "Did you mean 'Unet'"),
        ({"encoder": "resnet81"}, "Did you mean 'resnet18'"),
        ({"encoder": "tu-resnt18"}, "Did you mean 'tu-resnet18'"),
        ({"encoder_weights": "imagnet"}, "Did you mean 'imagenet'"),
        ({"options": {"encoder_dept": 3}}, "Did you mean 'encoder_depth'"),
        ({"options": {"aux_params": {}}}, "takes no 'aux_params'"),
        ({"options": {"encoder_depth": 9}}, "depth should be in range"),
        ({"dropout": 0.1}, "no dropout layer"),
    ],
)
def test_smp_refuses_what_there_is_not(wrong, message):
    with pytest.raises(ValueError, match=message):
        SMP(3, 4, **wrong)


def test_smp_says_how_to_get_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(UserError, match="pip install segmentation-models-pytorch"):
        SMP(3, 4)


def test_smp_says_what_to_do_where_the_download_is_refused(monkeypatch):
    def refuse(*arguments, **more):
        raise OSError("no network")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", refuse)
    with pytest.raises(UserError, match=r"no network.*HF_HOME.*model.encoder_weights=null"):
        SMP(3, 4, encoder_weights="imagenet")
