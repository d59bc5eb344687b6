"""`seg-l1 train resume_sweep=<folder> sweep.job=<index>`: one job of a sweep in its own process."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_l1.cli.sweep import command_for, use_folder
from seg_l1.config.check import check_overrides
from seg_l1.config.compose import plain
from seg_l1.config.folders import config_words
from seg_l1.config.identity import MACHINE, PRESENTATION
from seg_l1.config.words import key_of, parse
from seg_l1.display import terminal
from seg_l1.display.console import why_interrupted
from seg_l1.errors import Interrupted, RunError, UserError
from seg_l1.runs.trust import check_targets, needs_trust

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

    from seg_l1.experiments.sweep import Sweep
    from seg_l1.runs.files import Config

BESIDE = (*PRESENTATION, *MACHINE, "sweep.on_error")
"""Keys that may be given beside `sweep.job`."""


def run_one(flags: Namespace, overrides: Sequence[Override]) -> int:
    """Runs or resumes the job that `sweep.job` names; returns the exit code.

    A job that is completed, or is the same run as another, is left as it is.

    Raises:
        UserError: if what was typed is wrong, or does not fit the sweep.
        Interrupted: if it was asked to stop; all is saved.
        RunError: if the run ends in an error.
    """
    from seg_l1.experiments.jobs import train_job
    from seg_l1.experiments.sweep import Sweep

    typed = {o.key_or_group: o for o in overrides if o.key_or_group != "debug"}
    record = Sweep(Path(str(typed.pop("resume_sweep").value())))
    index = _index(record, typed.pop("sweep.job"))
    same = record.jobs[index].same_as
    if same is not None:
        terminal.say(f"job {index}: is the same run as job {same}, which trains it")
        return 0
    if record.run(index).read_summary(missing_ok=True).status == "completed":
        return _completed(record, index)
    config, words = _config(flags, record, index, typed)
    trust = needs_trust(config)
    again = command_for(record, flags, f"sweep.job={index}", trust=trust)
    try:
        status = train_job(record, index, config, words, on_screen=True)
    except (KeyboardInterrupt, Interrupted):
        raise Interrupted(why_interrupted(f"job {index} stopped; go on with: {again}")) from None
    except RunError as error:
        raise RunError(f"job {index} failed: {error}; try again with: {again}") from error
    finally:
        record.update()
    if status == "pending":
        terminal.say(f"job {index}: another job has failed, and sweep.on_error=stop")
        return 1
    return _completed(record, index)


def _completed(record: Sweep, index: int) -> int:
    record.update()
    terminal.say(f"job {index}: is completed, in {record.run(index).path}")
    return 0


def _index(record: Sweep, override: Override) -> int:
    """Returns the index of the job.

    Raises:
        UserError: if it is not the index of a job of the sweep.
    """
    value, last = override.value(), len(record.jobs) - 1
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= last:
        raise UserError(
            f"{override.input_line}: expected the index of a job of {record.path}, 0 to {last}"
        )
    return value


def _config(
    flags: Namespace, record: Sweep, index: int, typed: dict[str, Override]
) -> tuple[Config, list[str]]:
    """Returns configuration and overrides of a job, with the keys of the machine as typed.

    Raises:
        UserError: if other keys were typed, or if configuration or data are not those of the sweep.
    """
    from seg_l1.experiments.jobs import read_data

    for key, override in typed.items():
        if key not in BESIDE:
            raise UserError(
                f"{override.input_line}: sweep.job takes its words from the plan. The only other"
                f" keys allowed are {', '.join(BESIDE)}"
            )
    use_folder(flags, record)

    def composed(job: int) -> Config:
        planned = [word for word in record.jobs[job].overrides if key_of(word) not in typed]
        return plain(check_overrides(flags, [*parse(planned)[1], *typed.values()]))

    config: dict[str, Any] = composed(index)
    check_targets(config, record.file)
    named = {key_of(word) for word in record.typed}
    if changes := record.changes(index, config, named):
        raise UserError(f"sweep.job={index}: is not the job in {record.path}", details=changes)
    configs = {index: config, **{job: composed(job) for job in _sharing_data(record, index)}}
    record.check_data(configs, read_data(config))
    words = [word for word in record.jobs[index].overrides if key_of(word) not in typed]
    return config, [*config_words(flags), *words, *(str(o.input_line) for o in typed.values())]


def _sharing_data(record: Sweep, index: int) -> list[int]:
    """Returns, as a list, one other job that has begun with what seems the same data; or []."""

    def data_words(job: int) -> dict[str, str]:
        swept = record.jobs[job].swept
        return {key: swept[key] for key in swept if re.match(r"dataset|limit\b", key)}

    for job in record.jobs:
        begun = job.same_as is None and record.run(job.index).environment.is_file()
        if begun and job.index != index and data_words(job.index) == data_words(index):
            return [job.index]
    return []
