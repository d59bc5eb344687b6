"""Hyperparameter search: optuna draws them, each trial is a run, weak trials are pruned.

A study is a folder with `study.journal` (optuna's), `trials.csv` and a run directory per trial.
What a trial draws depends only on the seed and on the trials that counted before it, so that an
interrupted search continues as if it had not been interrupted. Several processes may work on it:
each holds a lock on its trial, which says that the trial is at work, and they draw and write the
table one after the other.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seg_l1.config import limits
from seg_l1.config.commands import command_line
from seg_l1.config.compose import compose_plain
from seg_l1.config.words import drawn, slug
from seg_l1.display.console import why_interrupted
from seg_l1.display.terminal import new_console
from seg_l1.errors import Interrupted, UserError
from seg_l1.experiments import jobs
from seg_l1.experiments.lock import lock
from seg_l1.experiments.search_screen import best_table, describe
from seg_l1.experiments.space import lines, overrides, read_words, with_recipe
from seg_l1.experiments.study import (
    calls_code,
    default_folder,
    load_optuna,
    open_storage,
    open_study,
    study_file,
    study_words,
)
from seg_l1.runs.files import write_csv

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial
    from rich.console import Console

    from seg_l1.runs.directory import RunDirectory
    from seg_l1.training.evaluation import Row

OBJECTIVES = {"miou": "val/miou", "zeros": "sparsity/exact"}
"""What is maximized: scores of a run at its best epoch."""

SCORES = ("val/miou", "sparsity/exact", "gap/miou")
"""Scores in `trials.csv`, at the best epoch of a trial."""


class Pruned(Interrupted):
    """Raised when a trial is worse than the others; its run is saved and can be resumed."""


def search(typed: Mapping[str, str]) -> int:
    """Runs or resumes the study that the arguments `typed` describe; returns the exit code.

    Keys are `study`, those of `DEFAULTS`, and those of `train.py`, whose values may be `SPACES`.

    Raises:
        UserError: if the input is wrong; nothing has been written then.
    """
    load_optuna()
    words = {key: drawn(f"{key}={value}").partition("=")[2] for key, value in typed.items()}
    given = words.pop("study", None)
    if given == "":
        raise UserError("study: got '', expected a folder; without the key there is a new one")
    folder = Path(given).expanduser() if given else None
    words = study_words(folder, with_recipe(words))
    space, config = read_words(words)
    data = jobs.read_data(config)
    folder = folder or default_folder(words)
    with open_storage(folder) as storage:
        study = open_study(storage, words, config, data)
        console = new_console()
        return Search(folder, words, space, config["seed"], study, console).go()


@dataclass
class Search:
    """The study in `folder`; its arguments `words` define the search `space`."""

    folder: Path
    words: dict[str, str]
    space: dict[str, BaseDistribution]
    seed: int
    study: Study
    console: Console

    def go(self) -> int:
        """Runs the trials that are missing; returns the exit code."""
        total = int(self.words["trials"])
        self._print(f"study: {self.folder}, {len(self.counted())} of {total} trials are done")
        if len(self._objectives) > 1 and self.words["pruner"] != "none":
            self._print("with two objectives optuna cannot prune: pruning is off")
        try:
            while (number := self.trial(total)) is not None:
                row, done = self.write_table()[number], len(self.counted())
                best = ", ".join(f"#{trial.number}" for trial in self.best()) or "none"
                self._print(f"[{done}/{total}] {describe(row, self.space)}; best: {best}")
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted(why_interrupted(f"go on with: {self._again()}")) from None
        finally:
            with self._alone():
                self._fail_stopped()
            self.write_table()
        if others := len(self._at_work()):
            self._print(f"{others} more at work in other processes, which go on")
        self._print(self._closing())
        return 0 if self.best() else 1

    def counted(self) -> list[FrozenTrial]:
        """Returns the trials that ended by themselves; interrupted ones are drawn again."""
        trials = self.study.get_trials(deepcopy=False)
        return [t for t in trials if t.values is not None or "error" in t.user_attrs]

    def best(self) -> list[FrozenTrial]:
        """Returns the best trial, or the Pareto front by falling mIoU; [] if none is complete."""
        if all(trial.state.name != "COMPLETE" for trial in self.counted()):
            return []
        if len(self._objectives) == 1:
            return [self.study.best_trial]
        return sorted(self.study.best_trials, key=lambda trial: [-v for v in trial.values])

    def trial(self, total: int) -> int | None:
        """Draws and runs one trial; returns its number, or None if there are `total` already.

        Raises:
            Interrupted, KeyboardInterrupt: if asked to stop; the trial has no result then.
        """
        with ExitStack() as held:
            with self._alone():
                self._fail_stopped()
                known = [*self.counted(), *self._at_work()]
                if len(known) >= total:
                    return None
                trial = self._drawn(known)
                held.enter_context(lock(self.folder, f"trial{trial.number}", wait=True))
            self._carry_out(trial)
        return trial.number

    def _drawn(self, known: Sequence[FrozenTrial]) -> Trial:
        """Returns a new trial, drawn at the first place that none of the `known` ones has."""
        import numpy as np
        from optuna.samplers import TPESampler

        taken = {trial.user_attrs.get("place", n) for n, trial in enumerate(known)}
        place = min({*range(len(known) + 1)} - taken)
        state = np.random.SeedSequence([self.seed, place]).generate_state(1)
        self.study.sampler = TPESampler(seed=int(state[0]))
        trial = self.study.ask(self.space)
        trial.set_user_attr("place", place)
        return trial

    def _carry_out(self, trial: Trial) -> None:
        """Trains a trial and reports its result to optuna."""
        from optuna.trial import TrialState

        try:
            self.study.tell(trial, self._train(trial), state=TrialState.COMPLETE)
        except Pruned as stop:
            trial.set_user_attr("error", f"Pruned: {stop}")
            self.study.tell(trial, state=TrialState.PRUNED)
        except Interrupted:
            raise
        except Exception as error:
            self.run(trial).write_failure(error)
            trial.set_user_attr("error", self.run(trial).read_summary().error)
            self.study.tell(trial, state=TrialState.FAIL)

    def run(self, trial: Trial | FrozenTrial) -> RunDirectory:
        """The run directory of a trial."""
        from seg_l1.runs.directory import RunDirectory

        short = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in trial.params.items()}
        return RunDirectory(self.folder / f"{trial.number}_{slug(lines(short))}")

    def lines(self, trial: Trial | FrozenTrial) -> list[str]:
        """Returns the overrides with which `train.py` repeats the run of a trial."""
        return lines({**overrides(self.words), **trial.params})

    def write_table(self) -> list[dict[str, Any]]:
        """Writes `trials.csv`; returns its rows."""
        with self._alone():
            rows = [self._row(trial) for trial in self.study.get_trials(deepcopy=False)]
            if rows:
                write_csv(self.folder / "trials.csv", rows[0], [row.values() for row in rows])
        return rows

    def _alone(self) -> AbstractContextManager[None]:
        """Context manager: one process at a time draws a trial or writes the table."""
        return lock(self.folder, "study", wait=True, quiet=True)

    def _row(self, trial: FrozenTrial) -> dict[str, Any]:
        """Returns the row of a trial, with the scores of its best epoch."""
        run = self.run(trial)
        known = run.read_summary(missing_ok=True).row((*SCORES, "last_epoch"))
        stopped = "stopped, and drawn again" if trial.state.name == "FAIL" else None
        return {
            "number": trial.number,
            "state": trial.state.name,
            **{key: trial.params.get(key) for key in self.space},
            **{name: known[name] for name in SCORES},
            "epochs": known["last_epoch"],
            "folder": run.path.name,
            "error": trial.user_attrs.get("error", stopped),
        }

    def _train(self, trial: Trial) -> list[float]:
        """Trains a trial; returns the values of its objectives."""
        from seg_l1.display import terminal
        from seg_l1.training.run import run

        with terminal.logging_to_file():
            lines = self.lines(trial)
            config = compose_plain(lines)
            limits.check(config)
            jobs.reset(config, parallel=1)
            summary = run(
                config,
                self.run(trial).path,
                overrides=lines,
                resume=False,
                console=self.console,
                data=jobs.read_data(config),
                on_epoch=self._pruning(trial, config["trainer"]["epochs"]),
            )
        assert summary is not None  # a search is a single process
        return [summary.score(OBJECTIVES[name]) for name in self._objectives]

    def _pruning(self, trial: Trial, epochs: int) -> Callable[[Row], None]:
        """Reports each epoch to optuna, which may prune the trial after any but the last."""

        def on_epoch(row: Row) -> None:
            trial.report(row["val/miou"], int(row["epoch"]))
            if row["epoch"] < epochs and trial.should_prune():
                raise Pruned(f"at epoch {row['epoch']} of {epochs}")

        return on_epoch if len(self._objectives) == 1 else lambda row: None

    def _at_work(self) -> list[FrozenTrial]:
        """Returns the trials that have not ended."""
        from optuna.trial import TrialState

        return self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING])

    def _fail_stopped(self) -> None:
        """Marks the trials that were killed or interrupted as failed; they do not count."""
        from optuna.trial import TrialState

        for trial in self._at_work():
            with (
                suppress(UserError),  # a process is working on it
                lock(self.folder, f"trial{trial.number}", wait=False, quiet=True),
            ):
                self.study.tell(trial.number, state=TrialState.FAIL)

    def _closing(self) -> str:
        trials = [(self._row(trial), self.lines(trial)) for trial in self.best()]
        table = best_table(self.space, [row for row, _ in trials], len(self._objectives))
        commands = [f"#{row['number']}: {command_line('train', *line)}" for row, line in trials]
        file, more = study_file(self.folder).name, f"trials={2 * int(self.words['trials'])}"
        return "\n".join(
            [
                f"\n{table}",
                *commands,
                f"\neverything lies in {self.folder}\n  trials.csv  {file}\n\nnext:",
                f"  {self._again(more)}",
                f"  {command_line('report', self.folder)}",
                f"  tensorboard --logdir {shlex.quote(str(self.folder))}",
            ]
        )

    def _again(self, *words: str) -> str:
        """Returns the command that goes on with the study, and `words`."""
        trust = calls_code(self.words)
        return command_line("search", f"study={self.folder}", *words, trust=trust)

    @property
    def _objectives(self) -> list[str]:
        return self.words["objectives"].split(",")

    def _print(self, text: str) -> None:
        self.console.print(text)
