"""The words of a command line: what hydra's grammar makes of each, and what they are called."""

from __future__ import annotations

import re
import secrets
from argparse import Namespace
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from seg_l1.config.folders import config_folders, config_groups, group_options
from seg_l1.config.hydra_internals import arguments_parser
from seg_l1.errors import UserError, first_line, short

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

MAX_LETTERS = 10_000
"""Of one word."""

MAX_PART = 40
"""Letters of a word in the name of a folder."""

MAX_JOBS = 10_000
"""Of one sweep."""


def parse(arguments: Sequence[str]) -> tuple[Namespace, list[Override]]:
    """Returns hydra's flags and the parsed overrides of a command line.

    Raises:
        UserError: on an unknown flag, and on an override that cannot be read.
    """
    register_resolvers(arguments)
    parser = arguments_parser()
    parser.error = _refuse_flag  # type: ignore[method-assign]  # it would end the process
    flags, rest = parser.parse_known_intermixed_args([prepared(word) for word in arguments])
    unknown = [word for word in rest if word.startswith("-")]
    if unknown:
        raise UserError(f"{unknown[0]}: there is no such flag (see --help)")
    if flags.config_dir is not None:
        flags.config_dir = str(Path(flags.config_dir).expanduser())
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
    if flags.package and not flags.cfg:
        raise UserError("--package: belongs to --cfg job")
    shown = [name for name in ("cfg", "info") if getattr(flags, name)]
    if flags.multirun and shown:
        raise UserError(f"--{shown[0]}: shows one configuration; leave -m out, and give one value")
    if flags.shell_completion and not re.match("(un)?install=|query=", " ".join(flags.overrides)):
        raise UserError("--shell-completion: expected install=<shell> or uninstall=<shell>")
    folders = config_folders(flags)
    overrides = [_without_glob(parse_word(word), folders) for word in flags.overrides]
    flags.overrides = [str(override.input_line) for override in overrides]
    return flags, overrides


def _without_glob(override: Override, folders: Sequence[Path]) -> Override:
    """Writes out a glob over the options of a group.

    Raises:
        UserError: if the key is no group, or no option matches.
    """
    from hydra.core.override_parser.types import Glob

    value, group = override.value(), override.key_or_group
    if not isinstance(value, Glob):
        return override
    if group not in config_groups(*folders):
        raise UserError(
            f"{override.input_line}: glob goes over the options of a group, which {group} is not;"
            " write key=a,b,c"
        )
    options = group_options(group, *folders)
    names = value.filter(options)
    if not names:
        raise UserError(f"{override.input_line}: no option matches. Options: {', '.join(options)}")
    chosen = ",".join(f"'{name}'" if name in ("true", "false") else name for name in names)
    return parse_word(f"{group}={chosen}")


def _refuse_flag(message: str) -> NoReturn:
    raise UserError(f"{message} (see --help and --hydra-help)")


def parse_word(word: str) -> Override:
    """Returns hydra's override of one word.

    Raises:
        UserError: if it cannot be read, or is too long.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if len(word) > MAX_LETTERS:
        raise UserError(f"{short(word)}: has {len(word)} letters, expected at most {MAX_LETTERS}")
    try:
        override = OverridesParser.create().parse_override(word)
        if not override.key_or_group:
            raise HydraException
        return override
    except (HydraException, RecursionError):
        raise UserError(
            f"{short(word)}: cannot be read. Overrides look like key=value; quote special"
            " characters, as in \"key='a, b'\""
        ) from None


def prepared(word: str) -> str:
    """Returns a word as hydra reads it: ranges and shuffles written out, texts in quotes.

    >>> prepared("debug=true")  # an option of a group; hydra would take it for a value
    "debug='true'"
    """
    word = re.sub(f"^({_FOLDERS})=(['\"]?)(~[^/'\"]*)", _at_home, word)
    return re.sub("^debug=(true|false)$", r"debug='\1'", drawn(quoted(expand_ranges(word))))


_FOLDERS = r"\+*hydra\.(?:run|sweep)\.dir|resume|resume_sweep|start|path\.folder|--config-dir|-cd"
"""Keys and flags whose values are folders; a shell leaves the ~ behind their = as it is."""


def _at_home(found: re.Match[str]) -> str:
    key, mark, user = found.groups()
    return f"{key}={mark}{Path(user).expanduser()}"


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
    return text if not can_be_read(word) and can_be_read(text) else word


def can_be_read(word: str) -> bool:
    """Returns whether hydra's grammar can read a word."""
    try:
        parse_word(word)
    except UserError:
        return False
    return True


