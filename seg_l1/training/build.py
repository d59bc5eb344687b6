"""From a configuration to objects: the only room, beside the command, that knows hydra."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_l1 import distributed
from seg_l1.errors import UserError, first_line
from seg_l1.runs.files import Config

if TYPE_CHECKING:
    import torch
    from torch import nn

    from seg_l1.data.batches import Batches
    from seg_l1.data.split import SegmentationData
    from seg_l1.scope import Rule
    from seg_l1.training.loop import Loop


@dataclass(frozen=True)
class Experiment:
    """The objects of one run."""

    config: Config
    data: SegmentationData
    loop: Loop
    test: Batches | None
    rules: list[Rule]


def data_key(config: Config) -> str:
    """Two configurations with the same key have the same data."""
    spec = {k: v for k, v in config["dataset"].items() if k not in _BATCH_KEYS}
    return repr((spec, config["limit"]))


def load_data(config: Config) -> SegmentationData:
    """Reads and checks the data set of `config`, cut down to `limit`.

    Raises:
        UserError: naming what is wrong with the data.
    """
    spec = {k: v for k, v in config["dataset"].items() if k not in _BATCH_KEYS}
    try:
        data = instantiate("dataset", spec)
    except OSError as error:
        reason = f"{error.filename or 'a file'}: {error.strerror or error}"
        raise UserError(f"dataset: cannot be read ({reason})") from error
    limit, splits = config["limit"], dict(data.splits)
    for name, split in splits.items():
        most = limit["train"] if name == "train" else limit["val"]
        splits[name] = split if most is None else split.subset(range(min(most, len(split))))
    indices = {name: chosen[: len(splits[name])] for name, chosen in data.indices.items()}
    if limit["val_is_train"]:
        splits["val"] = splits["train"]
        indices |= {"val": indices["train"]} if indices else {}
    groups = data.groups[: len(splits["train"])]
    return replace(data, splits=splits, indices=indices, groups=groups)


def build(config: Config, data: SegmentationData, *, pretrained: bool = True) -> Experiment:
    """Builds network, objective, optimizer, solver and loop for `data`.

    Args:
        pretrained: False where a checkpoint follows: no weights are asked for, nor is `start`.

    Raises:
        UserError: if the configuration makes no sense.
    """
    import torch

    from seg_l1.data.batches import Batches
    from seg_l1.losses import RegularizedLoss
    from seg_l1.models.drop_connect import DropConnect
    from seg_l1.models.whole_batch import convert_whole_batch
    from seg_l1.scope import Rule, scope
    from seg_l1.training.loop import Loop, Settings

    device = find_device(config["device"])
    trainer, regularizer = config["trainer"], config["regularizer"]
    layout = torch.channels_last if trainer["channels_last"] else torch.contiguous_format
    fetch = pretrained and config["start"] is None
    model = build_model(config, data.channels, data.num_classes, pretrained=fetch)
    if pretrained and not fetch:
        load_start(model, config["start"])
    model = model.to(device, memory_format=layout)
    _check_class_weights(config, data.classes)
    criterion = instantiate("loss", _with_class_weights(config["loss"], data)).to(device)
    rules = [
        Rule(**{**rule, "types": tuple(rule.get("types", ()))}) for rule in regularizer["scope"]
    ]
    tensors = scope(model, rules)
    penalty = instantiate("regularizer.penalty", regularizer["penalty"])
    optimizer = instantiate("optimizer", config["optimizer"], params=list(model.parameters()))

    def batches(split: str, augment: Any = None, shuffle: bool | None = None) -> Batches:
        return Batches(
            data,
            split,
            batch_size=config["dataset"]["batch_size"] * (1 if split == "train" else 4),
            shuffle=split == "train" if shuffle is None else shuffle,
            augment=augment,
            seed=config["seed"],
            workers=config["dataset"]["workers"],
            device=device,
            memory_format=layout,
        )

    augmentation = config["augmentation"]
    augment = instantiate("augmentation", augmentation) if augmentation["_target_"] else None
    train = batches("train", augment)
    several = config["dataset"]["batch_size"] > 1
    if train.split.image_size is None and several and not augmentation.get("crop"):
        raise UserError(
            "dataset.image_size=null: images that keep their own sizes make no batch; give"
            " augmentation=strong augmentation.crop=[H,W], or dataset.batch_size=1"
        )
    convert_whole_batch(model, train.batch_size)
    steps = -(-len(train) // trainer["accumulate"])
    solvers = _solvers()
    try:
        solver = solvers[regularizer["solver"]](penalty, tensors, optimizer)
    except (TypeError, ValueError) as error:
        raise UserError(f"regularizer.solver={regularizer['solver']}: {error}") from error
    loop = Loop(
        model=model,
        objective=RegularizedLoss(criterion, penalty, tensors),
        optimizer=optimizer,
        solver=solver,
        tensors=tensors,
        noise=DropConnect(regularizer["drop_connect"], tensors),
        train=train,
        val=batches("val"),
        fixed=_fixed_sample(
            batches("train", _window(augmentation), shuffle=False), trainer["kkt_images"]
        ),
        classes=data.classes,
        alpha=regularizer["alpha"],
        schedule=penalty_schedule(regularizer, steps),
        learning_rate=instantiate(
            "scheduler", config["scheduler"], total=steps * trainer["epochs"]
        ),
        settings=Settings(**{k: v for k, v in trainer.items() if k in Settings.__annotations__}),
    )
    test = batches("test") if "test" in data.splits else None
    return Experiment(config, data, loop, test, rules)


def _fixed_sample(batches: Batches, images: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The first full training batches, not augmented, of at least `images` images or all."""
    from itertools import islice

    full = max(1, len(batches.split) // batches.batch_size)
    return list(islice(batches.epoch(), min(full, -(-images // batches.batch_size))))


def _window(augmentation: Config) -> Any:
    """Nothing but the crop of an augmentation, if it has one: what images of any size need."""
    from seg_l1.data.augment import Augmentation

    crop = augmentation.get("crop")
    same = {"flip": 0.0, "scale": (1.0, 1.0), "shift": 0.0, "colour": 0.0}
    return Augmentation(**same, crop=crop) if crop else None


def build_model(
    config: Config, channels: int, num_classes: int, *, pretrained: bool = True
) -> nn.Module:
    """Builds the network of `config` for images of `channels` and `num_classes` classes.

    Args:
        pretrained: False where a checkpoint follows: then no trained weights are asked for.
    """
    fetched = () if pretrained else ("weights", "weights_backbone", "encoder_weights")
    spec = {k: None if k in fetched else v for k, v in config["model"].items()}
    return instantiate("model", spec, in_channels=channels, num_classes=num_classes)


def load_start(model: nn.Module, start: str) -> None:
    """Loads weights and batch-norm statistics: of the best epoch of a run, or of a checkpoint.

    Raises:
        UserError: if there is no such file, or it is of another network.
    """
    from seg_l1.runs import checkpoints
    from seg_l1.runs.directory import RunDirectory

    path = Path(start)
    file = RunDirectory.existing(path, key="start").best if path.is_dir() else path
    state = checkpoints.model_state(file)
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"start: {file} is of another network ({first_line(error)})") from None


def penalty_schedule(regularizer: Config, steps_per_epoch: int) -> Callable[[int], float]:
    """Returns λ(t) as a function of the optimizer step: `lam` times what `schedule` names."""
    from seg_l1.schedules import Constant, Decay, Ramp

    start, length = (
        round(regularizer[key] * steps_per_epoch) for key in ("schedule_start", "schedule_epochs")
    )
    lam, multiple = regularizer["lam"], regularizer["schedule_multiple"]
    shape = {
        "constant": Constant(start),
        "linear": Ramp(start, length, "linear"),
        "cosine": Ramp(start, length, "cosine"),
        "decay": Decay(start, length, multiple),
    }[regularizer["schedule"]]
    return lambda step: lam * shape(step)


def instantiate(where: str, spec: Config, **more: Any) -> Any:
    """Calls what `spec["_target_"]` names with the other entries and `more`.

    Raises:
        UserError: if that refuses its arguments, naming the group `where`.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate as call

    try:
        return call({**spec, "_partial_": True}, _convert_="all")(**more)
    except InstantiationException as error:
        reason = " ".join(str(error).split()).partition(", set env")[0]
        raise UserError(f"{where}._target_: {reason}") from error
    except UserError:
        raise
    except (TypeError, ValueError, OverflowError, MemoryError, RuntimeError) as error:
        name, reason = spec["_target_"].rsplit(".", 1)[-1], first_line(error)
        if isinstance(error, MemoryError) or "allocate" in reason:
            reason = f"does not fit into memory, choose smaller sizes ({reason})"
        raise UserError(f"{where} ({name}): {reason}") from error


_BATCH_KEYS = ("batch_size", "workers", "class_weights")


def _solvers() -> dict[str, Any]:
    from seg_l1.solvers.dual_averaging import DualAveraging
    from seg_l1.solvers.factorized import Factorized
    from seg_l1.solvers.frozen import Frozen
    from seg_l1.solvers.proximal import Proximal
    from seg_l1.solvers.subgradient import Subgradient

    return {
        "proximal": Proximal,
        "subgradient": Subgradient,
        "factorized": Factorized,
        "dual_averaging": DualAveraging,
        "frozen": Frozen,
    }


def find_device(name: str) -> torch.device:
    """Returns the device of that name, or of "auto" a GPU where there is one.

    Of several processes each gets a GPU of its own, see `distributed.device`.

    Raises:
        UserError: if it cannot be used.
    """
    import torch

    if distributed.size() > 1:
        return distributed.device(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
        if device.type == "meta":
            raise RuntimeError("it computes nothing")
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise UserError(f"device: '{name}' cannot be used here ({reason})") from None
    return device


def _with_class_weights(loss: Config, data: SegmentationData) -> Config:
    """The configuration of a loss with the name of a weighting replaced by its numbers."""
    from seg_l1.losses import class_weights

    kind = loss.get("class_weights")
    if not isinstance(kind, str):
        return loss
    return {**loss, "class_weights": class_weights(kind, data.pixel_shares, data.present_shares)}


def _check_class_weights(config: Config, classes: Sequence[str]) -> None:
    """Refuses class weights, under the key that was typed: those of the loss are the data's."""
    weights, default = (config[group].get("class_weights") for group in ("loss", "dataset"))
    if isinstance(weights, list) and (len(weights) != len(classes) or not any(weights)):
        key = f"{'dataset' if weights == default else 'loss'}.class_weights"
        if len(weights) != len(classes):
            raise UserError(f"{key}: {len(weights)} numbers for {len(classes)} classes")
        raise UserError(f"{key}: all are 0, so that nothing is learnt; give some above 0")
