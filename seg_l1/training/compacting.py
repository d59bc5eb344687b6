"""The compact network of a run: its size at each evaluation, and its run directory at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from seg_l1.compaction import CompactModel, Compactor
from seg_l1.display import terminal
from seg_l1.errors import first_line
from seg_l1.metrics.sparsity import layer_zeros
from seg_l1.runs import files, tables
from seg_l1.runs.directory import RunDirectory
from seg_l1.runs.summary import COMPACT, RunSummary
from seg_l1.scope import rules_of, scope
from seg_l1.training.evaluation import Row
from seg_l1.training.loop import Loop


class RunCompaction:
    """Compacts the network of a run as it trains.

    Where that fails it says so once, and leaves the run alone.

    Args:
        wanted: False leaves it all out.
    """

    def __init__(self, loop: Loop, *, wanted: bool) -> None:
        self._loop, self._wanted = loop, wanted
        self._compactor: Compactor | None = None

    def sizes(self, row: Row, summary: RunSummary) -> Row:
        """Returns the columns "compact/parameters" and "compact/multiply_adds".

        Args:
            row: has "sparsity/exact" of the present weights.
            summary: has the size of the dense network, which is that of one without zeros.
        """
        if not self._wanted:
            return {}
        sizes = (summary.parameters or 0, summary.multiply_adds or 0)
        if self.may_shrink(row):
            found = self.compact()
            if found is None:
                return {}
            sizes = (found.parameters[1], found.multiply_adds[1])
        return dict(zip(COMPACT, sizes, strict=True))

    def may_shrink(self, row: Row) -> bool:
        """Whether there is a zero among the penalized weights, or in another kernel.

        Args:
            row: see `sizes`.
        """
        kernels = (p for p in self._loop.model.parameters() if p.ndim > 1)
        return row["sparsity/exact"] > 0 or any(bool((kernel == 0).any()) for kernel in kernels)

    def compact(self) -> CompactModel | None:
        """Compacts the network with its present weights; None if that is not wanted or fails."""
        if not self._wanted:
            return None
        try:
            if self._compactor is None:
                self._compactor = Compactor(self._loop.model, self._loop.fixed[0][0][:1])
            return self._compactor.compact()
        except Exception as error:  # whatever it is, the run goes on
            self._wanted = False
            terminal.log.info(f"note: the network is not compacted: {first_line(error)}")
            return None


def write_compact(
    record: RunDirectory, found: CompactModel, facts: Mapping[str, Any] | None = None
) -> RunDirectory:
    """Writes the run directory of the compact network of a completed run, whole or not at all.

    Its scores are those of the run. An older one is replaced.

    Args:
        facts: more of what `compact.json` holds.

    Raises:
        UserError, RunError: if it cannot be written.
    """
    best, summary = record.read_best(), record.read_summary()
    rules = rules_of(best["config"]["regularizer"]["scope"])
    factors = tables.scope_factors(record.scope)  # those of regularizer.cost included
    tensors = [
        replace(entry, factor=factors.get(entry.name, entry.factor))
        for entry in scope(found.model, rules)
    ]
    new = RunDirectory(record.path / f".{record.compact.path.name}.{os.getpid()}.tmp")
    try:
        with files.writing(new.path):
            new.create()
            for name in ("config", "overrides", "environment", "splits"):
                if getattr(record, name).is_file():
                    shutil.copyfile(getattr(record, name), getattr(new, name))
        new.write_scope(tensors, rules)
        about = {k: v for k, v in best.items() if k not in ("model", "epoch", "polished")}
        about["compact"] = True
        polished = best.get("polished", False)
        new.write_best(found.model, epoch=best["epoch"], about=about, polished=polished)
        new.write_weights(found.model, about_weights(about))
        new.write_summary(
            replace(
                summary,
                parameters=found.parameters[1],
                penalised_weights=sum(e.tensor.numel() for e in tensors if e.penalized),
                multiply_adds=found.multiply_adds[1],
                layers=[vars(layer) for layer in layer_zeros(tensors)],
            )
        )
        content = {**_content(record, new, found), **(facts or {})}
        files.write_json(new.compaction, content)
        remove_compact(record)
        with files.writing(record.compact.path):
            os.replace(new.path, record.compact.path)
    finally:
        shutil.rmtree(new.path, ignore_errors=True)
    return record.compact


def _content(record: RunDirectory, new: RunDirectory, found: CompactModel) -> dict[str, Any]:
    """Returns what `compact.json` says of every compact network."""
    sizes = [run.weights.stat().st_size for run in (record, new) if run.weights.is_file()]
    both = ("dense", "compact")
    return {
        "parameters": dict(zip(both, found.parameters, strict=True)),
        "multiply_adds": dict(zip(both, found.multiply_adds, strict=True)),
        "file_bytes": dict(zip(both, sizes, strict=False)),
        "layers": [{**asdict(layer), "total": layer.total} for layer in found.layers],
        "whole": [dict(zip(("operator", "layer", "reason"), e, strict=True)) for e in found.whole],
    }


def remove_compact(record: RunDirectory) -> None:
    """Removes the compact network of a run, if there is one."""
    path = record.compact.path
    with files.writing(path):
        if path.is_dir():
            shutil.rmtree(path)


def about_weights(about: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `model.safetensors` says beside the weights.

    Args:
        about: see `RunDirectory.write_last`.
    """
    config = about["config"]
    return {
        "model": config["model"],
        "classes": about["classes"],
        "channels": len(about["mean"]),
        "image_size": config["dataset"]["image_size"],
        "mean": about["mean"],
        "std": about["std"],
        "fit": about["fit"],
        "bits": about.get("bits", 8),
    }
