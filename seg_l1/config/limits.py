"""Accepted values of configuration keys, checked before anything is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from seg_l1.config.accepted import (
    ANY_TEXT,
    FLAG,
    TEXT,
    Limit,
    choice,
    either,
    list_of,
    number,
    or_null,
    share,
    types_of,
    whole,
)
from seg_l1.data.mask_values import MASK_VALUES, UNLABELED_VALUES
from seg_l1.errors import UserError, decode_hint, did_you_mean, short
from seg_l1.schedules import ramp_epochs

_PIXELS = whole(8, 2**15)
_CLASS_WEIGHTS = either(list_of(number(0)), choice("inverse", "median"))
LIMITS: dict[str, Limit] = {
    "seed": whole(0),
    "device": TEXT,
    "resume": or_null(TEXT),
    "resume_sweep": or_null(TEXT),
    "start": or_null(TEXT),
    "sweep.on_error": choice("continue", "stop"),
    "sweep.plan_only": FLAG,
    "sweep.job": or_null(whole(0)),
    "traceback": FLAG,
    "limit.train": or_null(whole(1)),
    "limit.seed": or_null(whole(0)),
    "limit.val": or_null(whole(1)),
    "limit.val_is_train": FLAG,
    "model.width": whole(1, 4096),
    "model.depth": whole(1, 12),
    "model.growth": number(1, below=16),
    "model.hidden": whole(1, 2**16),
    "model.norm": choice("batch", "group", "none"),
    "model.dropout": number(0, below=1),
    "model.image_size": list_of(_PIXELS, 2),
    "model.arch": TEXT,
    "model.weights": or_null(TEXT),
    "model.weights_backbone": or_null(TEXT),
    "model.aux": FLAG,
    "model.aux_weight": number(0),
    "model.encoder": TEXT,
    "model.encoder_weights": or_null(TEXT),
    "model.options": or_null((dict, lambda x: True, "like {decoder_attention_type: scse}")),
    "dataset.root": TEXT,
    "dataset.num_classes": or_null((int, lambda x: 1 <= x <= 254, "a whole number from 1 to 254")),
    "dataset.image_size": or_null(list_of(_PIXELS, 2)),
    "dataset.num_train": whole(1),
    "dataset.num_val": whole(1),
    "dataset.num_test": whole(1),
    "dataset.digits_per_scene": list_of(whole(1, 1000), 2),
    "dataset.digit_size": list_of(whole(4), 2),
    "dataset.channels": whole(1, 1024),
    "dataset.show": or_null(list_of(whole(1), 3)),
    "dataset.mask_values": or_null(MASK_VALUES),
    "dataset.unlabeled_values": or_null(UNLABELED_VALUES),
    "dataset.mask_threshold": or_null(number(0, above=True, below=2**32)),
    "dataset.image_suffix": or_null(ANY_TEXT),
    "dataset.mask_suffix": or_null(ANY_TEXT),
    "dataset.val_fraction": share(),
    "dataset.test_fraction": share(),
    "dataset.memory_mib": number(0),
    "dataset.download": FLAG,
    "dataset.extra": or_null(choice("sbd")),
    "dataset.border": choice("ignore", "class"),
    "dataset.threshold": number(0, below=1),
    "dataset.group_pattern": or_null(TEXT),
    "dataset.stratify": FLAG,
    "dataset.parts": whole(1),
    "dataset.seed": whole(0),
    "dataset.batch_size": whole(1),
    "dataset.repeats": whole(1),
    "dataset.wrong_labels": share(),
    "dataset.wrong_labels_by": choice("region", "pixel"),
    "dataset.workers": or_null(whole(0, 256)),
    "dataset.class_weights": or_null(_CLASS_WEIGHTS),
    "loss.class_weights": or_null(_CLASS_WEIGHTS),
    "loss.smooth": number(0),
    "loss.gamma": number(0),
    "loss.fp_weight": number(0),
    "loss.fn_weight": number(0),
    "loss.dice_weight": number(0),
    "augmentation.flip": share(),
    "augmentation.shift": share(),
    "augmentation.scale": list_of(number(0.01, below=100), 2),
    "augmentation.colour": share(),
    "augmentation.crop": or_null(list_of(_PIXELS, 2)),
    "augmentation.hue": number(0, below=0.5),
    "augmentation.chunks": or_null(whole(1)),
    **dict.fromkeys(("optimizer.lr", "optimizer.eps"), number(0, above=True, below=1e4)),
    **{f"optimizer.{key}": number(0, below=1) for key in ("momentum", "dampening", "alpha")},
    **{f"optimizer.{of}_decay": number(0, below=1e4) for of in ("weight", "momentum", "lr")},
    **{f"optimizer.{key}": FLAG for key in ("nesterov", "amsgrad", "centered")},
    "optimizer.decoupled_weight_decay": FLAG,
    "optimizer.betas": list_of(number(0, below=1), 2),
    "optimizer.initial_accumulator_value": number(0),
    "optimizer.metric": or_null(TEXT),
    "scheduler.warmup": share(),
    "scheduler.initial": number(0),
    "scheduler.final": number(0),
    "scheduler.power": or_null(number(0)),
    "regularizer.name": or_null(TEXT),
    **{f"regularizer.{key}": number(0) for key in ("alpha", "lam", "schedule_start")},
    "regularizer.cost_power": number(0, below=4),
    "regularizer.dropout": number(0, below=1),
    "regularizer.drop_connect": number(0, below=1),
    "regularizer.solver": choice(
        "proximal", "subgradient", "factorized", "dual_averaging", "frozen"
    ),
    "regularizer.schedule": choice("constant", "linear", "cosine", "decay"),
    "regularizer.cost": choice("none", "multiply_adds", "parameters"),
    "regularizer.schedule_epochs": or_null(number(0)),
    "regularizer.schedule_multiple": number(0, above=True),
    "regularizer.scope": (list, bool, "a list of rules"),
    "target.measure": or_null(choice("multiply_adds", "parameters", "nonzeros", "latency_ms")),
    "target.share": number(0, above=True, below=1),
    "target.limit": or_null(number(0, above=True)),
    "target.runtime": choice("torch", "onnxruntime"),
    "target.dense": number(0, below=1),
    "target.penalized": or_null(number(0, above=True, below=1)),
    "path.num": whole(1),
    "path.high": share(),
    "path.low": number(0, above=True, below=1),
    "path.alphas": or_null(list_of(number(0, above=True))),
    "path.direction": choice("down", "up"),
    "path.warm_start": FLAG,
    "path.epochs": or_null(whole(1)),
    "path.collapse": share(),
    "path.folds": whole(1),
    "path.repeats": whole(1),
    "path.metric": choice("miou", "dice", "loss"),
    "path.budget": or_null(number(0, above=True, below=1)),
    "path.rule": choice("one_se", "best"),
    "path.relax_epochs": whole(0),
    "path.relax_blend": share(),
    "path.folder": or_null(TEXT),
    "path.job": or_null(whole(0)),
    "trainer.epochs": whole(1),
    "trainer.precision": choice("fp32", "bf16", "fp16", "auto"),
    "trainer.accumulate": whole(1),
    "trainer.clip_norm": or_null(number(0, above=True)),
    "trainer.clip_value": or_null(number(0, above=True)),
    "trainer.early_stopping": or_null(whole(1)),
    **dict.fromkeys(("trainer.channels_last", "trainer.compile", "trainer.compact"), FLAG),
    "trainer.tile": or_null(list_of(whole(64), 2)),
    "trainer.tile_overlap": share(0.75),
    "trainer.threads": or_null(whole(1, 1024)),
    "trainer.log_every": whole(1),
    "trainer.pictures_every": whole(1),
    "trainer.pictures": whole(1, 1000),
    "trainer.boundary_tolerance": whole(0, 100),
    "trainer.kkt_every": or_null(whole(1)),
    "trainer.kkt_images": whole(1),
}


OPTIONAL = ("regularizer.name",)
"""Keys that runs of older versions lack."""

SHARED = ("limit", "sweep", "trainer", "target", "path", "regularizer")
"""The sections that hold the same keys under every option; the others hold arguments."""

MOST_CHANNELS = 8192


def check(config: dict[str, Any]) -> None:
    """Checks every value against `LIMITS`, and those that depend on each other.

    Raises:
        UserError: naming the key, what was got and what is allowed.
    """
    _check_keys(config)
    nodes = sorted(_nodes(config), key=lambda node: node[0].startswith("model."))
    for key, value in nodes:  # those of the model refer to others, which are to be named
        check_value(key, value)
    for rule in config["regularizer"]["scope"]:
        _check_rule(rule)
    regularizer, epochs, model = config["regularizer"], config["trainer"]["epochs"], config["model"]
    start, length = regularizer["schedule_start"], regularizer["schedule_epochs"]
    end = start + ramp_epochs(regularizer["schedule"], start, length, epochs=epochs)
    if end >= epochs:
        raise UserError(
            f"regularizer.schedule_start + schedule_epochs: λ(t) reaches 1 after {end:g} epochs,"
            f" but trainer.epochs={epochs}; shorten the schedule, or train longer"
        )
    _check_show(config["dataset"])
    deepest = model.get("width", 1) * model.get("growth", 1) ** model.get("depth", 1)
    if deepest > MOST_CHANNELS:
        raise UserError(
            f"model.width * growth^depth: {deepest:g} channels at the deepest level, expected at"
            f" most {MOST_CHANNELS}"
        )


def _check_show(dataset: Mapping[str, Any]) -> None:
    channels, show = dataset.get("channels"), dataset.get("show")
    if channels and show and max(show) > channels:
        raise UserError(
            f"dataset.show: got {show}, expected three numbers from 1 to {channels}"
            f" (dataset.channels={channels}); the first band is 1"
        )


def _check_keys(config: Mapping[str, Any]) -> None:
    """Refuses a configuration that lacks a key, or has one that nobody would read."""
    sections = {key.split(".")[0] for key in LIMITS if "." in key}
    for section in sorted(sections):
        node = config.get(section)
        if not isinstance(node, Mapping):
            raise UserError(f"{section}: got {short(node)}, expected keys with their values")
    built = {key: config[key] for key in sections if key not in SHARED}
    for key, node in {**built, "regularizer.penalty": config["regularizer"].get("penalty")}.items():
        if not (isinstance(node, Mapping) and "_target_" in node):
            raise UserError(f"{key}: lacks a _target_, the name of what is to be built")
    known = {key for key in LIMITS if key.split(".")[0] in (key, *SHARED) and key.count(".") < 2}
    given = {str(key) for key in config}
    given |= {f"{section}.{key}" for section in SHARED for key in config[section]}
    for key in sorted(known - given - {*OPTIONAL}):
        raise UserError(
            f"{key}: is missing; expected {LIMITS[key][2]}. A file of your own takes the other keys"
            " from the default with 'defaults: [<default>, _self_]'"
        )
    for key in sorted(given - known - sections):
        if key.startswith("regularizer."):
            continue  # a hyperparameter of a penalty, which its class checks
        hint = did_you_mean(key, known | sections, cutoff=0.5 if "." in key else 0.7)
        if key in ("experiment", "debug") and config[key]:
            hint = " Begin its file with the line '# @package _global_'"
        if hint or "." in key:  # other names at the top are a person's own, for interpolations
            raise UserError(f"{key}: nothing reads this key.{hint}")


def check_value(key: str, value: Any, limits: Mapping[str, Limit] = LIMITS) -> None:
    """Refuses a value that `limits` rule out; what they do not know passes."""
    if key not in limits:
        return
    _, fits, words = limits[key]
    types = types_of(limits[key])
    wrong_type = not isinstance(value, types) or (isinstance(value, bool) and bool not in types)
    if wrong_type or not fits(value):
        raise UserError(f"{key}: got {short(value)}, expected {words}{decode_hint(value)}")


_RULE: dict[str, Limit] = {
    "regularizer.scope: name": TEXT,
    "regularizer.scope: types": list_of(TEXT),
    "regularizer.scope: penalize": FLAG,
    "regularizer.scope: factor": number(0, above=True),
    "regularizer.scope: kernels": FLAG,
}


def _check_rule(rule: Any) -> None:
    keys = [key.partition(": ")[2] for key in _RULE]
    if not isinstance(rule, dict) or not rule.keys() <= {*keys}:
        raise UserError(f"regularizer.scope: a rule has the keys {', '.join(keys)}; got {rule}")
    for key, value in rule.items():
        check_value(f"regularizer.scope: {key}", value, _RULE)


def _nodes(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted key, value) of everything, mappings included."""
    for key, value in config.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from _nodes(value, f"{prefix}{key}.")
