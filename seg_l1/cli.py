"""The command: `python train.py`, installed as `seg-l1-train`.

Exit codes: 0 done, 1 failed while running, 2 the input was wrong, 130
interrupted.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seg_l1 import limits
from seg_l1.errors import UserError
from seg_l1.overrides import CONF, checked, help_text, plain

FREE_ON_RESUME = {"trainer.epochs", "trainer.early_stopping", "device", "dataset.root",
                  "dataset.workers", "trainer.threads", "traceback", "debug"}  # fmt: skip


class JobFailed(Exception):
    """A job of a sweep failed and has said so; the others go on."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command with the arguments `argv` and returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # hydra takes true for a value, and no option of a group may be one
    arguments = [re.sub("^debug=(true|false)$", r"debug='\1'", word) for word in arguments]
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(help_text())
        return 0
    traceback = any(a in ("debug='true'", "traceback=true") for a in arguments)
    try:
        _call_hydra(checked(arguments))
    except UserError as error:
        return _say(error, 2, traceback)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except JobFailed:
        return 1
    except OSError as error:
        message = f"{error.filename}: cannot be written ({error.strerror}). Choose hydra.run.dir."
        return _say(UserError(message) if error.filename else error, 2, traceback)
    return 0


def task(cfg: Any) -> dict[str, Any]:
    """One job, as hydra calls it with the composed configuration."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from seg_l1 import display
    from seg_l1.recorder import Interrupted
    from seg_l1.run import remove_if_empty, run

    job = HydraConfig.get()
    directory = Path(job.runtime.output_dir)
    if Path.cwd() in directory.parents:
        directory = directory.relative_to(Path.cwd())
    overrides = list(job.overrides.task)
    with display.logging_to_screen() as console:
        try:
            config = plain(cfg)
            if config["resume"]:
                config = _resumed(config, overrides)
            return run(
                config,
                directory,
                overrides=overrides,
                resume=bool(config["resume"]),
                console=console,
            )
        except Interrupted as stop:
            sys.stderr.write(f"{stop}\n")
            raise SystemExit(130) from None
        except Exception as error:
            code = _say(error, 2 if isinstance(error, UserError) else 1, bool(cfg.traceback))
            remove_if_empty(directory)
            if job.mode == RunMode.MULTIRUN:
                raise JobFailed from error
            raise SystemExit(code) from error


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


def _resumed(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The configuration of the run to go on with, after a look at what was typed beside `resume`.

    Raises:
        UserError: if something was typed that would make it another run.
    """
    from seg_l1.artifacts import RunDirectory
    from seg_l1.build import from_yaml

    run = RunDirectory.existing(config["resume"])
    saved = from_yaml(run.config)
    now, then = dict(limits.leaves(config)), dict(limits.leaves(saved))
    for line in overrides:
        key = line.split("=", 1)[0].lstrip("+~")
        touched = [k for k in now if k == key or k.startswith(f"{key}.")]
        for name in touched:
            if name == "resume" or name in FREE_ON_RESUME:
                _set(saved, name, now[name])
            elif now[name] != then.get(name):
                raise UserError(
                    f"resume: {run.path} was made with {name}={then.get(name)}, not {now[name]}."
                    f" Leave {key} out, or start a new run."
                )
    return {**saved, "resume": str(run.path), "traceback": config["traceback"]}


def _set(config: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        config = config[parent]
    config[last] = value
