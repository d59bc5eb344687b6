"""What hydra calls while a sweep runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

from seg_l1.errors import RunError, UserError


class KeepTable(Callback):
    """Keeps `sweep.json` and `sweep.csv` current, in whatever process a job ends."""

    def on_job_end(self, config: Any, job_return: Any, **kwargs: Any) -> None:
        from hydra.types import RunMode

        from seg_l1.experiments.sweep import Sweep

        if config.hydra.mode == RunMode.MULTIRUN:
            job_return.cfg = job_return.hydra_cfg = None  # hydra keeps it till the last job's end
            try:
                Sweep(Path(config.hydra.sweep.dir)).update()
            except (UserError, RunError):  # somebody else's launcher, without a plan; a full disk
                pass
