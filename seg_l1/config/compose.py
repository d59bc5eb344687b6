"""What the user typed: checked before hydra composes it, with a hint for every slip.

Hydra lets `+typo=1` pass and has no hint for a misspelt option or group.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from seg_l1.config import limits
from seg_l1.config.hyperparameters import check_hyperparameters, store_defaults
from seg_l1.config.identity import flatten
from seg_l1.errors import UserError, did_you_mean, first_line, short

if TYPE_CHECKING:
    pass

CONF = next(
    folder
    for folder in (Path(__file__).parents[1] / "conf", Path(__file__).parents[2] / "conf")
    if folder.is_dir()
)
"""The configuration: inside the package in a wheel, beside it in a checkout."""

MOST_LETTERS = 10_000
MOST_JOBS = 10_000


def help_text() -> str:
    """The groups of `conf/` with their options and the first comment line of each."""
    lines = [
        "python train.py [group=option ...] [key=value ...]    one run",
        "python train.py -m regularizer=l1,l2 regularizer.alpha=1e-5,1e-4    a sweep",
        "python train.py resume=<run directory>    go on with a run",
        "",
        "groups and their options (* = default):",
    ]
    config = (CONF / "config.yaml").read_text("utf-8")
    for group in config_groups(CONF):
        default = re.search(rf"^  - {group}: \"?(\w+)", config, re.MULTILINE)
        lines.append(f"\n{group}=")
        options = _options(group, [CONF])
        width = max(20, *map(len, options))
        for option in options:
            first = (CONF / group / f"{option}.yaml").read_text("utf-8").split("\n", 2)
            about = first[1] if first[0].startswith("# @package") else first[0]
            star = "*" if default and default[1] == option else " "
            lines.append(f"  {star} {option:<{width}} {about.lstrip('# ')}")
    lines += [
        "",
        "keys (all of them: python train.py --cfg job):",
        "  regularizer.alpha=1e-5 (the strength)  seed=0  trainer.epochs=20  dataset.root=...",
        "",
        "hydra's own flags: python train.py --hydra-help",
        "",
    ]
    return "\n".join(lines)


def parse(arguments: list[str]) -> tuple[Any, list[Any]]:
    """Returns hydra's flags and the parsed overrides of a command line.

    Raises:
        UserError: on an unknown flag, and on an override that cannot be read.
    """
    from hydra._internal.utils import get_args_parser

    register_resolvers(arguments)
    parser = get_args_parser()
    parser.error = _refuse_flag
    flags, rest = parser.parse_known_intermixed_args([quoted(word) for word in arguments])
    wrong = [word for word in rest if word.startswith("-")]
    if wrong:
        raise UserError(f"{wrong[0]}: there is no such flag (see --help)")
    if flags.config_dir is not None and not Path(flags.config_dir).is_dir():
        raise UserError(f"--config-dir: there is no folder '{flags.config_dir}'")
    if flags.config_path is not None:
        raise UserError(
            "--config-path: conf/ stays where it is; --config-dir adds a folder of yours"
        )
    if flags.config_name is not None:
        raise UserError("--config-name: there is one; write an experiment/<name>.yaml of your own")
    if flags.experimental_rerun is not None:
        raise UserError("--experimental-rerun: a run goes on with resume=<run directory>")
    if flags.resolve and not flags.cfg:
        raise UserError("--resolve: belongs to --cfg job")
    if flags.shell_completion and not re.match("(un)?install=|query=", " ".join(flags.overrides)):
        raise UserError("--shell-completion: expected install=<shell> or uninstall=<shell>")
    return flags, [parse_word(word) for word in flags.overrides]


def quoted(word: str) -> str:
    """Puts a value in quotes that hydra's grammar cannot read as it stands: a text, then.

    >>> quoted("dataset.root=Straße (1)")
    "dataset.root='Straße (1)'"
    """
    key, equals, value = word.partition("=")
    mark = '"' if "'" in value else "'"
    text = f"{key}={mark}{value}{mark}"
    if not equals or key.startswith("-") or mark in value or value.endswith("\\"):
        return word
    return text if not _reads(word) and _reads(text) else word


def _reads(word: str) -> bool:
    try:
        parse_word(word)
    except UserError:
        return False
    return True


def parse_word(word: str) -> Any:
    """Returns hydra's override of one word.

    Raises:
        UserError: if it cannot be read, or is too long.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if len(word) > MOST_LETTERS:
        raise UserError(f"{short(word)}: has {len(word)} letters, expected at most {MOST_LETTERS}")
    try:
        override = OverridesParser.create().parse_override(word)
        if not override.key_or_group:
            raise HydraException
        return override
    except (HydraException, RecursionError):
        raise UserError(
            f"{short(word)}: cannot be read. Overrides look like key=value, values with signs of"
            " their own like \"key='a, b'\""
        ) from None


