"""Writes what happens in a run into its directory and to TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import Any

from seg_l1.data.bands import Bands
from seg_l1.display import pictures, terminal
from seg_l1.display.tensorboard import Board
from seg_l1.errors import Interrupted, RunError, UserError, can_go_on, described
from seg_l1.runs import checkpoints
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.environment import environment
from seg_l1.runs.files import writing
from seg_l1.runs.summary import RunSummary
from seg_l1.training.build import Experiment
from seg_l1.training.compacting import RunCompaction
from seg_l1.training.evaluation import Row


class Recorder:
    """Records one experiment.

    Attributes:
        experiment: the objects of the run.
        loop: that of the experiment.
        record: the run directory.
        facts: the summary before training; what is known later is added to it when it is written.
        overrides: what the user typed.
        implied: see `run.run`.
        started: when the work began, on `time.perf_counter`.
        rows: one per finished epoch.
        compaction: of the network, as far as it is wanted.
        board: writes to TensorBoard; opened by `start`.
    """

    board: Board
    implied: Collection[str] = ()

    def __init__(
        self,
        experiment: Experiment,
        record: RunDirectory,
        facts: RunSummary,
        *,
        overrides: list[str],
        started: float,
    ) -> None:
        self.experiment, self.loop, self.record = experiment, experiment.loop, record
        self.facts, self.overrides, self.started = facts, overrides, started
        self.rows: list[Row] = record.read_metrics(self.loop.epoch)
        wanted = experiment.config["trainer"].get("compact", True)
        self.compaction = RunCompaction(experiment.loop, wanted=wanted)
        self._open_files = ExitStack()

    @property
    def elapsed(self) -> float:
        """Seconds of work, including those before a resume."""
        return time.perf_counter() - self.started

    @property
    def best_row(self) -> Row:
        """The row of the best epoch."""
        return self.rows[self.loop.best_epoch - 1]

    def check(self) -> None:
        """Checks the best weights of a run that is resumed, before anything is written.

        Raises:
            UserError: if `best.pt` is damaged, or of another epoch than the best.
        """
        if self.loop.best_epoch and not self._best_is_saved() and not self._best_is_last:
            raise UserError(
                f"{self.record.best}: does not hold the best epoch, {self.loop.best_epoch}. Restore"
                " it from a backup, or train again."
            )

    def start(self, resume: bool) -> None:
        """Opens the log, and writes what is known before the first step."""
        loop, data, config = self.loop, self.experiment.data, self.experiment.config
        terminal.open_log(self.record.log)
        self.record.write_config(config)
        board = Board(self.record.tensorboard, loop.epoch)
        self.board = self._open_files.enter_context(closing(board))
        self.record.write_overrides(self.overrides)
        if not resume:
            device = next(loop.model.parameters()).device
            about = environment(config["seed"], device, data.fingerprint, data.classes)
            self.record.write_environment(about)
            self.record.write_scope(loop.tensors, self.experiment.rules)
            if data.indices:
                names = {split: data.splits[split].names for split in data.indices}
                self.record.write_splits(data.indices, names)
            self.save()
        self.summarize("running")
        self.record.write_metrics(self.rows)
        if self._best_is_last and not self._best_is_saved():
            self.save_best(loop.epoch)

    def record_epoch(self, row: Row) -> None:
        """Writes the row of a finished epoch, checkpoints, and pictures where they are due."""
        epoch = int(row["epoch"])
        row |= self.compaction.sizes(row, self.facts)
        self.rows.append(row)
        self.record.write_metrics(self.rows)
        self.save()  # it contains the weights, so that a kill here loses no best ones
        if self.loop.improved:
            self.save_best(epoch)
        self.summarize("running")
        self.board.scalars(row)
        every = self.experiment.config["trainer"]["pictures_every"]
        if epoch % every == 0 or epoch == 1 or self.loop.finished:
            colors = pictures.palette(self.experiment.data.classes)
            grid = pictures.image_grid(self.examples(), colors)
            self.board.image("validation: image, truth, prediction", grid, epoch=epoch)
            self.board.histograms(self.loop.tensors, epoch=epoch)
        self.board.flush()

    def save(self) -> None:
        """Writes `last.pt`, from which the run can go on."""
        state = self.loop.state_dict()
        self.record.write_last(state, elapsed=self.elapsed, about=self.about())

    def save_best(self, epoch: int, *, polished: bool = False) -> None:
        """Writes `best.pt`, with the present weights.

        Args:
            epoch: of these weights.
            polished: whether they were changed after training.
        """
        self.record.write_best(self.loop.model, epoch=epoch, about=self.about(), polished=polished)

    def summarize(self, status: str, *, error: str | None = None, **more: Any) -> RunSummary:
        """Writes the summary, with `more` of its fields, and returns it."""
        # after an error in the middle of an epoch its row is missing
        best = next((row for row in self.rows if row["epoch"] == self.loop.best_epoch), {})
        summary = replace(
            self.facts,
            status=status,
            error=error,
            best=best,
            last=self.rows[-1] if self.rows else {},
            wall_time_s=round(self.elapsed, 3),
            **more,
        )
        self.record.write_summary(summary)
        return summary

    def examples(self) -> list[pictures.Example]:
        """Returns image, truth and prediction of some validation images."""
        loop, settings, data = self.loop, self.loop.settings, self.experiment.data
        config = self.experiment.config
        return pictures.predict_examples(
            loop.model,
            loop.val,
            count=config["trainer"]["pictures"],
            tile=settings.tile,
            overlap=settings.tile_overlap,
            bands=Bands.of(config["dataset"], data.mean, data.std, data.bits),
        )

    @contextmanager
    def recording_failure(self) -> Iterator[None]:
        """Context manager: writes into the summary why its body failed; closes TensorBoard.

        Raises:
            RunError: in place of UserError and OSError: the input was right when the run began.
        """
        try:
            with writing(self.record.path):
                yield
        except UserError as error:
            failure = RunError(str(error))
            self._record_failure(failure)
            raise failure from error
        except BaseException as error:
            self._record_failure(error)
            raise
        finally:
            self._open_files.close()

    def _record_failure(self, error: BaseException) -> None:
        requested = type(error) in (Interrupted, KeyboardInterrupt)
        try:
            self.summarize(
                "interrupted" if can_go_on(error) else "failed",
                error=None if requested else described(error),
            )
        except Exception:  # on a full disk, say: the first error is the one to report
            pass

    @property
    def _best_is_last(self) -> bool:
        return self.loop.epoch == self.loop.best_epoch > 0 and self.loop.batch == 0

    def _best_is_saved(self) -> bool:
        """Returns whether `best.pt` holds the weights of the best epoch.

        Raises:
            UserError: if it is damaged, and cannot be written anew.
        """
        try:
            return checkpoints.load(self.record.best).get("epoch") == self.loop.best_epoch
        except UserError:
            if self._best_is_last:
                return False
            raise

    def about(self) -> dict[str, Any]:
        """Returns what another program needs to use the weights."""
        data = self.experiment.data
        return {
            "config": self.experiment.config,
            "classes": data.classes,
            "mean": data.mean,
            "std": data.std,
            "fit": data.resize_mode,
            "bits": data.bits,
            "fingerprint": data.fingerprint,
            "extended": self.facts.extended,
            "compact": self.experiment.compact,
        }