def drawn(word: str) -> str:
    """Writes out the values of `shuffle(...)`, which hydra would draw anew at every reading."""
    if not re.search(r"\bshuffle\(", word) or not can_be_read(word):
        return word
    override = parse_word(word)
    if not override.is_sweep_override():
        return f"{word.partition('=')[0]}={override.get_value_element_as_str()}"
    try:
        return f"{word.partition('=')[0]}={','.join(values(override))}"
    except UserError:  # no list of values, which is refused where the others are checked
        return word


def expand_ranges(word: str) -> str:
    """Writes out `key=logspace(a,b,n)`: n numbers from 10^a to 10^b, as numpy's.

    >>> expand_ranges("regularizer.alpha=logspace(-7,-5,3)")
    'regularizer.alpha=1e-07,1e-06,1e-05'

    Raises:
        UserError: if the three are not two numbers and a whole number of at least 1.
    """
    key, equals, inside = word.partition("=logspace(")
    if not equals:
        return word
    try:
        first, last, number = inside.removesuffix(")").split(",")
        low, high, count = float(first), float(last), int(number)
        if not (1 <= count <= MAX_JOBS and inside.endswith(")")):
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


def values(override: Override) -> list[str]:
    """Returns the values of an override as they are typed: those of a sweep, or the only one.

    Raises:
        UserError: if a sweep has none.
    """
    if override.is_sweep_override():
        try:
            return list(islice(override.sweep_string_iterator(), MAX_JOBS + 1))
        except Exception as error:  # glob, and a range that goes nowhere
            reason = first_line(error)
            raise UserError(
                f"{override.input_line}: is no list of values ({reason}); write key=a,b,c"
            ) from None
    value = override.value()
    return [value if isinstance(value, str) else override.get_value_element_as_str()]


def one_at_a_time(overrides: Sequence[Override]) -> Iterator[list[Override]]:
    """Yields all sweeps at their first value, then each other value of each, the rest at the first.

    A single run has one such combination.
    """

    def single(override: Override, value: str) -> Override:
        return parse_word(f"{str(override.input_line).split('=', 1)[0]}={value}")

    first = [single(o, values(o)[0]) if o.is_sweep_override() else o for o in overrides]
    yield first
    for index, override in enumerate(overrides):
        for value in values(override)[1:]:
            yield [*first[:index], single(override, value), *first[index + 1 :]]


def key_of(word: str) -> str:
    """Returns the key or group that a word sets.

    >>> key_of("+optimizer.foreach=true")
    'optimizer.foreach'
    """
    return word.lstrip("+~").partition("=")[0]


def slug(words: Sequence[str], bare: Sequence[str] = ()) -> str:
    """Overrides as a folder name: no '=', ',' or blank, at most 80 characters; flags are left out.

    Args:
        bare: keys of which only the value appears.

    >>> slug(["regularizer=l1", "regularizer.alpha=1e-5"])
    'regularizer-l1_alpha-1e-5'
    """
    parts = []
    for word in words:
        key, _, value = word.lstrip("+~").partition("=")
        if key != "resume" and not key.startswith(("hydra", "-")):
            text = value if key in bare else f"{key.rpartition('.')[2]}-{value}"
            text = text.replace("'", "")
            parts.append(re.sub(r"-?[^A-Za-z0-9.+_-]+", "-", text).strip("-")[:MAX_PART])
    return "_".join(parts)[:80] or "default"


def _share_of_epochs(share: float, *, _root_: Any) -> int:
    """Returns a share of `trainer.epochs`; 0 if that is no number, which is refused elsewhere."""
    try:
        return round(share * _root_.trainer.epochs)
    except (AttributeError, TypeError, ValueError, OmegaConfBaseException):
        return 0


def register_resolvers(arguments: Sequence[str] = ()) -> None:
    """Registers what interpolations in `conf/` call; a sweep is named after `arguments`."""
    typed = [word for word in arguments if "=" in word and not word.startswith("-")]
    for name, function, cached in (
        ("slug", slug, False),
        ("typed_slug", lambda: slug(typed), True),
        ("short_id", lambda: secrets.token_hex(2), True),
        ("share_of_epochs", _share_of_epochs, False),
        ("fold_parts", lambda folds, repeats: folds * repeats if folds > 1 else 1, False),
    ):
        OmegaConf.register_new_resolver(name, function, use_cache=cached, replace=True)


register_resolvers()  # whoever composes, or unpickles a job of a launcher, imports this module
