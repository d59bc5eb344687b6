"""Writes down what the loop does: the only place where the loop and the run directory meet."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from seg_l1 import distributed
from seg_l1.errors import Interrupted, RunError, UserError, described

if TYPE_CHECKING:
    from seg_l1.runs.directory import RunDirectory
    from seg_l1.runs.summary import RunSummary
    from seg_l1.training.build import Experiment
    from seg_l1.training.evaluation import Row
    from seg_l1.training.loop import Loop


class Recorder:
    """Trains and records one experiment; `started` is when its work began, on `perf_counter`."""

    def __init__(
        self,
        experiment: Experiment,
        record: RunDirectory,
        facts: dict[str, Any],
        *,
        overrides: list[str],
        started: float,
    ) -> None:
        self.experiment, self.loop, self.record = experiment, experiment.loop, record
        self.facts, self.overrides, self.started = facts, overrides, started
        self.rows: list[Row] = record.read_metrics(self.loop.epoch)
        self.board: Any = None

    @property
    def elapsed(self) -> float:
        """Seconds of work, those before a resume included."""
        return time.perf_counter() - self.started

    def start(self, resume: bool) -> None:
        """Writes what is known before the first step."""
        from seg_l1.display import tensorboard, terminal
        from seg_l1.runs.environment import environment

        loop, data, config = self.loop, self.experiment.data, self.experiment.config
        device = next(loop.model.parameters()).device
        self.record.write_config(config)
        self.board = tensorboard.Board(self.record.tensorboard, loop.epoch)
        if not resume:
            self.record.write_overrides(self.overrides)
            about = environment(config["seed"], device, data.fingerprint)
            self.record.write_environment(about)
            self.record.write_scope(loop.tensors, self.experiment.rules)
            if data.indices:
                names = {split: data.splits[split].names for split in data.indices}
                self.record.write_splits(data.indices, names)
            self._save()
        self._summarise("running")
        self.record.write_metrics(self.rows)
        if self._best_is_last and not self._best_is_saved():
            self._save_best(self.loop.epoch)
        penalised = sum(entry.penalized for entry in loop.tensors)
        shrinkage = self.facts["shrinkage"]
        shared = f" in {distributed.size()} processes" if distributed.size() > 1 else ""
        terminal.log.info(
            f"{self._network}:"
            f" {self.facts['parameters']:,} parameters, of which"
            f" {self.facts['penalised_weights']:,} in {penalised} of {len(loop.tensors)}"
            f" tensors are penalised (scope.csv);"
            f" {self.facts['multiply_adds'] / 1e6:.0f} M multiply-adds per image,"
            f" on {device}{shared}"
        )
        terminal.log.info(f"what shrinks weights: {', and '.join(shrinkage) or 'nothing'}")
        for note in self.facts["notes"]:
            terminal.log.info(f"note: {note}")
        terminal.log.info(f"run: {self.record.path}")
        if resume:
            terminal.log.info(f"going on after epoch {loop.epoch}, step {loop.step}")

    def train(
        self,
        bar: Any,
        stopped: Callable[[], bool],
        on_epoch: Callable[[Row], None] = lambda row: None,
    ) -> None:
        """Runs the loop to its end and records every epoch, after which it calls `on_epoch`.

        Raises:
            Interrupted: when all is saved, after `stopped()` became true.
        """
        from seg_l1.display import terminal
        from seg_l1.training.loop import Stopped

        again = f"go on with python train.py resume={self.record.path}"
        try:
            for row in self.loop.rows(bar.step, stopped):
                self._epoch(row)
                bar.row = row
                line = terminal.epoch_line(row, self.loop.settings.epochs, self.loop.improved)
                terminal.log.info(line)
                on_epoch(row)
        except Stopped:
            self._save()
            where = f"in epoch {self.loop.epoch + 1} at step {self.loop.step}"
            raise Interrupted(f"stopped {where}; {again}") from None
        if distributed.any_rank(stopped()):
            raise Interrupted(f"stopped after epoch {self.loop.epoch}; {again}")

    def finish(self, polish: Callable[[Loop], None] | None = None) -> RunSummary:
        """Evaluates the best weights, and writes pictures, weights and summary.

        Args:
            polish: see `run.run`.
        """
        from seg_l1.display import pictures, terminal
        from seg_l1.metrics import sparsity
        from seg_l1.metrics.optimality import NAMES
        from seg_l1.metrics.segmentation import per_class
        from seg_l1.metrics.shrinkage import sources
        from seg_l1.runs import checkpoints
        from seg_l1.runs.files import blame_file

        loop, data = self.loop, self.experiment.data
        best = checkpoints.load(self.record.best)
        with blame_file(self.record.best):
            loop.model.load_state_dict(best["model"])
        distributed.broadcast_object(best["model"])
        if polish is not None:
            self._polish(polish, done=best.get("polished", False))
        split = "val" if self.experiment.test is None else "test"
        final, counts = loop.evaluate(self.experiment.test or loop.val)
        test = final if split == "test" else {}
        row = self.rows[loop.best_epoch - 1]
        layers = sparsity.layer_zeros(loop.tensors)
        shown = self._predictions()
        title = (
            f"{self._name}: validation mIoU {row['val/miou']:.3f},"
            f" {100 * row['sparsity/exact']:.1f} % zeros, epoch {row['epoch']}"
        )
        pictures.save_preview(self.record.preview, shown, data.classes, title)
        self.record.write_weights(loop.model, {"classes": ",".join(data.classes)})
        self._board_hparams(row, test)
        named = {f"test/{name}": value for name, value in test.items()}
        certificate = {name: self.rows[-1][name] for name in ("epoch", *NAMES)}
        self.facts["shrinkage"] = sources(self.experiment.config, self.rows)
        summary = self._summarise(
            "completed", test=named, certificate=certificate, layers=[vars(x) for x in layers]
        )
        columns = {"val_iou": [row[f"val/iou/{name}"] for name in data.classes]}
        columns |= {f"{split}_{name}": values for name, values in per_class(counts).items()}
        self.record.write_per_class(data.classes, columns)
        pictures.save_confusion(self.record.confusion, counts, data.classes, f"{split}, {title}")
        terminal.log.info("\n" + terminal.classes_table(data.classes, columns, split, row["epoch"]))
        terminal.log.info("\n" + terminal.zeros_table(layers, row["epoch"]))
        if text := terminal.certificate_text(certificate):
            terminal.log.info(text)
        alpha = self.experiment.config["regularizer"]["alpha"]
        shown = {"overrides": self.overrides, "alpha": alpha, "seconds": self.elapsed}
        terminal.log.info(terminal.closing_text(row, test, self.record, **shown))
        return summary

    def _polish(self, polish: Callable[[Loop], None], *, done: bool) -> None:
        from seg_l1.metrics.sparsity import sparsity

        row = self.rows[self.loop.best_epoch - 1]
        if not done:  # a killed run comes here twice
            polish(self.loop)
            self._save_best(row["epoch"], polished=True)
        val, _ = self.loop.evaluate(self.loop.val)
        row |= {f"val/{name}": value for name, value in val.items()} | sparsity(self.loop.tensors)
        row["gap/miou"] = row["train/miou"] - row["val/miou"]
        self.record.write_metrics(self.rows)

    def failed(self, error: BaseException) -> None:
        """Notes in the summary why the run ended early, as far as the disk allows."""
        can_go_on = isinstance(error, Interrupted | KeyboardInterrupt | RunError)
        status = "interrupted" if can_go_on else "failed"
        try:
            asked = type(error) in (Interrupted, KeyboardInterrupt)
            self._summarise(status, error=None if asked else described(error))
        except Exception:  # the first error is the one to tell
            pass

    def close(self) -> None:
        if self.board is not None:
            self.board.close()

    def _epoch(self, row: Row) -> None:
        self.rows.append(row)
        self.record.write_metrics(self.rows)
        self._save()  # the weights that are best are in it: a kill here loses nothing
        if self.loop.improved:
            self._save_best(self.loop.epoch)
        self._summarise("running")
        self.board.scalars(row)
        every = self._trainer["pictures_every"]
        if row["epoch"] % every == 0 or row["epoch"] == 1 or self.loop.finished:
            self._board_pictures(row["epoch"])
        self.board.flush()

    def _board_pictures(self, epoch: int) -> None:
        from seg_l1.display import pictures

        shown = self._predictions()
        colours = pictures.palette(self.experiment.data.classes)
        name = "validation: image, truth, prediction"
        self.board.picture(name, pictures.sheet(shown, colours), epoch)
        self.board.histograms(self.loop.tensors, epoch)

    def _predictions(self) -> list[tuple[Any, Any, Any]]:
        from seg_l1.display import pictures

        loop, settings = self.loop, self.loop.settings
        tile = (settings.tile, settings.tile_overlap)
        return pictures.predictions(loop.model, loop.val, self._trainer["pictures"], *tile)

    def _board_hparams(self, row: Row, test: Row) -> None:
        config = self.experiment.config
        regularizer = config["regularizer"]
        self.board.hparams(
            {
                "regularizer": self._penalty,
                "alpha": regularizer["alpha"],
                "solver": regularizer["solver"],
                "optimizer": config["optimizer"]["_target_"].rsplit(".", 1)[-1],
                "lr": config["optimizer"]["lr"],
                "network": self._network,  # the first five in the alphabet are shown unasked
                "seed": config["seed"],
            },
            {
                "summary/val_miou": row["val/miou"],
                "summary/test_miou": test.get("miou", float("nan")),
                "summary/zeros": row["sparsity/exact"],
                "summary/gap_miou": row["gap/miou"],
            },
        )

    def _save(self) -> None:
        loop = self.loop.state_dict()
        self.record.write_last(loop, elapsed=self.elapsed, about=self._about())

    def _save_best(self, epoch: int, *, polished: bool = False) -> None:
        self.record.write_best(self.loop.model, epoch=epoch, about=self._about(), polished=polished)

    @property
    def _best_is_last(self) -> bool:
        return self.loop.epoch == self.loop.best_epoch > 0 and self.loop.batch == 0

    def _best_is_saved(self) -> bool:
        """Whether `best.pt` holds the weights of the best epoch.

        Raises:
            UserError: if it is damaged, and cannot be written anew.
        """
        from seg_l1.runs import checkpoints

        try:
            return checkpoints.load(self.record.best).get("epoch") == self.loop.best_epoch
        except UserError:
            if self._best_is_last:
                return False
            raise

    def check(self) -> None:
        """Looks at what a run needs that goes on, before anything is written.

        Raises:
            UserError: if `best.pt` is damaged, or of another epoch than the best.
        """
        if self.loop.best_epoch and not self._best_is_saved() and not self._best_is_last:
            raise UserError(
                f"{self.record.best}: does not hold the best epoch, {self.loop.best_epoch}. Take a"
                " copy of it, or train again."
            )

    def _about(self) -> dict[str, Any]:
        """What another program needs to use the weights."""
        data = self.experiment.data
        return {
            "config": self.experiment.config,
            "classes": data.classes,
            "mean": data.mean,
            "std": data.std,
            "fit": data.resize_mode,
            "fingerprint": data.fingerprint,
        }

    def _summarise(self, status: str, error: str | None = None, **more: Any) -> RunSummary:
        from seg_l1.runs.summary import RunSummary

        # an error in the midst of an epoch comes before its row
        best = next((row for row in self.rows if row["epoch"] == self.loop.best_epoch), None)
        summary = RunSummary(
            status=status,
            error=error,
            best=best or {},
            last=self.rows[-1] if self.rows else {},
            wall_time_s=round(self.elapsed, 3),
            **self.facts,
            **more,
        )
        self.record.write_summary(summary)
        return summary

    @property
    def _trainer(self) -> dict[str, Any]:
        return self.experiment.config["trainer"]

    @property
    def _penalty(self) -> str:
        return self.experiment.config["regularizer"]["penalty"]["_target_"].rsplit(".", 1)[-1]

    @property
    def _network(self) -> str:
        model = self.experiment.config["model"]
        name = model.get("arch") or model["_target_"].rsplit(".", 1)[-1]
        flat = "flat " if model.get("growth") == 1 else ""
        return f"{flat}{name}" + (f" on {model['encoder']}" if "encoder" in model else "")

    @property
    def _name(self) -> str:
        alpha = self.experiment.config["regularizer"]["alpha"]
        return "no penalty" if self._penalty == "Zero" else f"{self._penalty}, α = {alpha:g}"
