"""Accepted values of configuration keys, checked before anything is built."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from seg_l1.data.mask_values import MASK_VALUES, UNLABELED_VALUES
from seg_l1.errors import UserError, decode_hint, did_you_mean, short
from seg_l1.schedules import ramp_epochs

Limit = tuple[type | tuple[type, ...], Callable[[Any], bool], str]
"""The types that fit, a test for values of these types, and what is expected, in words."""


def _number(low: float, *, above: bool = False, below: float = 1e30) -> Limit:
    def fits(x: float) -> bool:
        return math.isfinite(x) and (x > low if above else x >= low) and x < below

    words = f"a number {'above' if above else 'of at least'} {low:g} and below {below:g}"
    return (int, float), fits, words


def _share(most: float = 1.0) -> Limit:
    return (int, float), lambda x: 0 <= x <= most, f"a number from 0 to {most:g}"


def _whole(low: int, most: int = 2**63 - 1) -> Limit:
    ceiling = "" if most == 2**63 - 1 else f" and at most {most}"
    return int, lambda x: low <= x <= most, f"a whole number of at least {low}{ceiling}"


def _choice(*options: str) -> Limit:
    return str, lambda x: x in options, f"one of {', '.join(options)}"


def _list(of: Limit, length: int | None = None) -> Limit:
    kind, fits, words = of
    many = "a list" if length is None else f"a list of {length}"
    return (
        list,
        lambda x: (
            (length in (None, len(x)))
            and all(isinstance(v, kind) and not isinstance(v, bool) and fits(v) for v in x)
        ),
        f"{many}, each {words}",
    )


def _or_null(limit: Limit) -> Limit:
    _, fits, words = limit
    return (*_kinds(limit), type(None)), lambda x: x is None or fits(x), f"{words}, or null"


def _either(one: Limit, other: Limit) -> Limit:
    def fits(x: Any) -> bool:
        return any(isinstance(x, kind) and test(x) for kind, test, _ in (one, other))

    return (*_kinds(one), *_kinds(other)), fits, f"{one[2]}, or {other[2]}"


def _kinds(limit: Limit) -> tuple[type, ...]:
    kind = limit[0]
    return kind if isinstance(kind, tuple) else (kind,)


_FLAG: Limit = (bool, lambda x: True, "true or false")
_TEXT: Limit = (str, bool, "a text")
_ANY_TEXT: Limit = (str, lambda x: True, "a text")
_PIXELS = _whole(8, 2**15)
_CLASS_WEIGHTS = _either(_list(_number(0)), _choice("inverse", "median"))
LIMITS: dict[str, Limit] = {
    "seed": _whole(0),
    "device": _TEXT,
    "resume": _or_null(_TEXT),
    "resume_sweep": _or_null(_TEXT),
    "start": _or_null(_TEXT),
    "sweep.on_error": _choice("continue", "stop"),
    "traceback": _FLAG,
    "limit.train": _or_null(_whole(1)),
    "limit.val": _or_null(_whole(1)),
    "limit.val_is_train": _FLAG,
    "model.width": _whole(1, 4096),
    "model.depth": _whole(1, 12),
    "model.growth": _number(1, below=16),
    "model.hidden": _whole(1, 2**16),
    "model.norm": _choice("batch", "group", "none"),
    "model.dropout": _number(0, below=1),
    "model.image_size": _list(_PIXELS, 2),
    "model.arch": _TEXT,
    "model.weights": _or_null(_TEXT),
    "model.weights_backbone": _or_null(_TEXT),
    "model.aux": _FLAG,
    "model.aux_weight": _number(0),
    "model.encoder": _TEXT,
    "model.encoder_weights": _or_null(_TEXT),
    "model.options": _or_null((dict, lambda x: True, "like {decoder_attention_type: scse}")),
    "dataset.root": _TEXT,
    "dataset.num_classes": _or_null((int, lambda x: 1 <= x <= 254, "from 1 to 254")),
    "dataset.image_size": _or_null(_list(_PIXELS, 2)),
    "dataset.num_train": _whole(1),
    "dataset.num_val": _whole(1),
    "dataset.num_test": _whole(1),
    "dataset.digits_per_scene": _list(_whole(1, 1000), 2),
    "dataset.digit_size": _list(_whole(4), 2),
    "dataset.channels": (int, lambda x: x in (1, 3), "1 or 3"),
    "dataset.mask_values": _or_null(MASK_VALUES),
    "dataset.unlabeled_values": _or_null(UNLABELED_VALUES),
    "dataset.mask_threshold": _or_null(_number(0, above=True, below=2**32)),
    "dataset.image_suffix": _or_null(_ANY_TEXT),
    "dataset.mask_suffix": _or_null(_ANY_TEXT),
    "dataset.val_fraction": _share(),
    "dataset.test_fraction": _share(),
    "dataset.memory_mib": _number(0),
    "dataset.download": _FLAG,
    "dataset.extra": _or_null(_choice("sbd")),
    "dataset.border": _choice("ignore", "class"),
    "dataset.threshold": _number(0, below=1),
    "dataset.group_pattern": _or_null(_TEXT),
    "dataset.stratify": _FLAG,
    "dataset.parts": _whole(1),
    "dataset.seed": _whole(0),
    "dataset.batch_size": _whole(1),
    "dataset.workers": _or_null(_whole(0, 256)),
    "dataset.class_weights": _or_null(_CLASS_WEIGHTS),
    "loss.class_weights": _or_null(_CLASS_WEIGHTS),
    "loss.smooth": _number(0),
    "loss.gamma": _number(0),
    "loss.fp_weight": _number(0),
    "loss.fn_weight": _number(0),
    "loss.dice_weight": _number(0),
    "augmentation.flip": _share(),
    "augmentation.shift": _share(),
    "augmentation.scale": _list(_number(0.01, below=100), 2),
    "augmentation.colour": _share(),
    "augmentation.crop": _or_null(_list(_PIXELS, 2)),
    "augmentation.hue": _number(0, below=0.5),
    "augmentation.chunks": _or_null(_whole(1)),
    **dict.fromkeys(("optimizer.lr", "optimizer.eps"), _number(0, above=True, below=1e4)),
    **{f"optimizer.{key}": _number(0, below=1) for key in ("momentum", "dampening", "alpha")},
    **{f"optimizer.{of}_decay": _number(0, below=1e4) for of in ("weight", "momentum", "lr")},
    **{f"optimizer.{key}": _FLAG for key in ("nesterov", "amsgrad", "centered")},
    "optimizer.decoupled_weight_decay": _FLAG,
    "optimizer.betas": _list(_number(0, below=1), 2),
    "optimizer.initial_accumulator_value": _number(0),
    "optimizer.metric": _or_null(_TEXT),
    "scheduler.warmup": _share(),
    "scheduler.initial": _number(0),
    "scheduler.final": _number(0),
    "scheduler.power": _or_null(_number(0)),
    "regularizer.name": _or_null(_TEXT),
    **{f"regularizer.{key}": _number(0) for key in ("alpha", "lam", "schedule_start")},
    "regularizer.cost_power": _number(0, below=4),
    "regularizer.dropout": _number(0, below=1),
    "regularizer.drop_connect": _number(0, below=1),
    "regularizer.solver": _choice(
        "proximal", "subgradient", "factorized", "dual_averaging", "frozen"
    ),
    "regularizer.schedule": _choice("constant", "linear", "cosine", "decay"),
    "regularizer.cost": _choice("none", "multiply_adds", "parameters"),
    "regularizer.schedule_epochs": _or_null(_number(0)),
    "regularizer.schedule_multiple": _number(0, above=True),
    "regularizer.scope": (list, bool, "a list of rules"),
    "path.num": _whole(1),
    "path.high": _share(),
    "path.low": _share(),
    "path.alphas": _or_null(_list(_number(0, above=True))),
    "path.direction": _choice("down", "up"),
    "path.warm_start": _FLAG,
    "path.epochs": _or_null(_whole(1)),
    "path.collapse": _share(),
    "path.folds": _whole(1),
    "path.repeats": _whole(1),
    "path.metric": _choice("miou", "dice", "loss"),
    "path.rule": _choice("one_se", "best"),
    "path.relax_epochs": _whole(0),
    "path.relax_blend": _share(),
    "path.folder": _or_null(_TEXT),
    "path.job": _or_null(_whole(0)),
    "trainer.epochs": _whole(1),
    "trainer.precision": _choice("fp32", "bf16", "fp16"),
    "trainer.accumulate": _whole(1),
    "trainer.clip_norm": _or_null(_number(0, above=True)),
    "trainer.clip_value": _or_null(_number(0, above=True)),
    "trainer.early_stopping": _or_null(_whole(1)),
    **dict.fromkeys(("trainer.channels_last", "trainer.compile", "trainer.compact"), _FLAG),
    "trainer.tile": _or_null(_list(_whole(64), 2)),
    "trainer.tile_overlap": _share(0.75),
    "trainer.threads": _or_null(_whole(1, 1024)),
    "trainer.log_every": _whole(1),
    "trainer.pictures_every": _whole(1),
    "trainer.pictures": _whole(1, 1000),
    "trainer.boundary_tolerance": _whole(0, 100),
    "trainer.kkt_every": _or_null(_whole(1)),
    "trainer.kkt_images": _whole(1),
}


OPTIONAL = ("regularizer.name",)
"""Keys that runs of older versions lack."""

SHARED = ("limit", "sweep", "trainer", "path", "regularizer")
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
            f" but trainer.epochs={epochs}"
        )
    deepest = model.get("width", 1) * model.get("growth", 1) ** model.get("depth", 1)
    if deepest > MOST_CHANNELS:
        raise UserError(
            f"model.width * growth^depth: {deepest:g} channels at the deepest level, expected at"
            f" most {MOST_CHANNELS}"
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
    kinds = _kinds(limits[key])
    wrong_type = not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
    if wrong_type or not fits(value):
        raise UserError(f"{key}: got {short(value)}, expected {words}{decode_hint(value)}")


_RULE: dict[str, Limit] = {
    "regularizer.scope: name": _TEXT,
    "regularizer.scope: types": _list(_TEXT),
    "regularizer.scope: penalize": _FLAG,
    "regularizer.scope: factor": _number(0, above=True),
    "regularizer.scope: kernels": _FLAG,
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
