"""Plans a sweep before its first job, with hydra's own product of the swept values."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from seg_l1.config import limits
from seg_l1.config.compose import Composer
from seg_l1.config.folders import config_folders, config_groups
from seg_l1.config.hydra_internals import combinations
from seg_l1.config.identity import duplicates, flatten
from seg_l1.config.short_names import short_names
from seg_l1.config.words import parse_word, slug
from seg_l1.errors import UserError
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
    parsed = {word: parse_word(word) for word in dict.fromkeys(chain.from_iterable(all_words))}
    configs = [composer.plain([parsed[word] for word in words]) for words in all_words]
    for config in configs:
        limits.check(config)
    _check_solvers(configs, all_words)
    groups = config_groups(*config_folders(flags))
    pairs = [dict(word.split("=", 1) for word in words if "=" in word) for words in all_words]
    chosen = [
        {key: _resolved(key, values[key], config) for key in keys}
        for values, config in zip(pairs, configs, strict=True)
    ]
    names = short_names(chosen)
    jobs: list[Job] = []
    for index, (words, same) in enumerate(zip(all_words, duplicates(configs), strict=True)):
        named = [  # long values by the letter of their names
            f"{key}={names[key, value].rpartition(' ')[2] if (key, value) in names else value}"
            for key, value in chosen[index].items()
        ] or words
        folder = f"{index}_{slug(named, bare=groups)}" if same is None else jobs[same].folder
        jobs.append(Job(index, folder, words, chosen[index], same))
    return jobs, configs


def _resolved(key: str, value: str, config: dict[str, Any]) -> str:
    """Returns the value of a word as it is trained with: interpolations replaced."""
    found = dict(flatten(config))
    return str(found[key]) if "${" in value and key in found else value


def _check_solvers(configs: Sequence[dict[str, Any]], words: Sequence[Sequence[str]]) -> None:
    """Refuses a job whose solver cannot carry out its penalty, before any job is trained."""
    import torch

    from seg_l1.training.build import SOLVERS
    from seg_l1.training.instantiate import instantiate

    checked = set()
    for config, typed in zip(configs, words, strict=True):
        section = config["regularizer"]
        if (key := repr((section["penalty"], section["solver"]))) in checked:
            continue
        checked.add(key)
        penalty = instantiate("regularizer.penalty", section["penalty"])
        try:
            SOLVERS[section["solver"]](penalty, [], torch.optim.SGD([torch.zeros(1)], lr=1.0))
        except TypeError as error:
            job = " ".join(word for word in typed if word.startswith("regularizer"))
            raise UserError(
                f"regularizer.solver={section['solver']}: {error} (in the job with {job})"
            ) from None
