"""Twenty networks with dead channels, compacted by seg_l1 and by Torch-Pruning.

    python -m benchmarks.compaction_networks [--constants] [--limit 120] [--only unet segnet]

Torch-Pruning needs `pip install "seg-l1[peers]"`. Every network has random weights in float64;
layers of equal width have the same dead channels, 40 % of them, so that whole residual streams lose
some. Without --constants dead channels are 0: biases and norm layers have 0 there. With it, they
have what these make of 0, as after training. Each pair of network and program runs in a process of
its own, at most --limit seconds. Right: no logit of two noise images differs by more than 1e-10 of
the largest.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.torch_pruning_peer import CONVOLUTIONS, prune
from seg_l1.compaction import compact
from seg_l1.metrics.sparsity import multiply_adds, parameters
from seg_l1.models.seed_cnn import SeedCNN
from seg_l1.models.segnet import SegNet
from seg_l1.models.smp import SMP
from seg_l1.models.torchvision_models import TorchvisionModel
from seg_l1.models.unet import UNet

CLASSES = 5
SIZE = (128, 128)
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def _smp(arch: str, encoder: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: SMP(3, CLASSES, arch=arch, encoder=encoder, options=options)


def _torchvision(arch: str) -> Callable[[], nn.Module]:
    return lambda: TorchvisionModel(3, CLASSES, arch=arch)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet": lambda: UNet(3, CLASSES),
    "flat_unet": lambda: UNet(3, CLASSES, growth=1.0),
    "unet, group norm": lambda: UNet(3, CLASSES, norm="group"),
    "segnet": lambda: SegNet(3, CLASSES),
    "seed_cnn": lambda: SeedCNN(3, CLASSES, width=16, hidden=64, image_size=SIZE),
    "lraspp_mobilenet_v3_large": _torchvision("lraspp_mobilenet_v3_large"),
    "deeplabv3_mobilenet_v3_large": _torchvision("deeplabv3_mobilenet_v3_large"),
    "deeplabv3_resnet50": _torchvision("deeplabv3_resnet50"),
    "fcn_resnet50": _torchvision("fcn_resnet50"),
    "Unet, resnet18": _smp("Unet", "resnet18"),
    "Unet, resnet18, scse": _smp("Unet", "resnet18", decoder_attention_type="scse"),
    "UnetPlusPlus, mobilenet_v2": _smp("UnetPlusPlus", "mobilenet_v2"),
    "FPN, efficientnet-b0": _smp("FPN", "efficientnet-b0"),
    "Linknet, resnet18": _smp("Linknet", "resnet18"),
    "DeepLabV3Plus, mobilenet_v2": _smp("DeepLabV3Plus", "mobilenet_v2"),
    "PAN, resnet18": _smp("PAN", "resnet18"),
    "MAnet, tu-mobilenetv3_small_100": _smp("MAnet", "tu-mobilenetv3_small_100"),
    "UPerNet, tu-convnext_atto": _smp("UPerNet", "tu-convnext_atto"),
    "Segformer, efficientnet-b0": _smp("Segformer", "efficientnet-b0"),
    "FPN, tu-convnext_atto": _smp("FPN", "tu-convnext_atto"),
}


@torch.no_grad()
def kill(model: nn.Module, *, constants: bool, share: float = 0.4) -> None:
    """Makes a share of the channels of all layers dead, but for those of the heads."""
    draw = torch.Generator().manual_seed(0)
    dead: dict[int, Tensor] = {}
    for module in model.modules():
        if isinstance(module, CONVOLUTIONS):
            transposed = getattr(module, "transposed", False) and module.groups == 1
            filters = module.weight.transpose(0, 1) if transposed else module.weight
        elif isinstance(module, NORMS) and module.weight is not None:
            filters = module.weight
            if constants:
                module.bias.copy_(0.1 * torch.randn(len(filters), generator=draw))
                continue
        else:
            continue
        count = len(filters)
        if count in (1, CLASSES):
            continue
        where = dead.setdefault(count, torch.rand(count, generator=draw) < share)
        filters[where] = 0
        if module.bias is not None and not constants:
            module.bias[where] = 0


def _one(name: str, program: str, constants: bool) -> dict[str, object]:
    """Sizes, largest relative difference and seconds of one network in one program."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = NETWORKS[name]().double().eval()
    kill(model, constants=constants)
    images = torch.randn(2, 3, *SIZE, dtype=torch.float64)
    started = time.perf_counter()
    small = compact(model, images).model if program == "seg_l1" else prune(model, images, CLASSES)
    seconds = time.perf_counter() - started
    with torch.no_grad():
        fresh = torch.randn_like(images)
        expected, got = _logits(model(fresh)), _logits(small(fresh))
    return {
        "parameters": (parameters(model), parameters(small)),
        "multiply_adds": (multiply_adds(model, images), multiply_adds(small, images)),
        "difference": float((got - expected).abs().max() / expected.abs().max()),
        "seconds": seconds,
    }


def _logits(output: Tensor | dict[str, Tensor]) -> Tensor:
    return output["out"] if isinstance(output, dict) else output


def _in_process(name: str, program: str, constants: bool, limit: float) -> str:
    """One cell of the table."""
    flags = ["--constants"] if constants else []
    command = [sys.executable, "-m", "benchmarks.compaction_networks", "--one", name, program]
    try:
        done = subprocess.run(
            [*command, *flags], capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return f"more than {limit:.0f} s"
    if done.returncode:
        return f"fails: {(done.stderr.strip().splitlines() or ['?'])[-1][:70]}"
    found = json.loads(done.stdout.splitlines()[-1])
    verdict = "right" if found["difference"] <= 1e-10 else "wrong"
    before, after = found["parameters"]
    adds_before, adds_after = found["multiply_adds"]
    return (
        f"{verdict} ({found['difference']:.0e}), {100 * after / before:.0f} % of parameters,"
        f" {100 * adds_after / adds_before:.0f} % of multiply-adds, {found['seconds']:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--one", nargs=2, metavar=("NETWORK", "PROGRAM"), help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="+", default=list(NETWORKS))
    parser.add_argument("--constants", action="store_true")
    parser.add_argument("--limit", type=float, default=120)
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(_one(*chosen.one, chosen.constants)))
        return
    print("| network | seg_l1 | Torch-Pruning |\n|---|---|---|")
    for name in chosen.only:
        cells = [
            _in_process(name, program, chosen.constants, chosen.limit)
            for program in ("seg_l1", "torch_pruning")
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
