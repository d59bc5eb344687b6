"""Short trainings whose losses and final weights are stored in ``losses.json``.

``tests/test_golden.py`` repeats every training and compares it with the stored numbers. A
refactoring must reproduce them. Record them again only when a change of behaviour is intended,
and say so in the commit message. To record all cases::

    python -m tests.golden.record

A training takes ten optimizer steps of a small U-Net through the training loop, with all that
``build`` makes of a composed configuration. Images and initial weights come from a generator whose
stream numpy keeps fixed, and everything is computed in float64. Between processors and numbers of
threads the stored numbers then differ by less than 1e-12; the test allows 1e-8.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from seg_l1.config.compose import compose_plain
from seg_l1.data.split import SegmentationData, TensorSplit

# The only imports from the package: when modules move, nothing but these lines changes.
from seg_l1.training.build import build

FILE = Path(__file__).with_name("losses.json")
STEPS = 10
CLASSES = ["ground", "square", "stripe"]

COMMON = [
    "device=cpu",
    "model.width=2",
    "model.depth=2",
    "dataset.class_weights=[0.5,1.0,2.0]",
    "dataset.batch_size=2",
    "trainer.epochs=2",
    "trainer.log_every=1",
    "trainer.kkt_every=null",
]
"""Ten images in batches of two: five steps per epoch."""

SGD = ["optimizer=sgd", "optimizer.momentum=0.9", "optimizer.lr=0.05"]
ADAM = ["optimizer=adam", "optimizer.lr=0.02"]
CLIP = ["trainer.clip_norm=0.7"]
LOW_CLIP = ["trainer.clip_norm=0.3"]
PAIRS = ["dataset.batch_size=1", "trainer.accumulate=2"]
UNEVEN = ["dataset.batch_size=1", "trainer.accumulate=6", "trainer.epochs=5"]
"""Ten batches of one image per epoch: six of them make the first step, four the second."""

SCOPE = [
    "regularizer.scope=[{name: 'down.*weight', types: [Conv2d], penalize: true, factor: 2.0},"
    "{name: 'up.*weight', types: [ConvTranspose2d], penalize: true, factor: 0.5},"
    "{name: '*', penalize: false}]"
]
"""Two factors ω, and tensors without a penalty."""
RAMP = ["regularizer.schedule=linear", "regularizer.schedule_epochs=1"]


def _words(solver: str, regularizer: str, alpha: float, *others: list[str]) -> list[str]:
    """The overrides of one case."""
    chosen = [f"regularizer={regularizer}", f"regularizer.solver={solver}"]
    strength = [f"regularizer.alpha={alpha}"]
    return [*COMMON, *chosen, *strength, *(word for words in others for word in words)]


CASES = {
    "proximal-sgd-l1": _words("proximal", "l1", 0.03, SGD),
    "proximal-sgd-elastic_net-clip": _words("proximal", "elastic_net", 0.1, SGD, CLIP),
    "proximal-sgd-mcp-accumulate": _words("proximal", "mcp", 0.05, SGD, UNEVEN),
    "proximal-sgd-group_l1": _words("proximal", "group_l1", 0.4, SGD, RAMP),
    "proximal-adam-l1-scope": _words("proximal", "l1", 0.01, ADAM, SCOPE),
    "proximal-adam-l2": _words("proximal", "l2", 0.1, ADAM),
    "proximal-adam-group_l1-clip": _words("proximal", "group_l1", 0.04, ADAM, CLIP),
    "proximal-adam-sparse_group_l1": _words("proximal", "sparse_group_l1", 0.01, ADAM),
    "proximal-adam-reweighted_l1": _words("proximal", "reweighted_l1", 0.02, ADAM, PAIRS),
    "subgradient-sgd-l1-clip": _words("subgradient", "l1", 0.03, SGD, CLIP),
    "subgradient-adam-elastic_net-scope": _words("subgradient", "elastic_net", 0.02, ADAM, SCOPE),
    "factorized-sgd-l1-scope": _words("factorized", "l1", 0.2, SGD, SCOPE),
    "factorized-adam-bridge-clip": _words("factorized", "bridge", 0.1, ADAM, CLIP),
    "dual_averaging-sgd-elastic_net-clip": _words("dual_averaging", "elastic_net", 0.1, SGD, CLIP),
    "dual_averaging-adam-l1-scope": _words("dual_averaging", "l1", 0.01, ADAM, PAIRS, SCOPE),
    "frozen-sgd-l1-accumulate": _words("frozen", "l1", 0.02, SGD, UNEVEN),
    "frozen-adam-mcp-clip": _words("frozen", "mcp", 0.01, ADAM, LOW_CLIP),
}


def train(words: list[str]) -> dict[str, Any]:
    """Trains with the configuration that `words` override, and returns the numbers to compare.

    These are the data loss of every step, and for every penalised tensor the L1 and L2 norms and
    the number of exact zeros after the last one.
    """
    config, losses = compose_plain(words), []
    with _float64(), tempfile.TemporaryDirectory() as folder:
        data = _data(np.random.RandomState(0))
        state = build(config, data).loop.model.state_dict()
        _fill(state, np.random.RandomState(1), zeros=config["regularizer"]["solver"] == "frozen")
        config["start"] = str(Path(folder) / "start.pt")
        torch.save({"model": state}, config["start"])
        loop = build(config, data).loop
        loop.model.register_forward_pre_hook(lambda _, images: (images[0].double(),))
        for _ in loop.rows(on_step=lambda _, loss: losses.append(loss)):
            pass
    assert len(losses) == STEPS
    penalised = [entry for entry in loop.tensors if entry.penalized]
    assert all(entry.tensor.dtype == torch.float64 for entry in penalised)
    assert any(loss != float(np.float32(loss)) for loss in losses), "the losses are float32"
    return {
        "losses": losses,
        "tensors": {entry.name: _numbers(entry.tensor.detach()) for entry in penalised},
    }


def _numbers(weights: Tensor) -> dict[str, float | int]:
    return {
        "l1": float(weights.abs().sum()),
        "l2": float(weights.square().sum().sqrt()),
        "zeros": int((weights == 0).sum()),
    }


def _data(random: np.random.RandomState) -> SegmentationData:
    """Ten noisy images of 12 x 12 pixels for training and two for validation, partly unlabeled.

    They are normalised to multiples of 1/128, which float32 holds exactly.
    """
    splits = {}
    for name, count in (("train", 10), ("val", 2)):
        masks = np.zeros((count, 12, 12), dtype=np.uint8)
        for mask in masks:
            top, left, row = random.randint(0, 7, size=3)
            mask[top : top + 5, left : left + 5] = 1
            mask[row + 2] = 2
        noise = random.randint(0, 128, size=(count, 1, 12, 12))
        images = (noise + 60 * masks[:, None]).astype(np.uint8)
        masks[random.random_sample(masks.shape) < np.linspace(0, 0.5, count)[:, None, None]] = 255
        names = [f"{name}{index}" for index in range(count)]
        splits[name] = TensorSplit(torch.from_numpy(images), torch.from_numpy(masks), names)
    return SegmentationData(
        splits=splits,
        classes=CLASSES,
        mean=[0.5],
        std=[64 / 255],
        pixel_shares=[0.6, 0.3, 0.1],
        unlabeled=0.25,
        fingerprint="golden",
    )


def _fill(state: dict[str, Tensor], random: np.random.RandomState, *, zeros: bool) -> None:
    """Writes initial weights into a state: uniform ones (He et al., 2015).

    Args:
        zeros: whether a third of them is set to zero.
    """
    for name, tensor in state.items():
        if tensor.ndim > 1:
            bound = (6 / tensor[0].numel()) ** 0.5
            drawn = random.uniform(-bound, bound, size=tuple(tensor.shape))
            if zeros:
                drawn[random.random_sample(drawn.shape) < 1 / 3] = 0
            tensor.copy_(torch.from_numpy(drawn))
        elif name.endswith("bias"):
            tensor.copy_(torch.from_numpy(random.uniform(-0.1, 0.1, size=tuple(tensor.shape))))


@contextmanager
def _float64() -> Iterator[None]:
    """Makes float64 the dtype of new tensors, of networks built meanwhile, and of logits.

    The loss casts logits by ``Tensor.float``, which is right for mixed precision.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with patch.object(torch.Tensor, "float", torch.Tensor.double):
            yield
    finally:
        torch.set_default_dtype(before)


def main() -> None:
    """Trains all cases and stores their numbers."""
    recorded = {case: train(words) for case, words in CASES.items()}
    FILE.write_text(json.dumps(recorded, indent=1) + "\n", "utf-8")
    print(f"{FILE}: {len(recorded)} cases")


if __name__ == "__main__":
    main()
