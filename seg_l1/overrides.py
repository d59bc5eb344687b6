"""What the user typed: checked before hydra composes it, with a hint for every slip.

Hydra lets `+typo=1` pass and has no hint for a misspelt option or group.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_l1 import limits
from seg_l1.errors import UserError, did_you_mean, first_line

if TYPE_CHECKING:
    from seg_l1.sweep import Job

CONF = next(
    folder
    for folder in (Path(__file__).parent / "conf", Path(__file__).parents[1] / "conf")
    if folder.is_dir()
)
"""The configuration: inside the package in a wheel, beside it in a checkout."""


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
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    register_resolvers(arguments)
    flags, rest = get_args_parser().parse_known_intermixed_args(arguments)
    wrong = [word for word in rest if word.startswith("-")]
    if wrong:
        raise UserError(f"{wrong[0]}: there is no such flag (see --help)")
    if flags.config_dir and not Path(flags.config_dir).is_dir():
        raise UserError(f"--config-dir: there is no folder '{flags.config_dir}'")
    try:
        return flags, OverridesParser.create().parse_overrides(flags.overrides)
    except HydraException as error:
        raise UserError(
            f"{first_line(error)}. Overrides look like key=value; got {' '.join(flags.overrides)}"
        ) from None


def check_overrides(flags: Any, overrides: Sequence[Any]) -> None:
    """Looks at every override of a run or a sweep, and at every value of a sweep.

    Raises:
        UserError: on an unknown group, option or key, and on a value that makes no sense.
    """
    folders = [CONF, *([Path(flags.config_dir)] if flags.config_dir else [])]
    swept = next((o for o in overrides if o.is_sweep_override()), None)
    if swept and not flags.multirun:
        raise UserError(f"{swept.input_line}: several values make a sweep, which takes the flag -m")
    groups = [o for o in overrides if o.key_or_group in config_groups(*folders)]
    for override in groups:
        known = _options(override.key_or_group, folders)
        for option in _values(override):
            if option not in known:
                raise UserError(
                    f"{override.key_or_group}: there is no option '{option}'."
                    f"{did_you_mean(option, known)} Options: {', '.join(known)}"
                )
    base = _compose(next(_one_at_a_time(groups)), flags)
    _check_keys([o for o in overrides if o not in groups], base)
    if flags.cfg:
        return
    for chosen in _one_at_a_time(overrides):
        limits.check(plain(_compose(chosen, flags)))


def _check_keys(overrides: Sequence[Any], config: Any) -> None:
    from omegaconf import OmegaConf

    known = [key for key, _ in limits.leaves(OmegaConf.to_container(config, resolve=False))]
    parents = {".".join(key.split(".")[:depth]) for key in known for depth in (1, 2)} - {*known}
    groups = sorted({path.name for path in CONF.iterdir() if path.is_dir()})
    for override in overrides:
        key = override.key_or_group
        if re.match(r"hydra\b", key):
            continue
        if override.is_delete() and not key.startswith("optimizer."):
            raise UserError(f"~{key}: only arguments of the optimizer can be taken away")
        if key in parents and not isinstance(override.value(), dict):
            inside = [name for name in known if name.startswith(f"{key}.")]
            raise UserError(f"{key}: holds keys, not a value: {', '.join(inside)}")
        if key in known or key in parents or _accepts(config, key):
            continue
        choices = known if "." in key else [*groups, *(k for k in known if "." not in k)]
        raise UserError(f"there is no key or group '{key}'.{did_you_mean(key, choices)}")


def _accepts(config: Any, key: str) -> bool:
    """Whether `key` names a further argument of what its node builds, as optimizer.foreach does."""
    import inspect

    from hydra.utils import get_object
    from omegaconf import OmegaConf

    parent, _, name = key.rpartition(".")
    target = OmegaConf.select(config, f"{parent}._target_") if parent else None
    given_by_build = ("params", "in_channels", "num_classes", "total")
    if target is None or name in given_by_build:
        return False
    return name in inspect.signature(get_object(target)).parameters


def _compose(overrides: Sequence[Any], flags: Any) -> Any:
    lines = [o.input_line for o in overrides]
    if flags.config_dir:
        lines.append(f"hydra.searchpath=['{Path(flags.config_dir).absolute()}']")
    return _compose_lines(lines, flags.config_name or "config")


def _compose_lines(lines: Sequence[str], name: str = "config") -> Any:
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose(name, list(lines))
    except HydraException as error:
        raise UserError(first_line(error)) from error


def _one_at_a_time(overrides: Sequence[Any]) -> Iterator[list[Any]]:
    """The first value of every sweep, then each other value of each, the rest at the first."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    def single(override: Any, value: str) -> Any:
        line = f"{override.input_line.split('=', 1)[0]}={value}"
        return OverridesParser.create().parse_override(line)

    first = [single(o, _values(o)[0]) if o.is_sweep_override() else o for o in overrides]
    yield first
    for index, override in enumerate(overrides):
        for value in _values(override)[1:]:
            yield [*first[:index], single(override, value), *first[index + 1 :]]


