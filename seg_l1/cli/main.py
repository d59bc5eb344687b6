"""The command: `python train.py`, installed as `seg-l1-train`.

Exit codes: 0 done, 1 failed while running, 2 the input was wrong, 130 interrupted.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from seg_l1 import distributed
from seg_l1.config.compose import check_overrides, expand_ranges, help_text, parse, plain, quoted
from seg_l1.errors import RunError, UserError, first_line
from seg_l1.experiments.launch import call_hydra, jobs_at_a_time
from seg_l1.runs.files import write_error
from seg_l1.runs.trust import check_targets


class JobFailed(Exception):
    """A run failed and has said so."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def main(
    argv: Sequence[str] | None = None, command: Callable[[list[str]], int] | None = None
) -> int:
    """Runs `command`, by default that of train.py, with the arguments; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # hydra takes true for a value, and no option of a group may be one
    arguments = [re.sub("^debug=(true|false)$", r"debug='\1'", word) for word in arguments]
    traceback = any(word in ("debug='true'", "traceback=true") for word in arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a table must not end a run
    if distributed.launched() > 1 and command is None:
        _one_of_several(arguments, traceback)
    return _main(arguments, traceback, command or _run)


def _main(arguments: list[str], traceback: bool, command: Callable[[list[str]], int]) -> int:
    try:
        return command([quoted(expand_ranges(word)) for word in arguments])
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except JobFailed as failed:
        return failed.code
    except UserError as error:
        return _say(error, 2, traceback)
    except RunError as error:
        return _say(error, 1, traceback)
    except OSError as error:  # of hydra, which makes the folder
        refused = write_error(error, error.filename) if error.filename else error
        if isinstance(refused, UserError):
            refused = UserError(f"{refused} Choose another hydra.run.dir.")
        return _say(refused, 1 if isinstance(refused, RunError) else 2, traceback)
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("hydra", "omegaconf"):
            raise
        return _say(UserError(first_line(error)), 2, traceback)


def _one_of_several(arguments: list[str], traceback: bool) -> NoReturn:
    """The command in one of the processes of torchrun: the first one tells the others what to run.

    Of what goes wrong the others say only what the first has not said.
    """
    try:
        distributed.init()
    except distributed.ProcessLost as error:
        raise SystemExit(_say(error, 1, traceback)) from error
    if distributed.rank() == 0:
        code = _main(arguments, traceback, _run)
        if code == 0:
            distributed.broadcast_object(None)  # there is nothing more to run
    else:
        code = _follow(traceback)
    distributed.shutdown(code)


def _follow(traceback: bool) -> int:
    from seg_l1.display import terminal
    from seg_l1.errors import Interrupted
    from seg_l1.training.run import run

    try:
        while (job := distributed.broadcast_object(None)) is not None:
            with terminal.logging_to_file() as console:
                run(job["config"], Path(), overrides=[], resume=job["resume"], console=console)
    except (Interrupted, KeyboardInterrupt):
        return distributed.rank_zero_exit_code(distributed.TIMEOUT) or 130
    except Exception as error:
        code = distributed.rank_zero_exit_code(timedelta(seconds=5))
        if code is None:
            sys.stderr.write(f"process {distributed.rank()}: ")
            code = _say(error, 2 if isinstance(error, UserError) else 1, traceback)
        return code
    return 0


def _run(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(help_text())
        return 0
    flags, overrides = parse(arguments)
    for override in overrides:
        if re.match(r"path\b", override.key_or_group):
            raise UserError(f"{override.key_or_group}: belongs to python scripts/path.py")
    typed = {override.key_or_group: override for override in overrides}
    for key in {"resume", "resume_sweep"} & typed.keys():
        if typed[key].is_delete() or not isinstance(typed[key].value(), str | int):
            raise UserError(f"{typed[key].input_line}: expected a folder, as {key}=outputs/...")
    if "resume_sweep" in typed and not flags.multirun:
        raise UserError("resume_sweep: goes on with a sweep, which takes the flag -m")
    if "resume" in typed and (flags.cfg or flags.info or flags.hydra_help):
        raise UserError("resume: goes on with a run; its configuration is in its config.yaml")
    if "resume" in typed:
        from seg_l1.config.resume import resumed

        directory, config, first = resumed(flags, overrides)
        _job(config, directory, first, resume=True)
        return 0
    if not (flags.hydra_help or flags.info or flags.shell_completion):
        if flags.multirun and not flags.cfg:
            distributed.refuse(
                "-m",
                "start the sweep with python, and several jobs at a time with"
                " hydra/launcher=joblib hydra.launcher.n_jobs=2; or give torchrun one run",
            )
            return _sweep(flags, overrides)
        check_overrides(flags, overrides)
    others = [word for word in arguments if word not in flags.overrides]
    call_hydra([*flags.overrides, *others], task)  # its parser wants the overrides together
    return 0


def _sweep(flags: Any, overrides: Sequence[Any]) -> int:
    """Plans a sweep, or goes on with one, and has hydra launch its jobs; returns the exit code."""
    from seg_l1.experiments import sweep_screen
    from seg_l1.experiments.jobs import read_data
    from seg_l1.experiments.planning import plan, sweep_folder
    from seg_l1.experiments.sweep import Sweep

    for override in overrides:
        if override.key_or_group in ("hydra.sweep.subdir", "hydra/sweeper"):
            raise UserError(f"{override.key_or_group}: the jobs and their folders are planned here")
    lines = {o.key_or_group: o.input_line for o in overrides}
    going_on = next((o.value() for o in overrides if o.key_or_group == "resume_sweep"), None)
    sweep = None if going_on is None else Sweep(Path(str(going_on)))
    typed = [line for key, line in lines.items() if not re.match(r"resume_sweep|hydra\b", key)]
    if sweep is not None and not typed:
        typed = sweep.typed
        overrides = parse(typed)[1]
    overrides = [o for o in overrides if o.key_or_group != "resume_sweep"]
    check_overrides(flags, overrides)
    jobs, configs = plan(flags, overrides)
    if sweep is not None and typed is sweep.typed:
        for config in configs:
            check_targets(config, sweep.file)
    read_data(configs[0])  # what is wrong with the data is wrong for all: said before anything runs
    if sweep is None:
        sweep = Sweep.create(sweep_folder(flags, lines.get("hydra.sweep.dir")), typed, jobs)
    elif changes := sweep.differences(jobs, configs, typed):
        raise UserError(f"resume_sweep: this is not the sweep in {sweep.path}", details=changes)
    words = [line for key, line in lines.items() if re.match(r"hydra\b", key)]
    words += [f"hydra.sweep.dir='{sweep.path}'", "--multirun"]
    words += ["-cd", flags.config_dir] if flags.config_dir else []
    with sweep_screen.SweepScreen(sweep) as screen:
        try:
            call_hydra([*typed, *words], task)
        except (KeyboardInterrupt, SystemExit):
            screen.interrupted = True
        finally:
            rows = sweep.update()
    if screen.interrupted:
        sys.stderr.write(f"go on with: python train.py -m resume_sweep={sweep.path}\n")
        return 130
    return int(any(row["status"] != "completed" for row in rows))


def task(cfg: Any) -> Any:
    """A run, or a job of a sweep, as hydra calls it with the composed configuration."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    job = HydraConfig.get()
    directory, overrides = Path(job.runtime.output_dir), list(job.overrides.task)
    if job.mode == RunMode.MULTIRUN:
        from seg_l1.errors import Interrupted
        from seg_l1.experiments.jobs import run_job
        from seg_l1.experiments.sweep import Sweep

        sweep = Sweep(Path(job.sweep.dir))
        try:
            return run_job(sweep, job.job.num, plain(cfg), overrides, parallel=jobs_at_a_time())
        except Interrupted:
            raise SystemExit(130) from None
    try:
        _job(plain(cfg), directory, overrides, resume=False)
    except JobFailed as failed:  # ends without hydra's own words
        raise SystemExit(failed.code) from failed