def _refuse_flag(message: str) -> NoReturn:
    raise UserError(f"{message} (see --help and --hydra-help)")


def check_overrides(flags: Any, overrides: Sequence[Any]) -> None:
    """Looks at every override of a run or a sweep, and at every value of a sweep.

    Raises:
        UserError: on an unknown group, option or key, and on a value that makes no sense.
    """
    folders = [CONF, *([Path(flags.config_dir)] if flags.config_dir else [])]
    swept = next((o for o in overrides if o.is_sweep_override()), None)
    if swept and not flags.multirun:
        raise UserError(f"{swept.input_line}: several values make a sweep, which takes the flag -m")
    if math.prod(len(_values(o)) for o in overrides if o.is_sweep_override()) > MOST_JOBS:
        raise UserError(f"{swept.input_line}: a sweep has at most {MOST_JOBS} jobs")
    groups = [o for o in overrides if o.key_or_group in config_groups(*folders)]
    for override in groups:
        known = _options(override.key_or_group, folders)
        if override.is_delete():
            raise UserError(f"{override.input_line}: {_TAKEN}")
        if override.package is not None:
            group = override.key_or_group
            raise UserError(f"{override.input_line}: a group has one place; write {group}=<option>")
        for option in _values(override):
            if option not in known:
                raise UserError(
                    f"{override.key_or_group}: there is no option {short(option)}."
                    f"{did_you_mean(option, known)} Options: {', '.join(known)}"
                )
    others = [o for o in overrides if o not in groups]
    for chosen in _one_at_a_time(groups):
        _check_keys(others, compose_overrides(chosen, flags))
    if flags.cfg:
        return
    for chosen in _one_at_a_time(overrides):
        config = plain(compose_overrides(chosen, flags))
        limits.check(config)
        check_hyperparameters(config["regularizer"], *folders)


_TAKEN = "only arguments of the optimizer can be taken away, as ~optimizer.betas"


def _check_keys(overrides: Sequence[Any], config: Any) -> None:
    from omegaconf import OmegaConf

    known = [key for key, _ in flatten(OmegaConf.to_container(config, resolve=False))]
    parents = {".".join(key.split(".")[:depth]) for key in known for depth in (1, 2)} - {*known}
    for override in overrides:
        key, value = override.key_or_group, override.value()
        if re.match(r"hydra\b", key):
            _check_hydra(key, value)
            continue
        if override.is_delete() and (not key.startswith("optimizer.") or key in _KEPT):
            raise UserError(f"~{key}: {_TAKEN}")
        if key in parents and not isinstance(value, dict):
            inside = [name for name in known if name.startswith(f"{key}.")]
            raise UserError(f"{key}: holds keys, not a value: {', '.join(inside)}")
        given = not (override.is_delete() or override.is_sweep_override())
        inside = flatten({key: value}) if key in parents else [(key, value)]
        for name, one in inside:
            if name in known:
                if given and "${" not in override.input_line:
                    limits.check_value(name, one)  # before hydra has words of its own about it
            elif not _accepts(config, name):
                raise UserError(_unknown(name, known))
            elif not (override.is_add() or override.is_force_add()):
                raise UserError(_unknown(name, known, added=f"+{override.input_line}"))


_KEPT = ("optimizer._target_", "optimizer.lr")


def _check_hydra(key: str, value: Any) -> None:
    if key == "hydra.mode":
        raise UserError("hydra.mode: a sweep takes the flag -m")
    if key in ("hydra.run.dir", "hydra.sweep.dir") and value in (None, ""):
        raise UserError(f"{key}: got {short(value)}, expected a folder")


