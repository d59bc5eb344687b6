"""Hydra callbacks of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

from seg_l1.errors import RunError, UserError


class KeepTable(Callback):
    """Updates `sweep.json` and `sweep.csv` after every job, in the process of that job."""

    def on_job_end(self, config: Any, job_return: Any, **kwargs: Any) -> None:
        from hydra.types import RunMode

        from seg_l1.experiments.sweep import Sweep

        if config.hydra.mode == RunMode.MULTIRUN:
            job_return.cfg = job_return.hydra_cfg = (
                None  # hydra would keep it until the last job has ended
            )
            try:
                Sweep(Path(config.hydra.sweep.dir)).update()
            except (UserError, RunError):  # a sweep without a plan, or a full disk
                pass
