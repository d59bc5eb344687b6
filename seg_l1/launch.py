"""Handing jobs to hydra, whose launchers spread them over cores or machines."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from seg_l1.overrides import CONF


def call_hydra(arguments: Sequence[str], task: Callable[[Any], Any]) -> None:
    """Calls `task` with the configuration that `arguments` compose, or with many under -m."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach the caller instead of hydra's printer
    before, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)()
    finally:
        sys.argv = before
        GlobalHydra.instance().clear()


def jobs_at_a_time() -> int:
    """How many jobs the launcher of this job runs in parallel, as far as it says so."""
    from hydra.core.hydra_config import HydraConfig

    count = HydraConfig.get().launcher.get("n_jobs") or 1
    return count if count > 0 else os.cpu_count() or 1
