"""The only module that uses parts of hydra that hydra does not document."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


def arguments_parser() -> argparse.ArgumentParser:
    """Returns the parser of hydra's command line: its flags, and `overrides` as they stand."""
    from hydra._internal.utils import get_args_parser

    return get_args_parser()


def combinations(overrides: Sequence[Override]) -> list[list[str]]:
    """Returns the words of each job of a sweep, in the order in which hydra launches them."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    (batch,) = BasicSweeper.split_arguments(list(overrides), None)
    return [list(words) for words in batch]


def run_job(config: DictConfig, task: Callable[[Any], int]) -> int:
    """Returns what `task` returns, called as hydra calls a single job.

    Its folder is made, and what the section `hydra` of `config` asks for is done: the working
    directory, environment variables, logging, and callbacks.
    """
    from hydra._internal.callbacks import Callbacks
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
    from hydra.core import utils
    from hydra.types import HydraContext, RunMode

    config.hydra.mode = RunMode.RUN
    callbacks = Callbacks(config)
    context = HydraContext(ConfigLoaderImpl(ConfigSearchPathImpl()), callbacks)
    callbacks.on_run_start(config=config, config_name="config")
    ended = utils.run_job(
        task_function=task,
        config=config,
        job_dir_key="hydra.run.dir",
        job_subdir_key=None,
        hydra_context=context,
    )
    callbacks.on_run_end(config=config, config_name="config", job_return=ended)
    return ended.return_value
