"""The summary of a run: its progress, scores and cost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from seg_l1.runs.files import read_text

Scores = dict[str, float]
"""Columns of `metrics.csv` and their values, such as "val/miou": 0.81."""

COMPACT = ("compact/parameters", "compact/multiply_adds")
"""Scores that say what the compact network of an epoch costs; none with trainer.compact=false."""

STATUSES = ("running", "completed", "interrupted", "failed")
"""Status of a run; an interrupted one can be resumed."""


@dataclass(frozen=True)
class RunSummary:
    """The content of `summary.json`, key by key.

    Attributes:
        status: one of `STATUSES`, or "pending" where there is no such file yet, or a damaged one.
        error: why the run ended before its time, if it did.
        best: the scores of the epoch with the best validation mIoU; {} before the first epoch ends.
        last: the scores of the last epoch; {} before the first one ends.
        test: the scores of the best weights on the test split, "test/...".
        certificate: the optimality condition at the last epoch, see `metrics.optimality`.
        layers: the zeros of each penalized tensor, see `metrics.sparsity.LayerZeros`.
        epochs: how many are to be trained.
        extended: earlier numbers of epochs, for which the learning rate and λ(t) were scheduled
            before the run went on with the present one: {"epochs": that number, "step": until
            which it held}, in order.
        parameters: of the network, penalized or not.
        penalised_weights: those of them that are penalized.
        multiply_adds: of one image.
        shrinkage: what shrinks weights in this run, in words.
        notes: what is unusual about it, in words.
        wall_time_s: seconds of work, those before a resume included.
    """

    status: str
    error: str | None = None
    best: Scores = field(default_factory=dict)
    last: Scores = field(default_factory=dict)
    test: Scores = field(default_factory=dict)
    certificate: Scores = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)
    epochs: int | None = None
    extended: list[dict[str, int]] = field(default_factory=list)
    parameters: int | None = None
    penalised_weights: int | None = None
    multiply_adds: int | None = None
    shrinkage: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wall_time_s: float | None = None

    @classmethod
    def read(cls, path: Path) -> RunSummary:
        """Reads `summary.json`; missing keys get their defaults, and unknown keys are ignored.

        Raises:
            OSError: if there is no such file.
            ValueError: if it is damaged.
        """
        try:
            content = json.loads(read_text(path))
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if not isinstance(content, dict):
            raise ValueError("it holds no keys")
        if content.get("status") not in STATUSES:
            raise ValueError(f"status is {content.get('status')!r}")
        kept = {f.name: content[f.name] for f in fields(cls) if content.get(f.name) is not None}
        for name, value in kept.items():
            if not isinstance(value, _TYPES.get(name, object)):
                raise ValueError(f"{name} is a {type(value).__name__}")
        return cls(**kept)

    def content(self) -> dict[str, Any]:
        """What `summary.json` holds."""
        return {**asdict(self), "best": self.best or None, "last": self.last or None}

    def score(self, name: str, *, epoch: Literal["best", "last"] = "best") -> float:
        """A score of the best epoch (or the test split), or of the last one; NaN if there is none.

        With `epoch="last"` the certificate counts too, but not the test split.
        """
        value = self._scores(epoch).get(name)
        return math.nan if value is None else float(value)

    def row(
        self, columns: Iterable[str], *, epoch: Literal["best", "last"] = "best"
    ) -> dict[str, Any]:
        """A row of a table of runs: "status", "error" and `columns`, None where there is nothing.

        Args:
            columns: scores, as `score` has them; "epochs", how many are to be trained;
                "last_epoch", how many have been; "parameters" and "multiply_adds" of the dense
                network; and "wall_time_s".
        """
        known = {
            **self._scores(epoch),
            "epochs": self.epochs,
            "last_epoch": self.last.get("epoch"),
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "wall_time_s": self.wall_time_s,
        }
        row = {"status": self.status, "error": self.error}
        return row | {name: known.get(name) for name in columns}

    def _scores(self, epoch: Literal["best", "last"]) -> Scores:
        if epoch == "best":
            return {**self.best, **self.test}
        return {**self.last, **self.certificate}


_TYPES: dict[str, Any] = {
    "error": str,
    "extended": list,
    **dict.fromkeys(("best", "last", "test", "certificate"), dict),
    **dict.fromkeys(
        ("epochs", "parameters", "penalised_weights", "multiply_adds", "wall_time_s"), int | float
    ),
}