def _job(config: dict[str, Any], directory: Path, overrides: list[str], *, resume: bool) -> None:
    from seg_l1.display import terminal
    from seg_l1.errors import Interrupted
    from seg_l1.runs.directory import RunDirectory
    from seg_l1.training.run import remove_if_empty, run

    if Path.cwd() in directory.parents:
        directory = directory.relative_to(Path.cwd())
    with terminal.logging_to_screen() as console:
        try:
            distributed.broadcast_object({"config": config, "resume": resume})
            run(config, directory, overrides=overrides, resume=resume, console=console)
        except Interrupted as stop:
            sys.stderr.write(f"{stop}\n")
            raise SystemExit(130) from None
        except Exception as error:
            code = 2 if isinstance(error, UserError) else 1
            if isinstance(error, RunError) and RunDirectory(directory).last.is_file():
                again = f"go on with python train.py resume={directory}"
                error = RunError(f"{error} The last checkpoint is whole: {again}")
            raise JobFailed(_say(error, code, config["traceback"])) from error
        finally:
            remove_if_empty(directory)


def _say(error: BaseException, code: int, traceback: bool) -> int:
    """Prints what went wrong, in a line or two, or Python's traceback if that was asked for."""
    if traceback:
        import traceback as tb

        tb.print_exception(error)
    else:
        for line in getattr(error, "details", []):
            sys.stdout.write(f"  {line}\n")
        told = isinstance(error, UserError | RunError)
        kind = "" if told else f"{type(error).__name__}: "
        hint = "" if told else " (debug=true shows where)"
        sys.stderr.write(f"error: {kind}{str(error).strip() or repr(error)}{hint}\n")
    return code