def _unknown(key: str, known: Sequence[str], added: str = "") -> str:
    """Says to which option a key belongs that the chosen one does not list, or gives a hint.

    Args:
        added: how the key is typed so that it becomes an argument more, where it can be one.
    """
    from omegaconf import OmegaConf

    group, _, name = key.partition(".")
    owners: dict[str, list[str]] = {}
    for option in _options(group, [CONF]) if name else ():
        config = OmegaConf.to_container(_compose_lines([f"{group}='{option}'"]), resolve=False)
        for inside, _ in flatten(config.get(group) or {}, f"{group}."):
            owners.setdefault(inside, []).append(f"{group}={option}")
    if key in owners:
        return f"{key}: belongs to {', '.join(owners[key])}; choose it, or leave this key out"
    if added:
        return f"{key}: conf/ does not list this argument; give it as {added}"
    groups = sorted(path.name for path in CONF.iterdir() if path.is_dir())
    choices = [*known, *owners] if name else [*groups, *(k for k in known if "." not in k)]
    choices = [choice for choice in choices if not choice.endswith("._target_")]
    hint = did_you_mean(key, choices)
    if not name:  # the end of a longer key
        ends = [choice for choice in known if choice.endswith(f".{key}")]
        hint = f" Did you mean '{ends[0]}'?" if ends else hint
    return f"there is no key or group {short(key)}.{hint} (all of them: train.py --cfg job)"


def _accepts(config: Any, key: str) -> bool:
    """Whether `key` names a further argument of what its node builds, as optimizer.foreach does."""
    import inspect

    from hydra.utils import get_object
    from omegaconf import OmegaConf

    parent, _, name = key.rpartition(".")
    target = OmegaConf.select(config, f"{parent}._target_") if parent else None
    given_by_build = ("params", "in_channels", "num_classes", "total", "differentiable")
    if target is None or name in given_by_build:
        return False
    return name in inspect.signature(get_object(target)).parameters


def compose_overrides(overrides: Sequence[Any], flags: Any) -> Any:
    """Returns hydra's configuration of `overrides`, with the user's --config-dir of `flags`.

    Raises:
        UserError: if they do not compose; a file of the user's that is broken is named.
    """
    lines = [o.input_line for o in overrides]
    if flags.config_dir:
        lines.append(f"hydra.searchpath=['{Path(flags.config_dir).absolute()}']")
    try:
        return _compose_lines(lines, flags.config_dir)
    except UserError:
        for path in sorted(Path(flags.config_dir).rglob("*.yaml")) if flags.config_dir else ():
            _check_yaml(path)
        raise


_ENDLESS = "refers to itself, or is nested too deeply; write it out"


def _check_yaml(path: Path) -> None:
    from omegaconf import OmegaConf

    try:
        OmegaConf.load(path)
    except RecursionError:
        raise UserError(f"{path}: {_ENDLESS}") from None
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: cannot be read as YAML ({reason})") from None


def _compose_lines(lines: Sequence[str], config_dir: str | None = None) -> Any:
    from hydra import compose, initialize_config_dir

    store_defaults(CONF, *([Path(config_dir)] if config_dir else []))
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", list(lines))
    except UserError:
        raise
    except RecursionError:
        raise UserError(f"a value or a defaults list {_ENDLESS}") from None
    except Exception as error:  # whatever it is, it comes from what was typed or a person's YAML
        cause = f" ({first_line(error.__cause__)})" if error.__cause__ else ""
        raise UserError(f"{first_line(error)}{cause}") from error


def _one_at_a_time(overrides: Sequence[Any]) -> Iterator[list[Any]]:
    """The first value of every sweep, then each other value of each, the rest at the first."""

    def single(override: Any, value: str) -> Any:
        return parse_word(f"{override.input_line.split('=', 1)[0]}={value}")

    first = [single(o, _values(o)[0]) if o.is_sweep_override() else o for o in overrides]
    yield first
    for index, override in enumerate(overrides):
        for value in _values(override)[1:]:
            yield [*first[:index], single(override, value), *first[index + 1 :]]


