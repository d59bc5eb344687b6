"""Runs, sorted: a configuration is all of a run but its seed, a curve all but seed and α."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seg_l1.config.hyperparameters import penalty_name
from seg_l1.report.statistics import mean_and_error

if TYPE_CHECKING:
    from seg_l1.runs.directory import RunDirectory
    from seg_l1.runs.summary import RunSummary


@dataclass
class Run:
    """A completed run; `setting` is what makes its curve beside the regularizer."""

    name: str
    files: RunDirectory
    words: list[str]
    config: dict[str, Any]
    summary: RunSummary
    environment: dict[str, Any]
    setting: dict[str, str] = field(default_factory=dict)

    @property
    def typed(self) -> dict[str, str]:
        return {k.lstrip("+~"): v for k, _, v in (word.partition("=") for word in self.words)}

    @property
    def penalised(self) -> bool:
        """Whether α means something to this run."""
        return not self.config["regularizer"]["penalty"]["_target_"].endswith(".Zero")

    @property
    def regularizer(self) -> str:
        return self.typed.get("regularizer") or penalty_name(self.config["regularizer"])

    @property
    def alpha(self) -> float | None:
        return float(self.config["regularizer"]["alpha"]) if self.penalised else None

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def data(self) -> str:
        return str(self.environment.get("data_fingerprint"))

    def check(self) -> None:
        """Looks at what a page is made of, which somebody else may have written.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: if it cannot be read.
        """
        if self.penalised and not 0 <= self.alpha < math.inf:
            raise ValueError(f"alpha is {self.alpha}")
        read = [self.regularizer, int(self.seed), self.config["model"]["_target_"]]
        read += [self.score(name) for name in ("sparsity/exact", "gap/miou")]
        read += [(self.environment.get(part) or {}).keys() for part in ("git", "versions")]

    def score(self, name: str) -> float:
        """A column of the best epoch or of the test split; NaN where there is none."""
        return self.summary.score(name)


@dataclass
class Unfinished:
    """A run without results, and why."""

    name: str
    status: str
    reason: str
    log: str


@dataclass
class Configuration:
    """The runs that differ in nothing but the seed, one per seed."""

    curve: Curve
    alpha: float | None
    runs: list[Run]

    @property
    def label(self) -> str:
        strength = "" if self.alpha is None else f", α\u00a0=\u00a0{short(self.alpha)}"
        return self.curve.label + strength

    def scores(self, name: str) -> dict[int, float]:
        """Seed -> score, without those that have none."""
        found = {run.seed: run.score(name) for run in self.runs}
        return {seed: value for seed, value in found.items() if math.isfinite(value)}

    def mean(self, name: str) -> float:
        return mean_and_error(self.scores(name).values())[0]

    def deviation(self, name: str) -> float:
        """The standard deviation over seeds; NaN with one."""
        values = self.scores(name).values()
        return mean_and_error(values)[1] * math.sqrt(len(values)) if values else math.nan

    def best_run(self) -> Run:
        return max(self.runs, key=lambda run: run.score("val/miou"))


@dataclass
class Curve:
    """The configurations that differ in nothing but α, by rising α.

    Attributes:
        regularizer: the name of the regularizer.
        setting: what else makes this curve: key -> value.
        label: both as a text.
        configurations: by rising α.
    """

    regularizer: str
    setting: dict[str, str]
    label: str
    configurations: list[Configuration] = field(default_factory=list)

    @property
    def penalised(self) -> bool:
        return self.configurations[0].alpha is not None

    def best(self) -> Configuration:
        """The highest mean validation mIoU among the configurations with the most seeds."""
        most = max(len(c.runs) for c in self.configurations)
        full = [c for c in self.configurations if len(c.runs) == most]
        return max(full, key=lambda c: c.mean("val/miou"))


def curves(runs: Sequence[Run]) -> list[Curve]:
    """Sorts runs into curves: `none` first, then as they come; configurations by rising α."""
    sorted_in: dict[str, Curve] = {}
    for run in runs:
        known = {key: value for key, value in run.setting.items() if value}
        words = "".join(f", {_short_key(k)}={v[:40]}" for k, v in known.items())
        label = run.regularizer + words
        curve = sorted_in.setdefault(label, Curve(run.regularizer, run.setting, label))
        same = [c for c in curve.configurations if c.alpha == run.alpha]
        if same:
            same[0].runs.append(run)
        else:
            curve.configurations.append(Configuration(curve, run.alpha, [run]))
    for curve in sorted_in.values():
        curve.configurations.sort(key=lambda c: (c.alpha is not None, c.alpha))
        for configuration in curve.configurations:
            configuration.runs.sort(key=lambda run: run.seed)
    return sorted(sorted_in.values(), key=lambda c: (c.regularizer != "none", c.penalised))


def baseline(curve: Curve, others: Sequence[Curve]) -> Configuration | None:
    """The `none` that shares with `curve` all settings that are not the regularizer's own."""
    shared = apart(curve.setting)
    found = [o for o in others if o.regularizer == "none" and apart(o.setting) == shared]
    return found[0].configurations[0] if found and curve.regularizer != "none" else None


def apart(setting: Mapping[str, str]) -> dict[str, str]:
    """What of a setting is not the regularizer's own."""
    return {key: value for key, value in setting.items() if not key.startswith("regularizer.")}


def short(number: float) -> str:
    """A number as one types it: 3e-5, 0.01.

    >>> short(3e-05)
    '3e-5'
    """
    if not number or 0.01 <= abs(number) < 1e4:
        return f"{number:.3g}"
    digits, exponent = f"{number:.2e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def _short_key(key: str) -> str:
    return key.rpartition(".")[2]
