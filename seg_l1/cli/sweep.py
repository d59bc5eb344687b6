"""`seg-l1 train -m`: a sweep, planned, checked, and launched job by job."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_l1.cli import torchrun
from seg_l1.config.check import check_overrides
from seg_l1.config.commands import assignment, command_line, with_environment
from seg_l1.config.compose import plain, unresolved
from seg_l1.config.folders import config_folders, config_words
from seg_l1.config.words import parse
from seg_l1.display.console import why_interrupted
from seg_l1.errors import Interrupted, RunError, UserError, described, first_line
from seg_l1.experiments.launch import call_hydra, jobs_at_a_time, stopping_the_launcher
from seg_l1.runs.trust import check_folder, check_targets, needs_trust

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

    from seg_l1.experiments.sweep import Sweep


def sweep(flags: Namespace, overrides: Sequence[Override]) -> int:
    """Plans or resumes a sweep and launches its jobs through hydra; returns the exit code.

    Raises:
        UserError: if what was typed is wrong; nothing has been written then.
        Interrupted: if a job was asked to stop.
        RunError: if the launcher ended early.
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
    record, again = _open_sweep(flags, overrides)
    typed = [line for key, line in lines.items() if not re.match(r"resume_sweep|hydra\b", key)]
    words = [line for key, line in lines.items() if re.match(r"hydra\b", key)]
    words += [assignment("hydra.sweep.dir", record.path), "--multirun", *config_words(flags)]
    try:
        with SweepScreen(record, again=again):
            call_hydra([*(typed or record.typed), *words], task, folders=config_folders(flags))
    except (KeyboardInterrupt, SystemExit, Interrupted):
        raise Interrupted(why_interrupted(f"go on with: {again}")) from None
    except UserError:
        raise
    except Exception as error:
        if all(row["status"] == "pending" for row in record.rows()):
            raise UserError(
                f"hydra/launcher: cannot start the jobs ({first_line(error)}). Mend its options"
                f" hydra.launcher.*, and go on with: {again}"
            ) from error
        raise RunError(
            f"the launcher ended early ({described(error)}); go on with: {again}"
        ) from error
    finally:
        rows = record.update()
    return int(any(row["status"] != "completed" for row in rows))


def _open_sweep(flags: Namespace, overrides: Sequence[Override]) -> tuple[Sweep, str]:
    """Returns the sweep that was typed, and the command that goes on with it.

    It is planned anew, or the one in resume_sweep, which must be the same.
    """
    from seg_l1.experiments.jobs import read_data
    from seg_l1.experiments.planning import plan
    from seg_l1.experiments.sweep import Sweep

    resumed = next((o.value() for o in overrides if o.key_or_group == "resume_sweep"), None)
    record = None if resumed is None else Sweep(Path(str(resumed)))
    if record is not None:
        _use_folder(flags, record)
    others = [o for o in overrides if o.key_or_group != "resume_sweep"]
    typed = [str(o.input_line) for o in others if not re.match(r"hydra\b", o.key_or_group)]
    overrides = others
    if record is not None and not typed:
        overrides = parse(record.typed)[1]
    first = check_overrides(flags, [*overrides, *(o for o in others if o not in overrides)])
    jobs, configs = plan(flags, overrides)
    if record is not None and not typed:
        for config in configs:
            check_targets(config, record.file)
    read_data(configs[0])  # errors in the data concern all jobs, so they are reported first
    swept = {o.key_or_group for o in overrides if o.is_sweep_override()}
    constant = {str(o.input_line) for o in overrides if o.key_or_group not in swept}
    fixed = dict(zip(typed, with_environment(typed, configs[0]), strict=True))
    typed = [fixed[word] if word in constant else word for word in typed]
    if record is None:
        folder, config_dir = Path(str(first.hydra.sweep.dir)), _folder(flags)
        record, more = Sweep.create(folder, typed, jobs, config_dir=config_dir), []
    elif changes := record.differences(jobs, configs, typed):
        raise UserError(f"resume_sweep: this is not the sweep in {record.path}", details=changes)
    else:
        record.config_dir, more = _folder(flags), typed
        record.update()
    more += [
        str(o.input_line)
        for o in others
        if re.match(r"hydra\b", o.key_or_group) and o.key_or_group != "hydra.sweep.dir"
    ]
    words = ["-m", *config_words(flags), assignment("resume_sweep", record.path), *more]
    return record, command_line("train", *words, trust=any(map(needs_trust, configs)))


def _folder(flags: Namespace) -> str | None:
    """Returns the absolute path of the --config-dir."""
    return str(Path(flags.config_dir).absolute()) if flags.config_dir else None


def _use_folder(flags: Namespace, record: Sweep) -> None:
    """Takes the --config-dir of a sweep that goes on from its plan, unless it was typed."""
    if flags.config_dir or record.config_dir is None:
        return
    folder = Path(record.config_dir)
    if not folder.is_dir():
        raise UserError(
            f"resume_sweep: {record.path} was made with --config-dir={folder}, which is not there;"
            " give the flag with the folder as it is now"
        )
    check_folder(folder, record.file)
    flags.config_dir = str(folder)


def task(config: Any) -> str:
    """A job of a sweep, as hydra's launchers call it; returns its status."""
    from hydra.core.hydra_config import HydraConfig

    from seg_l1.experiments.jobs import run_job
    from seg_l1.experiments.sweep import Sweep

    job = HydraConfig.get()
    record, overrides = Sweep(Path(job.sweep.dir)), unresolved(job.overrides.task)
    if record.config_dir:
        overrides.insert(0, f"--config-dir={record.config_dir}")
    with stopping_the_launcher():
        return run_job(record, job.job.num, plain(config), overrides, parallel=jobs_at_a_time())
