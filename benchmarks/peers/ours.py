"""seg_l1: a run as `train.py` makes it, with its tables, pictures, checkpoints and TensorBoard.

It keeps its defaults, such as channels last. With L1 it takes proximal steps on the kernels. It
computes more than the others: training scores of the whole epoch, boundary scores, calibration and
sparsity.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks.peers.task import ALPHA, Clock, Task
from seg_l1.config.check import check_overrides
from seg_l1.config.compose import plain
from seg_l1.config.words import parse
from seg_l1.data.split import SegmentationData, TensorSplit, describe
from seg_l1.display.terminal import Console
from seg_l1.training.run import run

if TYPE_CHECKING:
    from seg_l1.training.loop import Loop


def train(task: Task, *, l1: bool, clock: Clock) -> None:
    """Trains to the end."""
    penalty = ["regularizer=l1", f"regularizer.alpha={ALPHA}"] if l1 else ["regularizer=none"]
    words = [
        *penalty, f"trainer.epochs={task.epochs}", f"trainer.threads={task.threads}",
        f"dataset.batch_size={task.batch_size}", f"optimizer.lr={task.rate}",
        "dataset.class_weights=null", "trainer.compact=false",
    ]  # fmt: skip
    config = plain(check_overrides(*parse(words)))

    def attach(loop: Loop) -> None:
        loop.optimizer.register_step_post_hook(lambda *_: clock.stepped())
        evaluate = loop.evaluate

        def evaluate_after_training(batches, per_image=None):
            if batches is loop.val and loop.batch:
                clock.trained()
            return evaluate(batches, per_image)

        loop.evaluate = evaluate_after_training

    run(
        config, task.folder, overrides=words, resume=False, console=Console(file=sys.stdout),
        data=_data(task), before_training=attach, on_epoch=lambda row: clock.validated(),
    )  # fmt: skip


def _data(task: Task) -> SegmentationData:
    splits = {
        name: TensorSplit(images, task.masks[name], [f"{name}{i}" for i in range(len(images))])
        for name, images in task.images.items()
    }
    return describe(splits, [str(number) for number in range(task.classes)])
