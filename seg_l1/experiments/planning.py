"""Plans a sweep before its first job, with hydra's own product of the swept values."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_l1.config import limits
from seg_l1.config.compose import Composer, compose_lines, config_folders, config_groups, plain
from seg_l1.config.hydra_internals import combinations
from seg_l1.config.identity import duplicates, flatten
from seg_l1.config.words import parse_word, slug
from seg_l1.experiments.sweep import Job

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


def plan(flags: Namespace, overrides: Sequence[Override]) -> tuple[list[Job], list[dict[str, Any]]]:
    """Returns the jobs of a sweep in hydra's order, and their configurations.

    Raises:
        UserError: if one of these is not as `limits.check` expects it.
    """
    own = [o for o in overrides if not re.match(r"hydra\b", o.key_or_group)]
    swept = [o for o in own if o.is_sweep_override()]
    composer = Composer(flags, [o.key_or_group for o in swept])
    keys = [o.get_key_element() for o in swept]
    all_words = combinations(own)
    configs = [plain(composer([parse_word(word) for word in words])) for words in all_words]
    for config in configs:
        limits.check(config)
    groups = config_groups(*config_folders(flags))
    jobs: list[Job] = []
    for index, (words, same) in enumerate(zip(all_words, duplicates(configs), strict=True)):
        values = dict(word.split("=", 1) for word in words)
        chosen = {key: _resolved(key, values[key], configs[index]) for key in keys}
        named = [word for word in words if not keys or word.split("=", 1)[0] in keys]
        folder = f"{index}_{slug(named, bare=groups)}" if same is None else jobs[same].folder
        jobs.append(Job(index, folder, words, chosen, same))
    return jobs, configs


def _resolved(key: str, value: str, config: dict[str, Any]) -> str:
    """Returns the value of a word as it is trained with: interpolations replaced."""
    found = dict(flatten(config))
    return str(found[key]) if "${" in value and key in found else value


def sweep_folder(flags: Namespace, typed: Sequence[str]) -> Path:
    """Returns where hydra puts a sweep: the hydra.sweep.dir=... in `typed`, or the default."""
    return Path(str(compose_lines(typed).hydra.sweep.dir))
