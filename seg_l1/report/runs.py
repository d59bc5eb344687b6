"""Groups runs: those of a configuration differ in the seed only, those of a curve in seed and α."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from seg_l1.config.hyperparameters import penalty_name
from seg_l1.config.identity import flatten
from seg_l1.config.short_names import short_names
from seg_l1.report.statistics import mean_and_error
from seg_l1.runs.summary import COMPACT

if TYPE_CHECKING:
    from seg_l1.runs.directory import RunDirectory
    from seg_l1.runs.summary import RunSummary


@dataclass
class Run:
    """A completed run.

    Attributes:
        name: of its folder, within the folder that was given.
        files: its folder.
        overrides: what was typed.
        config: the content of `config.yaml`.
        summary: the content of `summary.json`.
        environment: the content of `environment.json`.
        setting: what distinguishes its curve beside the regularizer: key -> value.
    """

    name: str
    files: RunDirectory
    overrides: list[str]
    config: dict[str, Any]
    summary: RunSummary
    environment: dict[str, Any]
    setting: dict[str, str] = field(default_factory=dict)

    @cached_property
    def flat(self) -> dict[str, Any]:
        """The configuration as "group.key" -> value."""
        return dict(flatten(self.config))

    @cached_property
    def typed(self) -> dict[str, str]:
        """The overrides: key -> value."""
        words = [word for word in self.overrides if not word.startswith("-")]
        return {k.lstrip("+~"): v for k, _, v in (x.partition("=") for x in words)}

    @property
    def penalized(self) -> bool:
        """Whether the penalty of this run has an α."""
        return not self.config["regularizer"]["penalty"]["_target_"].endswith(".Zero")

    @property
    def regularizer(self) -> str:
        typed = self.typed.get("regularizer")
        if typed and "regularizer.name" not in self.typed:
            return typed
        return penalty_name(self.config["regularizer"])

    @property
    def alpha(self) -> float | None:
        return float(self.config["regularizer"]["alpha"]) if self.penalized else None

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def data(self) -> str:
        return str(self.environment.get("data_fingerprint"))

    @property
    def plans(self) -> str:
        """How its number of epochs changed on the way, where that makes it another run; or ""."""
        plans = [f"{plan['epochs']} until step {plan['step']}" for plan in self.summary.extended]
        return ", ".join([*plans, f"then {self.config['trainer']['epochs']}"] if plans else [])

    def check(self) -> None:
        """Checks what the report reads, as files may have been edited.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: if it cannot be read.
        """
        alpha = self.alpha
        if alpha is not None and not 0 <= alpha < math.inf:
            raise ValueError(f"alpha is {alpha}")
        read = [self.regularizer, self.plans, int(self.seed), self.config["model"]["_target_"]]
        read += [self.score(name) for name in ("sparsity/exact", "gap/miou", *COMPACT)]
        read += [(self.environment.get(part) or {}).keys() for part in ("git", "versions")]

    def score(self, name: str) -> float:
        """A score of the best epoch or of the test split; NaN where there is none."""
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
    """The runs that differ only in the seed, one per seed."""

    curve: Curve
    alpha: float | None
    runs: list[Run]

    @property
    def label(self) -> str:
        alpha = "" if self.alpha is None else f", α\u00a0=\u00a0{short(self.alpha)}"
        return self.curve.label + alpha

    def scores(self, name: str) -> dict[int, float]:
        """Seed -> score, for the runs that have one."""
        scores = {run.seed: run.score(name) for run in self.runs}
        return {seed: value for seed, value in scores.items() if math.isfinite(value)}

    def mean(self, name: str) -> float:
        """The mean over seeds; NaN without a score."""
        return mean_and_error(self.scores(name).values())[0]

    def deviation(self, name: str) -> float:
        """The standard deviation over seeds; NaN with one."""
        values = self.scores(name).values()
        return mean_and_error(values)[1] * math.sqrt(len(values)) if values else math.nan

    def best_run(self) -> Run:
        """The run with the highest validation mIoU."""
        return max(self.runs, key=lambda run: run.score("val/miou"))


@dataclass
class Curve:
    """The configurations that differ only in α, in increasing order of α.

    Attributes:
        regularizer: the name of the regularizer.
        setting: what else makes this curve: key -> value.
        label: both as a text, with short names of long values.
        full_label: the same without short names.
        configurations: in increasing order of α.
    """

    regularizer: str
    setting: dict[str, str]
    label: str
    full_label: str
    configurations: list[Configuration] = field(default_factory=list)

    @property
    def penalized(self) -> bool:
        """Whether its configurations have an α."""
        return self.configurations[0].alpha is not None

    def best(self) -> Configuration:
        """The configuration with the highest mean validation mIoU, of those with the most seeds."""
        most = max(len(c.runs) for c in self.configurations)
        full = [c for c in self.configurations if len(c.runs) == most]
        return max(full, key=lambda c: c.mean("val/miou"))


def curves(runs: Sequence[Run]) -> list[Curve]:
    """Groups runs into curves: `none` first, then those without α, then in order of appearance."""
    by_setting: dict[tuple[str, str], Curve] = {}
    names = short_names(run.setting for run in runs)
    keys = {key for run in runs for key in run.setting}
    ends = Counter(key.rpartition(".")[2] for key in keys)
    for run in runs:
        label = ", ".join([run.regularizer, *_setting_texts(run.setting, names, ends=ends)])
        full = ", ".join([run.regularizer, *_setting_texts(run.setting, {}, ends=ends)])
        key = (run.regularizer, full)
        curve = by_setting.setdefault(key, Curve(run.regularizer, run.setting, label, full))
        same = [c for c in curve.configurations if c.alpha == run.alpha]
        if same:
            same[0].runs.append(run)
        else:
            curve.configurations.append(Configuration(curve, run.alpha, [run]))
    for curve in by_setting.values():
        curve.configurations.sort(key=lambda c: (c.alpha is not None, c.alpha))
        for configuration in curve.configurations:
            configuration.runs.sort(key=lambda run: run.seed)
    return sorted(by_setting.values(), key=lambda c: (c.regularizer != "none", c.penalized))


def baseline(curve: Curve, others: Sequence[Curve]) -> Configuration | None:
    """The configuration of `none` with the settings of `curve` except `regularizer.*`, or None."""
    if curve.regularizer == "none":
        return None
    shared = shared_setting(curve.setting)
    for other in others:
        if other.regularizer == "none" and shared_setting(other.setting) == shared:
            return other.configurations[0]
    return None


def shared_setting(setting: Mapping[str, str]) -> dict[str, str]:
    """The part of a setting that does not belong to the regularizer."""
    return {key: value for key, value in setting.items() if not key.startswith("regularizer.")}


def short(number: float) -> str:
    """A number in short form: 3e-5, 0.01.

    >>> short(3e-05)
    '3e-5'
    """
    if not number or 0.01 <= abs(number) < 1e4:
        return f"{number:.3g}"
    digits, exponent = f"{number:.2e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def _setting_texts(
    setting: Mapping[str, str], names: Mapping[tuple[str, str], str], *, ends: Mapping[str, int]
) -> list[str]:
    """Returns a text for each key of a setting; keys that end alike are written out.

    Args:
        ends: how many keys of all settings end with a name.
    """
    texts = []
    for key, value in setting.items():
        end = key if key == "optimizer.alpha" else key.rpartition(".")[2]
        if value:
            plain = f"{end if ends[end] == 1 else key}={value}"
            texts.append(names.get((key, value), plain))
    return texts
