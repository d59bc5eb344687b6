"""`seg-l1 train`: one run, a sweep with -m, or more of either."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from seg_l1 import distributed
from seg_l1.cli.frame import exit_code
from seg_l1.config.check import check_overrides
from seg_l1.config.commands import command_line
from seg_l1.config.compose import plain, unresolved
from seg_l1.config.folders import CONF, config_groups, config_words, group_options
from seg_l1.config.hydra_internals import run_job
from seg_l1.config.words import parse, prepared
from seg_l1.errors import Interrupted, RunError, UserError
from seg_l1.experiments.launch import call_hydra
from seg_l1.experiments.recipe import expanded

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


def help_text() -> str:
    """Returns the groups of `conf/` with their options and the first comment line of each."""
    lines = [
        "seg-l1 train [group=option ...] [key=value ...]    one run",
        "seg-l1 train -m regularizer=l1,l2 regularizer.alpha=1e-5,1e-4    a sweep",
        "seg-l1 train resume=<run directory>    resume a run",
        "seg-l1 train -m resume_sweep=<sweep>    go on with a sweep",
        "seg-l1 train resume_sweep=<sweep> sweep.job=3    one job of a sweep",
        "",
        "keys (all of them: seg-l1 train --cfg job):",
        "  regularizer.alpha=1e-5 (the strength)  seed=0  trainer.epochs=20  dataset.root=...",
        "",
        "groups and their options (* = default):",
    ]
    config = (CONF / "config.yaml").read_text("utf-8")
    for group in config_groups():
        default = re.search(rf"^  - {group}: \"?(\w+)", config, re.MULTILINE)
        lines.append(f"\n{group}=")
        options = group_options(group)
        width = max(20, *map(len, options))
        for option in options:
            first = (CONF / group / f"{option}.yaml").read_text("utf-8").split("\n", 2)
            about = first[1] if first[0].startswith("# @package") else first[0]
            star = "*" if default and default[1] == option else " "
            lines.append(f"  {star} {option:<{width}} {about.lstrip('# ')}")
    lines += ["", "hydra's own flags: seg-l1 train --hydra-help", ""]
    return "\n".join(lines)


def run(words: list[str]) -> int:
    """Trains what `words` say; returns the exit code.

    Raises:
        UserError: if they are wrong.
    """
    words = [prepared(word) for word in words]
    flags, overrides = parse(words)
    typed = [*flags.overrides]
    _check_resume(flags, overrides)
    if any(override.key_or_group == "resume" for override in overrides):
        return _resume(flags, overrides)
    if any(override.key_or_group == "sweep.job" for override in overrides):
        from seg_l1.cli.sweep_job import run_one

        return run_one(flags, overrides)
    before, overrides = overrides, expanded(flags, overrides)
    flags.overrides = [str(override.input_line) for override in overrides]
    if flags.cfg:
        check_overrides(flags, overrides)
    if flags.cfg or flags.info or flags.hydra_help or flags.shell_completion:
        others = [word for word in words if word not in typed]
        arguments = [*flags.overrides, *others]  # hydra's parser wants this order
        call_hydra(arguments, lambda config: None)
        return 0
    if flags.multirun:
        from seg_l1.cli.sweep import sweep

        return sweep(flags, overrides)
    implied = [str(o.input_line) for o in overrides if all(o is not other for other in before)]
    return _single(check_overrides(flags, overrides), config_words(flags), implied)


def _check_resume(flags: Namespace, overrides: Sequence[Override]) -> None:
    typed = {override.key_or_group: override for override in overrides}
    for key in typed:
        if re.match(r"path\b", key):
            raise UserError(f"{key}: belongs to {command_line('path')}")
    for key in {"resume", "resume_sweep"} & typed.keys():
        if typed[key].is_delete() or not isinstance(typed[key].value(), str | int):
            raise UserError(f"{typed[key].input_line}: expected a folder, as {key}=outputs/...")
    if "sweep.job" in typed and ("resume_sweep" not in typed or flags.multirun):
        raise UserError("sweep.job: does one job of resume_sweep=<folder>, without -m")
    if not flags.multirun and "sweep.job" not in typed and "resume_sweep" in typed:
        raise UserError(
            "resume_sweep: add -m to go on with the sweep, or sweep.job=<index> for one of its jobs"
        )
    if not flags.multirun and "sweep.plan_only" in typed:
        raise UserError("sweep.plan_only: plans a sweep, which takes the flag -m")
    if {"resume", "sweep.job"} <= typed.keys():
        raise UserError("resume: goes on with a run by itself; leave sweep.job out")
    if "sweep.job" in typed and (flags.cfg or flags.info or flags.hydra_help):
        raise UserError("sweep.job: leave out --cfg, --info, --hydra-help; see sweep.json")
    if "resume" in typed and (flags.cfg or flags.info or flags.hydra_help):
        raise UserError("resume: leave out --cfg, --info, --hydra-help; see config.yaml of the run")


def _resume(flags: Namespace, overrides: Sequence[Override]) -> int:
    """Goes on with a run, in its own directory."""
    from seg_l1.config.resume import resumed
    from seg_l1.experiments.membership import alone, check_alone, update_table

    directory, config, typed, changed = resumed(flags, overrides)
    check_alone(directory, changed)
    try:
        with alone(directory):
            return train(config, directory, typed, resume=True)
    finally:
        update_table(directory)


def _single(composed: DictConfig, flags: Sequence[str], implied: Sequence[str]) -> int:
    """Trains one run, with the directory and settings that the section `hydra` gives.

    Args:
        flags: what was typed beside the overrides, to be recorded with them.
        implied: see `training.run.run`.
    """
    from hydra.core.hydra_config import HydraConfig

    from seg_l1.runs.files import write_error
    from seg_l1.training.run import remove_if_empty

    config = plain(composed)

    def task(_: Any) -> int:
        job = HydraConfig.get()
        directory = Path(job.runtime.output_dir)
        if Path.cwd() in directory.parents:
            directory = directory.relative_to(Path.cwd())
        try:
            words = [*flags, *unresolved(job.overrides.task)]
            return train(config, directory, words, resume=False, implied=implied)
        finally:
            remove_if_empty(directory)

    try:
        return run_job(composed, task)
    except OSError as error:
        raise write_error(error, error.filename) from error


def train(
    config: dict[str, Any],
    directory: Path,
    overrides: list[str],
    *,
    resume: bool,
    implied: Sequence[str] = (),
) -> int:
    """Trains one run in `directory`, in all processes; returns the exit code.

    The arguments are those of `training.run.run`.
    """
    from seg_l1.display import terminal
    from seg_l1.display.console import CLOSED
    from seg_l1.runs.directory import RunDirectory
    from seg_l1.training.run import resume_command, run

    def work() -> int:
        distributed.broadcast_object({"config": config, "resume": resume})
        with terminal.logging_to_screen() as console:
            try:
                run(
                    config,
                    directory,
                    overrides=overrides,
                    resume=resume,
                    console=console,
                    implied=implied,
                )
            except Interrupted as error:
                if str(error) != CLOSED or not RunDirectory(directory).last.is_file():
                    raise
                again = resume_command(RunDirectory(directory), config)
                raise Interrupted(f"{CLOSED}; go on with {again}") from error
            except RunError as error:
                if not (error.can_go_on and RunDirectory(directory).last.is_file()):
                    raise
                again = f"go on with {resume_command(RunDirectory(directory), config)}"
                raise RunError(f"{error} The last checkpoint is whole: {again}") from error
        return 0

    return exit_code(work, traceback=config["traceback"])
