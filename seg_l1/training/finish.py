"""The end of a run: its best weights are evaluated, and pictures and tables are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from seg_l1 import distributed
from seg_l1.compaction import CompactModel
from seg_l1.display import hparams, pictures, run_text, terminal
from seg_l1.metrics.optimality import NAMES
from seg_l1.metrics.segmentation import per_class
from seg_l1.metrics.shrinkage import sources
from seg_l1.metrics.sparsity import layer_zeros, sparsity
from seg_l1.runs import checkpoints
from seg_l1.runs.files import blame_file
from seg_l1.runs.summary import COMPACT, RunSummary
from seg_l1.training.compacting import about_weights, remove_compact, write_compact
from seg_l1.training.evaluation import Row
from seg_l1.training.loop import Loop
from seg_l1.training.recorder import Recorder

AfterTraining = Callable[[Loop], None]
"""Changes the best weights after the last epoch."""


def finish(recorder: Recorder, after_training: AfterTraining | None = None) -> RunSummary:
    """Evaluates the best weights; writes pictures, tables, weights and the summary.

    Args:
        after_training: see `run.run`.
    """
    experiment, loop, record = recorder.experiment, recorder.loop, recorder.record
    _load_best(recorder, after_training)
    split = "val" if experiment.test is None else "test"
    scores, counts = loop.evaluate(experiment.test or loop.val)
    test = scores if split == "test" else {}
    row, classes = recorder.best_row, experiment.data.classes
    title = run_text.run_title(experiment.config, row)
    pictures.save_preview(record.preview, recorder.examples(), classes=classes, title=title)
    record.write_weights(loop.model, about_weights(recorder.about()))
    _write_hparams(recorder, row, test)
    layers = layer_zeros(loop.tensors)
    certificate = {name: recorder.rows[-1][name] for name in ("epoch", *NAMES)}
    recorder.facts = replace(recorder.facts, shrinkage=sources(experiment.config, recorder.rows))
    summary = recorder.summarize(
        "completed",
        test={f"test/{name}": value for name, value in test.items()},
        certificate=certificate,
        layers=[vars(layer) for layer in layers],
    )
    compact = _save_compact(recorder)
    columns = _class_columns(row, classes, split, counts)
    record.write_per_class(classes, columns)
    pictures.save_confusion(record.confusion, counts, classes=classes, title=f"{split}, {title}")
    epoch = int(row["epoch"])
    closing = run_text.closing_text(
        row,
        test,
        run=record,
        overrides=[word for word in recorder.overrides if word not in recorder.implied],
        alpha=experiment.config["regularizer"]["alpha"],
        seconds=recorder.elapsed,
        compact=compact,
        target=run_text.target_line(experiment.config, recorder.rows, row),
    )
    for text in (
        terminal.classes_table(classes, columns, split=split, epoch=epoch),
        terminal.zeros_table(layers, epoch=epoch),
        terminal.certificate_text(certificate),
        closing,
    ):
        if text:
            terminal.log.info(f"\n{text}" if text is not closing else text)
    return summary


def _save_compact(recorder: Recorder) -> CompactModel | None:
    """Returns the compact network of the best weights; saves it if it is smaller."""
    may_shrink = recorder.compaction.may_shrink(recorder.best_row)
    compact = recorder.compaction.compact() if may_shrink else None
    if compact is None or compact.is_unchanged:
        remove_compact(recorder.record)
    else:
        write_compact(recorder.record, compact)
    return compact


def _load_best(recorder: Recorder, after_training: AfterTraining | None) -> None:
    """Loads the best weights in all processes, and applies `after_training` to them once."""
    best = checkpoints.load(recorder.record.best)
    with blame_file(recorder.record.best):
        recorder.loop.model.load_state_dict(best["model"])
    distributed.broadcast_object(best["model"])
    if after_training is None:
        return
    loop, row = recorder.loop, recorder.best_row
    if not best.get("polished", False):  # a run that was killed after it comes here again
        after_training(loop)
        recorder.save_best(int(row["epoch"]), polished=True)
    val, _ = loop.evaluate(loop.val)
    row |= {f"val/{name}": value for name, value in val.items()} | sparsity(loop.tensors)
    row |= recorder.compaction.sizes(row, recorder.facts)
    row["gap/miou"] = row["train/miou"] - row["val/miou"]
    recorder.record.write_metrics(recorder.rows)


def _class_columns(
    row: Row, classes: list[str], split: str, counts: Tensor
) -> dict[str, list[float]]:
    """Returns the columns of `per_class.csv`."""
    columns = {"val_iou": [row[f"val/iou/{name}"] for name in classes]}
    return columns | {f"{split}_{name}": values for name, values in per_class(counts).items()}


def _write_hparams(recorder: Recorder, row: Row, test: Row) -> None:
    recorder.board.hparams(
        hparams.columns(recorder.experiment.config, recorder.overrides),
        {
            "summary/val_miou": row["val/miou"],
            "summary/test_miou": test.get("miou", float("nan")),
            "summary/zeros": row["sparsity/exact"],
            "summary/gap_miou": row["gap/miou"],
            **{f"summary/{k.replace('/', '_')}": row.get(k, float("nan")) for k in COMPACT},
        },
    )
