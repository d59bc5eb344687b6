"""The command: `python train.py`, installed as `seg-l1-train`.

Exit codes: 0 done, 1 failed while running, 2 the input was wrong, 130 interrupted.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seg_l1.errors import UserError, first_line
from seg_l1.overrides import CONF, check_overrides, help_text, parse, plain


class JobFailed(Exception):
    """A job failed and has said so; in a sweep the others go on."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with the arguments `argv` and returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # hydra takes true for a value, and no option of a group may be one
    arguments = [re.sub("^debug=(true|false)$", r"debug='\1'", word) for word in arguments]
    traceback = any(word in ("debug='true'", "traceback=true") for word in arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a table must not end a run
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except JobFailed as failed:
        return failed.code
    except UserError as error:
        return _say(error, 2, traceback)
    except OSError as error:
        message = f"{error.filename}: cannot be written ({error.strerror}). Choose hydra.run.dir."
        return _say(UserError(message) if error.filename else error, 2, traceback)
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("hydra", "omegaconf"):
            raise
        return _say(UserError(first_line(error)), 2, traceback)


def _run(arguments: list[str]) -> int:
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(help_text())
        return 0
    flags, overrides = parse(arguments)
    if any(override.key_or_group == "resume" for override in overrides):
        from seg_l1.resume import resumed

        directory, config, first = resumed(flags, overrides)
        _job(config, directory, first, resume=True)
        return 0
    if not (flags.hydra_help or flags.info or flags.shell_completion):
        check_overrides(flags, overrides)
    _call_hydra(arguments)
    return 0


def task(cfg: Any) -> dict[str, Any]:
    """One job, as hydra calls it with the composed configuration."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    job = HydraConfig.get()
    directory, overrides = Path(job.runtime.output_dir), list(job.overrides.task)
    try:
        return _job(plain(cfg), directory, overrides, resume=False)
    except JobFailed as failed:
        if job.mode == RunMode.RUN:  # a sweep goes on; a run ends without hydra's own words
            raise SystemExit(failed.code) from failed
        raise


def _job(
    config: dict[str, Any], directory: Path, overrides: list[str], *, resume: bool
) -> dict[str, Any]:
    from seg_l1 import display
    from seg_l1.recorder import Interrupted
    from seg_l1.run import remove_if_empty, run

    if Path.cwd() in directory.parents:
        directory = directory.relative_to(Path.cwd())
    with display.logging_to_screen() as console:
        try:
            return run(config, directory, overrides=overrides, resume=resume, console=console)
        except Interrupted as stop:
            sys.stderr.write(f"{stop}\n")
            raise SystemExit(130) from None
        except Exception as error:
            code = 2 if isinstance(error, UserError) else 1
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
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        hint = "" if isinstance(error, UserError) else " (debug=true shows where)"
        sys.stderr.write(f"error: {kind}{str(error).strip() or repr(error)}{hint}\n")
    return code


def _call_hydra(arguments: list[str]) -> None:
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach `main` instead of hydra's printer
    before, sys.argv = sys.argv, [sys.argv[0], *arguments]
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)()
    finally:
        sys.argv = before
        GlobalHydra.instance().clear()
