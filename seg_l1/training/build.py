"""From a configuration to the objects of a run: data, network, objective, optimizer, loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from seg_l1.compaction import set_shapes
from seg_l1.data.batches import Batches
from seg_l1.data.class_weights import resolve_class_weights
from seg_l1.data.split import SegmentationData
from seg_l1.errors import UserError
from seg_l1.losses import RegularizedLoss
from seg_l1.models.drop_connect import DropConnect
from seg_l1.models.whole_batch import convert_whole_batch
from seg_l1.penalties import Penalty
from seg_l1.runs.files import Config
from seg_l1.schedules import Constant, Decay, Ramp, ramp_epochs
from seg_l1.scope import Rule, ScopedTensor, rules_of
from seg_l1.solvers import Solver
from seg_l1.solvers.dual_averaging import DualAveraging
from seg_l1.solvers.factorized import Factorized
from seg_l1.solvers.frozen import Frozen
from seg_l1.solvers.proximal import Proximal
from seg_l1.solvers.subgradient import Subgradient
from seg_l1.training.instantiate import instantiate
from seg_l1.training.loop import Loop
from seg_l1.training.network import build_model, find_device, load_start
from seg_l1.training.optimizer import build_optimizer
from seg_l1.training.penalized import penalized_tensors
from seg_l1.training.settings import Settings

SOLVERS: dict[str, type[Solver]] = {
    "proximal": Proximal,
    "subgradient": Subgradient,
    "factorized": Factorized,
    "dual_averaging": DualAveraging,
    "frozen": Frozen,
}

EVALUATION_FACTOR = 4
"""Evaluation keeps no activations: its batches are larger than those of the training."""


@dataclass(frozen=True)
class Experiment:
    """The objects of one run.

    Attributes:
        config: the resolved configuration.
        data: what the run trains and evaluates on.
        loop: the training, with network, objective, optimizer and solver.
        test: batches of the test split; None where there is none.
        rules: of the scope of the penalty.
        compact: whether the network is smaller than the configuration says, see `compaction`.
    """

    config: Config
    data: SegmentationData
    loop: Loop
    test: Batches | None
    rules: tuple[Rule, ...]
    compact: bool = False


def build(
    config: Config,
    data: SegmentationData,
    *,
    pretrained: bool = True,
    shapes: Mapping[str, Tensor] | None = None,
) -> Experiment:
    """Builds network, objective, optimizer, solver and loop for `data`.

    Args:
        pretrained: False if a checkpoint will be loaded: then neither trained weights nor `start`
            are loaded here.
        shapes: the state of a compact network, from which the layers get their shapes.

    Raises:
        UserError: if the configuration makes no sense.
    """
    trainer, regularizer = config["trainer"], config["regularizer"]
    device = find_device(config["device"])
    memory_format = torch.channels_last if trainer["channels_last"] else torch.contiguous_format
    model, compact = _network(config, data, pretrained=pretrained, shapes=shapes)
    model = model.to(device).to(memory_format=memory_format)
    batches = _all_batches(config, data, device=device, memory_format=memory_format)
    rules = rules_of(regularizer["scope"])
    penalty = instantiate("regularizer.penalty", regularizer["penalty"])
    example = batches.fixed[0][0][:1] if batches.fixed else None
    tensors = penalized_tensors(model, example, rules, penalty=penalty, regularizer=regularizer)
    objective = _objective(config, data, penalty, tensors).to(device)
    optimizer = build_optimizer(config["optimizer"], model)
    convert_whole_batch(model, batches.train.batch_size)
    steps = -(-len(batches.train) // trainer["accumulate"])
    loop = Loop(
        model=model,
        objective=objective,
        optimizer=optimizer,
        solver=_solver(regularizer["solver"], objective.penalty, tensors, optimizer),
        tensors=tensors,
        noise=DropConnect(regularizer["drop_connect"], tensors),
        train=batches.train,
        val=batches.val,
        fixed=batches.fixed,
        classes=data.classes,
        alpha=regularizer["alpha"],
        schedule=penalty_schedule(regularizer, steps, trainer["epochs"]),
        learning_rate=instantiate(
            "scheduler", config["scheduler"], total=steps * trainer["epochs"]
        ),
        settings=Settings(**{k: v for k, v in trainer.items() if k in Settings.__annotations__}),
    )
    return Experiment(config, data, loop, batches.test, rules, compact)


def _network(
    config: Config, data: SegmentationData, *, pretrained: bool, shapes: Mapping[str, Tensor] | None
) -> tuple[nn.Module, bool]:
    """Returns the network, and whether it is compact. The arguments are those of `build`."""
    load_trained = pretrained and config["start"] is None
    model = build_model(config, data.channels, data.num_classes, pretrained=load_trained)
    if shapes is not None:
        set_shapes(model, shapes)
    if pretrained and config["start"] is not None:
        return model, load_start(model, config["start"])
    return model, shapes is not None


class _AllBatches(NamedTuple):
    """The batches of a run; `fixed` is the sample on which the certificate is taken."""

    train: Batches
    val: Batches
    test: Batches | None
    fixed: list[tuple[Tensor, Tensor]]


def _all_batches(
    config: Config,
    data: SegmentationData,
    *,
    device: torch.device,
    memory_format: torch.memory_format,
) -> _AllBatches:
    make = partial(
        Batches,
        data,
        seed=config["seed"],
        workers=config["dataset"]["workers"],
        device=device,
        memory_format=memory_format,
    )
    size, augmentation = config["dataset"]["batch_size"], config["augmentation"]
    train = training_batches(config, data, device=device, memory_format=memory_format)
    val = make("val", batch_size=EVALUATION_FACTOR * size)
    test = make("test", batch_size=EVALUATION_FACTOR * size) if "test" in data.splits else None
    plain = make("train", batch_size=size, augment=_crop_only(augmentation.get("crop")))
    return _AllBatches(train, val, test, _fixed_sample(plain, config["trainer"]["kkt_images"]))


def training_batches(
    config: Config,
    data: SegmentationData,
    *,
    device: torch.device | str = "cpu",
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Batches:
    """Returns the batches on which a network is trained, shuffled and augmented.

    Raises:
        UserError: if images of different sizes would have to make a batch.
    """
    size, augmentation = config["dataset"]["batch_size"], config["augmentation"]
    train = Batches(
        data,
        "train",
        batch_size=size,
        shuffle=True,
        repeats=config["dataset"].get("repeats", 1),  # older runs have no such key
        augment=instantiate("augmentation", augmentation) if augmentation["_target_"] else None,
        seed=config["seed"],
        workers=config["dataset"]["workers"],
        device=device,
        memory_format=memory_format,
    )
    if train.split.image_size is None and size > 1 and not augmentation.get("crop"):
        raise UserError(
            "dataset.image_size=null: images that keep their own sizes make no batch; give"
            " augmentation=strong augmentation.crop=[H,W], or dataset.batch_size=1"
        )
    return train


def _fixed_sample(batches: Batches, images: int) -> list[tuple[Tensor, Tensor]]:
    """Returns the first full training batches of at least `images` images, or all of them."""
    full = max(1, len(batches.split) // batches.batch_size)
    return list(islice(batches.epoch(), min(full, -(-images // batches.batch_size))))


def _crop_only(crop: list[int] | None) -> Any:
    """Returns an augmentation that only crops, which images that differ in size need."""
    if not crop:
        return None
    unchanged = {"flip": 0.0, "scale": (1.0, 1.0), "shift": 0.0, "colour": 0.0, "crop": crop}
    return instantiate(
        "augmentation", {"_target_": "seg_l1.data.augment.Augmentation", **unchanged}
    )


def _objective(
    config: Config, data: SegmentationData, penalty: Penalty, tensors: list[ScopedTensor]
) -> RegularizedLoss:
    loss, weights = config["loss"], config["loss"].get("class_weights")
    try:
        numbers = resolve_class_weights(weights, data)
    except ValueError as error:
        group = "dataset" if weights == config["dataset"].get("class_weights") else "loss"
        raise UserError(f"{group}.class_weights: {error}") from None
    spec = {**loss, "class_weights": numbers} if "class_weights" in loss else loss
    return RegularizedLoss(instantiate("loss", spec), penalty, tensors)


def _solver(
    name: str, penalty: Penalty, tensors: list[ScopedTensor], optimizer: Optimizer
) -> Solver:
    try:
        return SOLVERS[name](penalty, tensors, optimizer)
    except (TypeError, ValueError) as error:
        raise UserError(f"regularizer.solver={name}: {error}") from error


def penalty_schedule(
    regularizer: Config, steps_per_epoch: int, epochs: int
) -> Callable[[int], float]:
    """Returns λ(t) as a function of the optimizer step: `lam` times what `schedule` names."""
    begin = regularizer["schedule_start"]
    ramp = ramp_epochs(
        regularizer["schedule"], begin, regularizer["schedule_epochs"], epochs=epochs
    )
    start, length = round(begin * steps_per_epoch), round(ramp * steps_per_epoch)
    lam, multiple = regularizer["lam"], regularizer["schedule_multiple"]
    schedules: dict[str, Callable[[int], float]] = {
        "constant": Constant(start),
        "linear": Ramp(start, length, "linear"),
        "cosine": Ramp(start, length, "cosine"),
        "decay": Decay(start, length, multiple),
    }
    shape = schedules[regularizer["schedule"]]
    return lambda step: lam * shape(step)