def _values(override: Any) -> list[str]:
    if override.is_sweep_override():
        return list(override.sweep_string_iterator())
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
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        if "Missing mandatory" in str(error):
            raise UserError(f"{key}: must be given, as {key}=<value>") from None
        raise UserError(f"{key}: {first_line(error)}") from None


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
        if count < 1 or not inside.endswith(")") or not math.isfinite(low + high):
            raise ValueError
    except ValueError:
        raise UserError(
            f"{word}: expected logspace(a,b,n), n numbers from 10^a to 10^b,"
            " such as logspace(-7,-3,9)"
        ) from None
    steps = [low + (high - low) * index / max(1, count - 1) for index in range(count)]
    return f"{key}={','.join(f'{10**step:.6g}' for step in steps)}"


def plan(flags: Any, overrides: Sequence[Any]) -> tuple[list[Job], list[dict[str, Any]]]:
    """Returns the jobs of a sweep in hydra's order, and their configurations.

    Raises:
        UserError: if one of these is not as `limits.check` expects it.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    from seg_l1.sweep import Job, same_runs

    own = [o for o in overrides if not re.match(r"hydra\b", o.key_or_group)]
    swept = [o.get_key_element() for o in own if o.is_sweep_override()]
    combinations = BasicSweeper.split_arguments(own, None)[0]
    groups = config_groups(CONF, *([Path(flags.config_dir)] if flags.config_dir else []))
    composed: dict[tuple[str, ...], Any] = {}
    configs = [_job_config(words, swept, flags, composed) for words in combinations]
    for config in configs:
        limits.check(config)
    jobs = []
    for index, (words, same) in enumerate(zip(combinations, same_runs(configs), strict=True)):
        values = dict(word.split("=", 1) for word in words)
        chosen = {key: values[key] for key in swept}
        told = [word for word in words if not swept or word.split("=", 1)[0] in swept]
        name = slug(told, bare=groups)
        folder = f"{index}_{name}" if same is None else jobs[same].folder
        jobs.append(Job(index, folder, words, chosen, same))
    return jobs, configs


def _job_config(
    words: Sequence[str], swept: Sequence[str], flags: Any, composed: dict[tuple[str, ...], Any]
) -> dict[str, Any]:
    """The configuration of a job; what differs in plain values alone is composed once."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    parse = OverridesParser.create().parse_override
    groups = config_groups(CONF, *([Path(flags.config_dir)] if flags.config_dir else []))
    late = [w for w in words if (key := w.split("=", 1)[0]) in swept and key not in groups]
    if any(word.startswith(("+", "~")) for word in late):
        late = []
    early = tuple(word for word in words if word not in late)
    if early not in composed:
        composed[early] = _compose([parse(word) for word in early], flags)
    config = composed[early].copy()
    for word in late:
        override = parse(word)
        OmegaConf.update(config, override.key_or_group, override.value())
    return plain(config)


def sweep_folder(flags: Any, typed: str | None) -> Path:
    """Where hydra would put the sweep: what was `typed` as hydra.sweep.dir=..., or the default."""
    from hydra import compose, initialize_config_dir

    lines = [typed] if typed else []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(flags.config_name or "config", lines, return_hydra_config=True)
        return Path(str(config.hydra.sweep.dir))


def _job_folder(sweep: str, number: int) -> str:
    """The folder that the plan has for a job."""
    from seg_l1.sweep import Sweep

    return Sweep(Path(sweep)).jobs[number].folder


def register_resolvers(arguments: Sequence[str] = ()) -> None:
    from omegaconf import OmegaConf

    typed = [a for a in arguments if "=" in a and not a.startswith("-")]
    for name, function, cached in (
        ("slug", slug, False),
        ("typed_slug", lambda: slug(typed), True),
        ("job_folder", _job_folder, False),
        ("short_id", lambda: secrets.token_hex(2), True),
    ):
        OmegaConf.register_new_resolver(name, function, use_cache=cached, replace=True)
