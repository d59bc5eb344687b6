"""`seg-l1 train -m`: a sweep, planned, checked, and launched job by job."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from seg_l1.cli import torchrun
from seg_l1.config.check import check_overrides
from seg_l1.config.commands import command_line
from seg_l1.config.compose import Composer, config_folders, config_groups, plain
from seg_l1.config.identity import FREE
from seg_l1.config.words import key_of, one_at_a_time, parse
from seg_l1.errors import Interrupted, UserError
from seg_l1.experiments.launch import (
    call_hydra,
    jobs_at_a_time,
    stopping_the_launcher,
    task_overrides,
)
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

    _refuse_hydra(overrides)
    record = _open_sweep(flags, overrides)
    words = [str(o.input_line) for o in overrides if re.match(r"hydra\b", o.key_or_group)]
    words += [f"hydra.sweep.dir='{record.path}'", "hydra.sweeper.params=null", "--multirun"]
    words += ["-cd", flags.config_dir] if flags.config_dir else []
    with SweepScreen(record):
        try:
            call_hydra([*record.typed, *words], task, folders=config_folders(flags))
        except (KeyboardInterrupt, SystemExit):
            again = command_line("train", "-m", f"resume_sweep={record.path}")
            raise Interrupted(f"go on with: {again}") from None
        finally:
            rows = record.update()
    return int(any(row["status"] != "completed" for row in rows))


def _refuse_hydra(overrides: Sequence[Override]) -> None:
    """Refuses what would make other jobs, or other folders, than those that are planned here."""
    for override in overrides:
        key = override.key_or_group
        if key in ("hydra.sweep.subdir", "hydra/sweeper"):
            raise UserError(f"{key}: the jobs and their folders are planned here; leave it out")
        if re.match(r"hydra\b", key) and override.is_sweep_override():
            raise UserError(f"{override.input_line}: holds for all jobs; give it one value")


def _open_sweep(flags: Namespace, overrides: Sequence[Override]) -> Sweep:
    """The sweep that was typed, planned anew, or the one that goes on, which must be the same."""
    from seg_l1.experiments.jobs import read_data
    from seg_l1.experiments.planning import plan, sweep_folder
    from seg_l1.experiments.sweep import Sweep

    typed = {o.key_or_group: o for o in overrides}
    resumed = typed.pop("resume_sweep", None)
    record = None if resumed is None else Sweep(Path(str(resumed.value())))
    free = all(key in FREE or re.match(r"hydra\b", key) for key in typed)
    if record is not None and free:  # the saved words, apart from those that were typed anew
        saved = parse([word for word in record.typed if key_of(word) not in typed])[1]
        typed = {**{o.key_or_group: o for o in saved}, **typed}
    planned = _with_params_of_files(flags, [*typed.values()])
    words = [str(o.input_line) for o in planned if not re.match(r"hydra\b", o.key_or_group)]
    jobs, configs = plan(flags, planned)
    if record is not None and free:
        for config in configs:
            check_targets(config, record.file)
    data = read_data(configs[0])  # errors in the data concern all jobs, so they come first
    if record is None:
        folders = [str(o.input_line) for key, o in typed.items() if key == "hydra.sweep.dir"]
        return Sweep.create(sweep_folder(flags, folders), words, jobs)
    if changes := record.differences(jobs, configs, words):
        raise UserError(f"resume_sweep: this is not the sweep in {record.path}", details=changes)
    record.check_data(configs, data)
    record.amend(words, jobs)
    return record


def _with_params_of_files(flags: Namespace, overrides: Sequence[Override]) -> list[Override]:
    """Returns checked overrides; first those in `hydra.sweeper.params` that were not typed too.

    Raises:
        UserError: see `check_overrides`; or if options that are swept set different ones.
    """
    composed = check_overrides(flags, overrides)
    params = _params(composed)
    groups = config_groups(*config_folders(flags))
    if any(o.is_sweep_override() and o.key_or_group in groups for o in overrides):
        composer = Composer(flags, [o.key_or_group for o in overrides if o.is_sweep_override()])
        if any(_params(composer(chosen)) != params for chosen in one_at_a_time(overrides)):
            raise UserError(
                "hydra.sweeper.params: differ between the options that are swept; give these values"
                " on the command line, as -m key=a,b,c"
            )
    typed = [o.key_or_group for o in overrides]
    words = [f"{key}={value}" for key, value in params.items()]
    more = [o for o in parse(words)[1] if o.key_or_group not in typed]
    if more:
        check_overrides(flags, [*more, *overrides])
    return [*more, *overrides]


def _params(composed: DictConfig) -> dict[str, Any]:
    """Returns `hydra.sweeper.params`, the words that a file gives to a sweep.

    Raises:
        UserError: if a file chooses another sweeper, or other folders of the jobs.
    """
    section: Any = OmegaConf.to_container(composed.hydra, resolve=False)
    if not str(section["sweeper"]["_target_"]).endswith(".BasicSweeper"):
        raise UserError("hydra/sweeper: the jobs are planned here; leave it out of the file")
    if "${job_folder:" not in str(section["sweep"]["subdir"]):
        raise UserError("hydra.sweep.subdir: folders are planned here; leave it out of the file")
    return dict(section["sweeper"].get("params") or {})


def task(config: Any) -> str:
    """A job of a sweep, as hydra's launchers call it; returns its status."""
    from hydra.core.hydra_config import HydraConfig

    from seg_l1.experiments.jobs import run_job
    from seg_l1.experiments.sweep import Sweep

    job = HydraConfig.get()
    record, overrides = Sweep(Path(job.sweep.dir)), task_overrides()
    with stopping_the_launcher():
        return run_job(record, job.job.num, plain(config), overrides, parallel=jobs_at_a_time())
