"""What is known of a run before its first step."""

from __future__ import annotations

from shlex import quote

import torch

from seg_l1 import distributed
from seg_l1.config.commands import assignment
from seg_l1.metrics import shrinkage, sparsity
from seg_l1.runs.files import Config
from seg_l1.runs.summary import RunSummary
from seg_l1.scope import coverage, is_partial
from seg_l1.training.build import Experiment
from seg_l1.training.network import fitting_the_images
from seg_l1.training.settings import computes_bf16

FEW_STEPS = 1000
"""With fewer optimizer steps, networks trained on photographs often learn only the background."""


def first_summary(experiment: Experiment) -> RunSummary:
    """Returns the summary before training: size of the network, sources of shrinkage, notes.

    Raises:
        UserError: if the network cannot process the images.
    """
    loop = experiment.loop
    device = next(loop.model.parameters()).device
    image = torch.zeros(1, *loop.fixed[0][0].shape[1:], device=device)
    tile = loop.settings.tile
    with fitting_the_images():
        if tile and (tile[0] < image.shape[2] or tile[1] < image.shape[3]):
            loop.model.eval()(image[..., : tile[0], : tile[1]])
        multiply_adds = sparsity.multiply_adds(loop.model, image)
        scale_invariant = shrinkage.scale_invariant_layers(loop.model, image)
    notes = shrinkage.notes(experiment.config, loop.tensors, scale_invariant)
    if is_partial(experiment.rules, loop.tensors):
        notes.append(f"{coverage(loop.tensors)}; regularizer.scope can include them")
    if loop.train.batch_size < distributed.size():
        notes.append(
            f"batches of {loop.train.batch_size} leave some of {distributed.size()} processes"
            " without an image"
        )
    if loop.settings.precision == "bf16" and device.type == "cpu" and not computes_bf16(device):
        notes.append(
            "this CPU seems to have no instructions for bfloat16, so that trainer.precision=fp32 is"
            " many times as fast; trainer.precision=auto takes bf16 only where it is fast"
        )
    notes += few_steps(experiment.config, loop.total_steps)
    return RunSummary(
        "running",
        epochs=loop.settings.epochs,
        parameters=sparsity.parameters(loop.model),
        penalised_weights=sum(e.tensor.numel() for e in loop.tensors if e.penalized),
        multiply_adds=multiply_adds,
        shrinkage=shrinkage.sources(experiment.config),
        notes=notes,
    )


def few_steps(config: Config, steps: int) -> list[str]:
    """Returns a note if a network for one's own images is trained for few optimizer steps."""
    spec = config["dataset"]
    if spec["_target_"] != "seg_l1.data.folder.load" or steps >= FEW_STEPS:
        return []
    root = quote(assignment("dataset.root", spec["root"]))
    return [
        f"{steps:,} optimizer steps in total are often too few; experiment=own {root} chooses"
        " crops, steps and class weights that fit the images (or give a larger trainer.epochs)"
    ]
