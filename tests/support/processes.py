"""What test_distributed trains in several processes: short trainings, many in one start."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from seg_l1 import distributed
from seg_l1.config.compose import compose_plain
from seg_l1.data.batches import Batches
from seg_l1.experiments import jobs
from seg_l1.penalties import L1, Zero
from seg_l1.runs import checkpoints
from seg_l1.runs.files import Config
from seg_l1.training.build import build
from tests.support.penalties import FIRST

COMMON = [
    "dataset.num_train=104", "dataset.num_val=23", "dataset.num_test=8", "dataset.batch_size=5",
    "dataset.image_size=[24,24]", "dataset.digits_per_scene=[1,2]", "regularizer.alpha=1e-3",
    "trainer.epochs=1", "trainer.kkt_every=null",
]  # fmt: skip
"""20 steps of 5 images, of which one process has 3 and the other 2; validation of 20 + 3."""

UNET = ["model.width=4", "model.depth=1"]
SHORT = [*UNET, "limit.train=30"]
SOLVERS = ["proximal", "subgradient", "dual_averaging", "factorized"]
REGULARIZERS = {
    option: "proximal" if isinstance(penalty, Zero) or hasattr(penalty, "prox") else "factorized"
    for option, penalty in FIRST.items()
}
"""Each with one solver, and l1 with all: they see only gradients that have been summed."""

WITH_BATCH_NORM = [o for o, penalty in FIRST.items() if isinstance(penalty, Zero | L1)]
"""The others have a norm per image, which is quicker: a batch norm asks all processes."""

OTHERS = {
    **{
        f"loss={name}": [*SHORT, f"loss={name}"]
        for name in ("focal", "mae", "dice", "tversky", "lovasz", "cross_entropy_dice")
    },
    "momentum": [*SHORT, "optimizer=sgd"],
    "wrong labels": [*SHORT, "dataset.wrong_labels=0.3", "dataset.class_weights=inverse"],
    "accumulation, unlabeled pixels, clipping": [
        *SHORT, "trainer.accumulate=3", "augmentation=strong", "augmentation.crop=[24,24]",
        "trainer.clip_norm=0.05",
    ],
    "pooled loss, accumulation": [*SHORT, "trainer.accumulate=3", "loss=dice"],
    "certificate": [*SHORT, "trainer.kkt_every=1", "trainer.kkt_images=15"],
    "a process without an image": [*SHORT, "dataset.batch_size=1", "limit.train=8"],
    "an image each, one value per channel, an auxiliary head, dropout of single values": [
        "model=deeplabv3_mobilenet_v3_large", "model.aux=true", "dataset.batch_size=2",
        "limit.train=4", "limit.val=3", "loss=dice", "regularizer.dropout=0.2",
    ],
}  # fmt: skip

CASES = {
    f"{name}, {solver}": [*norm, *UNET, f"regularizer={name}", f"regularizer.solver={solver}"]
    for name, solver in [*REGULARIZERS.items(), *(("l1", solver) for solver in SOLVERS)]
    for norm in ([] if name in WITH_BATCH_NORM else ["model.norm=group"],)
} | OTHERS
"""In float64, where what is left of a difference is no rounding."""

SMOOTH = ["model.norm=group", "regularizer.alpha=1e-2"]
FLOAT32 = {
    f"{solver}, {optimizer} {rate}": [
        *UNET, *SMOOTH, f"regularizer.solver={solver}", f"optimizer={optimizer}",
        f"optimizer.lr={rate}",
    ]
    for solver in SOLVERS
    for optimizer, rate in (("sgd", 1e-2), ("adam", 3e-4))
}  # fmt: skip
"""In float32, where 20 steps do not magnify rounding beyond 1e-6."""


def composed(words: list[str]) -> Config:
    """Composes `words`, with L1 where they name no regularizer."""
    named = any(word.startswith("regularizer=") for word in words)
    return compose_plain([*COMMON, *([] if named else ["regularizer=l1"]), *words])


def compose_all() -> None:
    """Composes what is trained, so that processes that are forked need not."""
    for words in [*CASES.values(), *FLOAT32.values(), *(words for words, _ in FAULTS.values())]:
        composed(words)


def train(words: list[str], *, double: bool = True) -> dict[str, Any]:
    """Trains one configuration; returns weights, last row, and the counts of the validation."""
    config = composed(words)
    with float64() if double else nullcontext():
        checkpoints.seed_everything(config["seed"])
        loop = build(config, jobs.read_data(config)).loop
        *_, row = loop.rows()
        _, counts = loop.evaluate(loop.val)
    row = {name: value for name, value in row.items() if not name.startswith("time/")}
    return {"weights": dict(loop.model.state_dict()), "row": row, "counts": counts}


@contextmanager
def float64() -> Iterator[None]:
    """Everything is computed in float64, also what seg_l1 computes in float32 for good reasons."""
    torch.set_default_dtype(torch.float64)
    normalize = Batches.normalize
    try:
        with (
            patch.object(torch.Tensor, "float", torch.Tensor.double),
            patch.object(Batches, "normalize", lambda *words: normalize(*words).double()),
        ):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def _twice(self: Batches, *words: Any, step: int = 1, **named: Any) -> Any:
    """Both processes score the first batch."""
    return whole_epoch(self, 0, 0, step=step) if step > 1 else whole_epoch(self, *words, **named)


whole_epoch = Batches.epoch
FAULTS: dict[str, tuple[list[str], Callable[[], Any]]] = {
    "gradients are not added up": (
        SHORT,
        lambda: patch.object(distributed, "all_reduce_gradients", lambda weights, beside: beside),
    ),
    "each batch norm sees its part": (
        SHORT,
        lambda: patch.object(distributed, "is_distributed", lambda: False),
    ),
    "each process drops for itself": (
        [*SHORT, "model.norm=group", "regularizer=dropout"],
        lambda: patch.object(distributed, "is_distributed", lambda: False),
    ),
    "a pooled loss is taken of parts": (
        [*SHORT, "loss=dice"],
        lambda: patch(
            "seg_l1.training.loop.gather_outputs", lambda output, masks, images: (output, masks)
        ),
    ),
    "a batch is scored twice": (SHORT, lambda: patch.object(Batches, "epoch", _twice)),
}
"""Mistakes that are planted: the configuration that must show each, and how to plant it."""


def train_all(words: list[str]) -> int:
    """Trains `CASES`, `FLOAT32` and the `FAULTS`; rank 0 saves what came of them into a file."""
    torch.set_num_threads(1)
    distributed.init()
    (file,) = map(Path, words)
    download = file.with_suffix(".downloaded")
    with distributed.rank_zero_first():
        if distributed.rank() == 0:
            time.sleep(0.5)
            download.touch()
        assert download.exists()
    results = {name: train(words) for name, words in CASES.items()}
    results |= {name: train(words, double=False) for name, words in FLOAT32.items()}
    for name, (words, planted) in FAULTS.items():
        with planted():
            results[name] = train(words)
    if distributed.rank() == 0:
        torch.save(results, file)
    distributed.any_rank(False)  # rank 0 has saved
    distributed.shutdown(0)
