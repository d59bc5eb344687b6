"""Starts jobs through hydra, whose launchers distribute them over cores or machines."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from seg_l1.config.folders import CONF, config_folders
from seg_l1.config.hyperparameters import store_defaults
from seg_l1.config.words import parse
from seg_l1.errors import Interrupted


def call_hydra(arguments: Sequence[str], task: Callable[[Any], Any]) -> None:
    """Calls `task` with the configuration that `arguments` compose, or with many under -m."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    store_defaults(*config_folders(parse(arguments)[0]))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach the caller instead of hydra's printer
    program = sys.argv[0]
    if Path(program).name == "seg-l1":  # shells complete the words of one command
        program = "seg-l1-train"
    before, sys.argv = sys.argv, [program, *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)()
    finally:
        sys.argv = before
        GlobalHydra.instance().clear()


def jobs_at_a_time(jobs: int) -> int:
    """Returns how many of `jobs` the launcher runs at a time on one machine, by its options.

    That is 1 if they do not say, and all of them with submitit_local.
    """
    from hydra.core.hydra_config import HydraConfig

    launcher = HydraConfig.get().launcher
    if str(launcher.get("_target_")).endswith("submitit_launcher.LocalLauncher"):
        return jobs
    count = launcher.get("n_jobs") or 1
    return count if count > 0 else os.cpu_count() or 1


@contextmanager
def stopping_the_launcher() -> Iterator[None]:
    """Context manager: an interrupted job ends its launcher too.

    Raises:
        SystemExit: in place of Interrupted; any other exception is the failure of one job.
    """
    try:
        yield
    except Interrupted:
        raise SystemExit(Interrupted.exit_code) from None


def _job_folder(sweep: str, number: int) -> str:
    """Returns the planned folder of a job."""
    from seg_l1.experiments.sweep import Sweep

    return Sweep(Path(sweep)).jobs[number].folder


OmegaConf.register_new_resolver("job_folder", _job_folder, replace=True)
