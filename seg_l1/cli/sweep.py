"""`seg-l1 train -m`: a sweep, planned, checked, and launched job by job."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_l1.cli import torchrun
from seg_l1.config.check import check_overrides
from seg_l1.config.commands import command_line
from seg_l1.config.compose import config_folders, plain
from seg_l1.config.words import parse
from seg_l1.errors import Interrupted, UserError
from seg_l1.experiments.launch import call_hydra, jobs_at_a_time, stopping_the_launcher
from seg_l1.runs.trust import check_targets

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

    from seg_l1.experiments.sweep import Sweep


def sweep(flags: Namespace, overrides: Sequence[Override]) -> int:
    """Plans or resumes a sweep and launches its jobs through hydra; returns the exit code.

    Raises:
        UserError: if what was typed is wrong; nothing has been written then.
        Interrupted: if a job was asked to stop.
    """
    torchrun.refuse(
        "-m",
        "start the sweep with python, and several jobs at a time with"
        " hydra/launcher=joblib hydra.launcher.n_jobs=2; or give torchrun one run",
    )
    from seg_l1.experiments.sweep_screen import SweepScreen

    lines = {o.key_or_group: str(o.input_line) for o in overrides}
    for key in {"hydra.sweep.subdir", "hydra/sweeper"} & lines.keys():
        raise UserError(f"{key}: the jobs and their folders are planned here")
    record = _open_sweep(flags, overrides, folder=lines.get("hydra.sweep.dir"))
    typed = [line for key, line in lines.items() if not re.match(r"resume_sweep|hydra\b", key)]
    words = [line for key, line in lines.items() if re.match(r"hydra\b", key)]
    words += [f"hydra.sweep.dir='{record.path}'", "--multirun"]
    words += ["-cd", flags.config_dir] if flags.config_dir else []
    with SweepScreen(record):
        try:
            call_hydra([*(typed or record.typed), *words], task, folders=config_folders(flags))
        except (KeyboardInterrupt, SystemExit):
            again = command_line("train", "-m", f"resume_sweep={record.path}")
            raise Interrupted(f"go on with: {again}") from None
        finally:
            rows = record.update()
    return int(any(row["status"] != "completed" for row in rows))


def _open_sweep(flags: Namespace, overrides: Sequence[Override], *, folder: str | None) -> Sweep:
    """The sweep that was typed, planned anew, or the one that goes on, which must be the same.

    Args:
        folder: the typed hydra.sweep.dir=...
    """
    from seg_l1.experiments.jobs import read_data
    from seg_l1.experiments.planning import plan, sweep_folder
    from seg_l1.experiments.sweep import Sweep

    resumed = next((o.value() for o in overrides if o.key_or_group == "resume_sweep"), None)
    record = None if resumed is None else Sweep(Path(str(resumed)))
    overrides = [o for o in overrides if o.key_or_group != "resume_sweep"]
    typed = [str(o.input_line) for o in overrides if not re.match(r"hydra\b", o.key_or_group)]
    if record is not None and not typed:
        typed = record.typed
        overrides = parse(typed)[1]
    check_overrides(flags, overrides)
    jobs, configs = plan(flags, overrides)
    if record is not None and typed is record.typed:
        for config in configs:
            check_targets(config, record.file)
    read_data(configs[0])  # errors in the data concern all jobs, so they are reported first
    if record is None:
        return Sweep.create(sweep_folder(flags, folder), typed, jobs)
    if changes := record.differences(jobs, configs, typed):
        raise UserError(f"resume_sweep: this is not the sweep in {record.path}", details=changes)
    return record


def task(config: Any) -> str:
    """A job of a sweep, as hydra's launchers call it; returns its status."""
    from hydra.core.hydra_config import HydraConfig

    from seg_l1.experiments.jobs import run_job
    from seg_l1.experiments.sweep import Sweep

    job = HydraConfig.get()
    record, overrides = Sweep(Path(job.sweep.dir)), list(job.overrides.task)
    with stopping_the_launcher():
        return run_job(record, job.job.num, plain(config), overrides, parallel=jobs_at_a_time())
