"""`seg-l1 train -m`: a sweep, planned, checked, and launched job by job."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from seg_l1.cli import torchrun
from seg_l1.config.check import check_overrides
from seg_l1.config.commands import assignment, command_line, with_environment
from seg_l1.config.compose import Composer, plain, unresolved
from seg_l1.config.folders import config_folders, config_groups, config_words
from seg_l1.config.identity import FREE
from seg_l1.config.words import key_of, one_at_a_time, parse
from seg_l1.display import terminal
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

    _refuse_hydra(overrides)
    plan_only = _plan_only(overrides)
    overrides = [o for o in overrides if o.key_or_group != "sweep.plan_only"]
    record, config, trust = _open_sweep(flags, overrides)
    words = [str(o.input_line) for o in overrides if re.match(r"hydra\b", o.key_or_group)]
    launch = [word for word in words if key_of(word) != "hydra.sweep.dir"]
    again = command_for(record, flags, "-m", *launch, trust=trust)
    if config["sweep"]["plan_only"] if plan_only is None else plan_only:
        _show_plan(record, again, flags, trust=trust)
        return 0
    words += [assignment("hydra.sweep.dir", record.path), "hydra.sweeper.params=null"]
    words += ["--multirun", *config_words(flags)]
    try:
        with SweepScreen(record, again=again):
            call_hydra([*record.typed, *words], task)
    except (KeyboardInterrupt, SystemExit, Interrupted):
        raise Interrupted(why_interrupted(f"go on with: {again}")) from None
    except UserError:
        raise
    except Exception as error:
        if all(row["status"] == "pending" for row in record.rows()):
            raise UserError(
                f"hydra/launcher: cannot start the jobs ({first_line(error)}). Fix its options"
                f" hydra.launcher.*, and go on with: {again}"
            ) from error
        raise RunError(
            f"the launcher ended early ({described(error)}); go on with: {again}"
        ) from error
    finally:
        rows = record.update()
    return int(any(row["status"] != "completed" for row in rows))


def command_for(record: Sweep, flags: Namespace, *words: str, trust: bool) -> str:
    """Returns the command that goes on with a sweep as `words` say."""
    before, after = (words[:1], words[1:]) if "-m" in words else ((), words)
    folder = assignment("resume_sweep", record.path)
    return command_line("train", *before, *config_words(flags), folder, *after, trust=trust)


def _plan_only(overrides: Sequence[Override]) -> bool | None:
    """Returns what was typed as sweep.plan_only, if anything was."""
    for override in overrides:
        if override.key_or_group == "sweep.plan_only":
            if not isinstance(override.value(), bool):
                raise UserError(f"{override.input_line}: expected true or false")
            return bool(override.value())
    return None


def _show_plan(record: Sweep, again: str, flags: Namespace, *, trust: bool) -> None:
    """Prints how many jobs there are to train, and the commands that train them."""
    from seg_l1.experiments.sweep_screen import counts

    rows = record.rows()
    distinct = [row for row in rows if row["same_as"] is None]
    missing = [row["index"] for row in distinct if row["status"] != "completed"]
    count, same = len(rows), len(rows) - len(distinct)
    text = f"{count} job{'s' * (count != 1)}, indices 0 to {count - 1}; {len(missing)} to train"
    text += f", {same} the same run as another" * bool(same)
    lines = [f"sweep: {record.path}", text]
    if len(missing) < len(distinct):
        lines.append(counts(rows))
    if missing:
        one = command_for(record, flags, f"sweep.job={missing[0]}", trust=trust)
        lines += ["", "next, in processes of their own:", f"  {one}", "or here:", f"  {again}"]
    else:
        lines += ["", "next:", f"  {command_line('report', record.path)}"]
    terminal.say("\n".join(lines))


def _refuse_hydra(overrides: Sequence[Override]) -> None:
    """Refuses what would make other jobs, or other folders, than those that are planned here."""
    for override in overrides:
        key = override.key_or_group
        if key in ("hydra.sweep.subdir", "hydra/sweeper"):
            raise UserError(f"{key}: the jobs and their folders are planned here; leave it out")
        if re.match(r"hydra\b", key) and override.is_sweep_override():
            raise UserError(f"{override.input_line}: holds for all jobs; give it one value")


def _open_sweep(
    flags: Namespace, overrides: Sequence[Override]
) -> tuple[Sweep, dict[str, Any], bool]:
    """Returns the sweep that was typed, the first configuration, and whether any needs trust.

    It is planned anew, or the one in resume_sweep, which must be the same.
    """
    from seg_l1.experiments.jobs import read_data
    from seg_l1.experiments.planning import plan
    from seg_l1.experiments.sweep import Sweep

    typed = {o.key_or_group: o for o in overrides}
    resumed = typed.pop("resume_sweep", None)
    record = None if resumed is None else Sweep(Path(str(resumed.value())))
    if record is not None:
        use_folder(flags, record)
    free = all(key in FREE or re.match(r"hydra\b", key) for key in typed)
    if record is not None and free:  # the saved words, apart from those that were typed anew
        saved = parse([word for word in record.typed if key_of(word) not in typed])[1]
        typed = {**{o.key_or_group: o for o in saved}, **typed}
    planned, composed = _with_params_of_files(flags, [*typed.values()])
    jobs, configs = plan(flags, planned)
    if record is not None and free:
        for config in configs:
            check_targets(config, record.file)
    data = read_data(configs[0])  # errors in the data concern all jobs, so they come first
    words = _words(planned, configs[0])
    if record is None:
        folder = Path(str(composed.hydra.sweep.dir))
        record = Sweep.create(folder, words, jobs, config_dir=_folder(flags))
    elif changes := record.differences(jobs, configs, words):
        raise UserError(f"resume_sweep: this is not the sweep in {record.path}", details=changes)
    else:
        record.check_data(dict(enumerate(configs)), data)
        record.config_dir = _folder(flags)
        record.amend(words, jobs)
    return record, configs[0], any(map(needs_trust, configs))


def _words(overrides: Sequence[Override], config: Mapping[str, Any]) -> list[str]:
    """Returns the words of a plan, with environment variables written out except in sweeps."""
    words = []
    for override in overrides:
        if not re.match(r"hydra\b", override.key_or_group):
            line = str(override.input_line)
            swept = override.is_sweep_override()
            words += [line] if swept else with_environment([line], config)
    return words


def _folder(flags: Namespace) -> str | None:
    """Returns the absolute path of the --config-dir."""
    return str(Path(flags.config_dir).absolute()) if flags.config_dir else None


def use_folder(flags: Namespace, record: Sweep) -> None:
    """Takes the --config-dir of a sweep that goes on from its plan, unless it was typed."""
    if flags.config_dir or record.config_dir is None:
        return
    folder = Path(record.config_dir)
    if not folder.is_dir():
        raise UserError(
            f"resume_sweep: {record.path} was made with --config-dir={folder}, which is missing;"
            " give --config-dir=<its present place>"
        )
    check_folder(folder, record.file)
    flags.config_dir = str(folder)


def _with_params_of_files(
    flags: Namespace, overrides: Sequence[Override]
) -> tuple[list[Override], DictConfig]:
    """Returns checked overrides, and what they compose.

    First come those in `hydra.sweeper.params` that were not typed too.

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
    return [*more, *overrides], composed


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
    record, overrides = Sweep(Path(job.sweep.dir)), unresolved(job.overrides.task)
    if record.config_dir:
        overrides.insert(0, f"--config-dir={record.config_dir}")
    parallel = jobs_at_a_time(len({job.folder for job in record.jobs}))
    with stopping_the_launcher():
        return run_job(record, job.job.num, plain(config), overrides, parallel=parallel)
