"""What a sweep will do, before its first job: hydra's own product of the values that were typed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seg_l1.config import limits
from seg_l1.config.compose import CONF, compose_overrides, config_groups, parse_word, plain, slug
from seg_l1.config.identity import duplicates
from seg_l1.experiments.sweep import Job


def plan(flags: Any, overrides: Sequence[Any]) -> tuple[list[Job], list[dict[str, Any]]]:
    """Returns the jobs of a sweep in hydra's order, and their configurations.

    Raises:
        UserError: if one of these is not as `limits.check` expects it.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    own = [o for o in overrides if not re.match(r"hydra\b", o.key_or_group)]
    swept = [o.get_key_element() for o in own if o.is_sweep_override()]
    combinations = BasicSweeper.split_arguments(own, None)[0]
    groups = config_groups(CONF, *([Path(flags.config_dir)] if flags.config_dir else []))
    composed: dict[tuple[str, ...], Any] = {}
    configs = [_job_config(words, swept, flags, composed) for words in combinations]
    for config in configs:
        limits.check(config)
    jobs = []
    for index, (words, same) in enumerate(zip(combinations, duplicates(configs), strict=True)):
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
    from omegaconf import OmegaConf

    groups = config_groups(CONF, *([Path(flags.config_dir)] if flags.config_dir else []))
    late = [w for w in words if (key := w.split("=", 1)[0]) in swept and key not in groups]
    if any(word.startswith(("+", "~")) for word in late):
        late = []
    early = tuple(word for word in words if word not in late)
    if early not in composed:
        composed[early] = compose_overrides([parse_word(word) for word in early], flags)
    config = composed[early].copy()
    for word in late:
        override = parse_word(word)
        OmegaConf.update(config, override.key_or_group, override.value())
    return plain(config)


def sweep_folder(flags: Any, typed: str | None) -> Path:
    """Where hydra would put the sweep: what was `typed` as hydra.sweep.dir=..., or the default."""
    from hydra import compose, initialize_config_dir

    lines = [typed] if typed else []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", lines, return_hydra_config=True)
        return Path(str(config.hydra.sweep.dir))