def _values(override: Any) -> list[str]:
    if override.is_sweep_override():
        try:
            return list(islice(override.sweep_string_iterator(), MOST_JOBS + 1))
        except Exception as error:  # glob, and a range that goes nowhere
            reason = first_line(error)
            raise UserError(
                f"{override.input_line}: is no list of values ({reason}); write key=a,b,c"
            ) from None
    value = override.value()
    return [value if isinstance(value, str) else override.get_value_element_as_str()]


def compose_plain(overrides: Sequence[str]) -> dict[str, Any]:
    """The resolved configuration that `overrides` give, for programs that start no run."""
    return plain(_compose_lines(overrides))


def plain(cfg: Any) -> dict[str, Any]:
    """Plain dicts, lists and values of a composed configuration.

    Raises:
        UserError: if a value that must be given is missing, or refers to nothing.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except RecursionError:
        raise UserError(f"a value {_ENDLESS}") from None
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        if "Missing mandatory" in str(error):
            raise UserError(f"{key}: must be given, as {key}=<value>") from None
        hint = "; give that key a value" if "not found" in str(error) else ""
        raise UserError(f"{key}: {first_line(error)}{hint}") from None


def config_groups(*folders: Path) -> list[str]:
    """The names of the groups of `conf/`, or of several such folders."""
    return sorted({path.name for folder in folders or (CONF,) for path in folder.iterdir()
                   if path.is_dir() and not path.name.startswith(("_", "."))})  # fmt: skip


def _options(group: str, folders: Sequence[Path]) -> list[str]:
    found = {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}
    return sorted(name for name in found if not name.startswith("_"))


def slug(words: Sequence[str], bare: Sequence[str] = ()) -> str:
    """Overrides as a folder name: no '=', ',' or blank, at most 80 characters.

    Of the keys in `bare` the value alone is told.

    >>> slug(["regularizer=l1", "regularizer.alpha=1e-5"])
    'regularizer-l1_alpha-1e-5'
    """
    parts = []
    for word in words:
        key, _, value = word.lstrip("+~").partition("=")
        if key != "resume" and not key.startswith("hydra"):
            text = value if key in bare else f"{key.rpartition('.')[2]}-{value}"
            text = text.replace("'", "")
            parts.append(re.sub(r"-?[^A-Za-z0-9.+_-]+", "-", text).strip("-"))
    return "_".join(parts)[:80] or "default"


def expand_ranges(word: str) -> str:
    """Writes out `key=logspace(a,b,n)`: n numbers from 10^a to 10^b, as numpy's.

    >>> expand_ranges("regularizer.alpha=logspace(-7,-5,3)")
    'regularizer.alpha=1e-07,1e-06,1e-05'

    Raises:
        UserError: if the three are not two numbers and a whole number of at least 1.
    """
    key, found, inside = word.partition("=logspace(")
    if not found:
        return word
    try:
        low, high, count = inside.removesuffix(")").split(",")
        low, high, count = float(low), float(high), int(count)
        if not (1 <= count <= MOST_JOBS and inside.endswith(")")):
            raise ValueError
        if not (abs(low) <= 300 and abs(high) <= 300):  # what a float holds; no NaN
            raise ValueError
    except ValueError:
        raise UserError(
            f"{word}: expected logspace(a,b,n), n numbers from 10^a to 10^b,"
            " such as logspace(-7,-3,9)"
        ) from None
    steps = [low + (high - low) * index / max(1, count - 1) for index in range(count)]
    return f"{key}={','.join(f'{10**step:.6g}' for step in steps)}"


def register_resolvers(arguments: Sequence[str] = ()) -> None:
    from omegaconf import OmegaConf

    typed = [a for a in arguments if "=" in a and not a.startswith("-")]
    for name, function, cached in (
        ("slug", slug, False),
        ("typed_slug", lambda: slug(typed), True),
        ("short_id", lambda: secrets.token_hex(2), True),
        ("fold_parts", lambda folds, repeats: folds * repeats if folds > 1 else 1, False),
    ):
        OmegaConf.register_new_resolver(name, function, use_cache=cached, replace=True)


register_resolvers()  # whoever composes, or unpickles a job of a launcher, imports this room
