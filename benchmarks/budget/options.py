"""The command line: which contenders, at which targets, with which seeds."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.budget import (
    dense,
    flat,
    gradual,
    group_norm,
    magnitude,
    narrow,
    ours,
    penalty,
    random_channels,
)
from benchmarks.budget.job import Job, Trained
from benchmarks.budget.pruned import LATE
from seg_l1.config.words import key_of
from seg_l1.errors import UserError

Train = Callable[[Job], Trained]

CONTENDERS: dict[str, Train] = {
    "dense": dense.train,
    "narrow": narrow.train,
    "flat": flat.train,
    "random": random_channels.train,
    "random_late": partial(random_channels.train, share=LATE),
    "magnitude": magnitude.train,
    "magnitude_late": partial(magnitude.train, share=LATE),
    "magnitude_rms": partial(magnitude.train, unit=magnitude.root_of_size),
    "magnitude_l2": partial(magnitude.train, unit=magnitude.one),
    "torch_pruning": group_norm.train,
    "ours": ours.train,
}
"""Those that meet a share of the multiply-adds; `dense` has none to meet."""

EXPERIMENTS = {
    "digits": [],
    "camvid": ["experiment=camvid", "dataset.image_size=[96,128]", "trainer.epochs=40"],
}
"""Words of the experiments; those that are typed come in place of those of the same keys."""


@dataclass(frozen=True)
class Options:
    """What was asked for.

    Attributes:
        words: overrides of all jobs.
        folder: of the results.
        seeds: of the jobs.
        shares: targets, multiply-adds relative to the dense network.
        contenders: names of `CONTENDERS`.
        zeros: shares of zeros to reach, by gradual pruning and by penalties.
        penalties: (name, words, epochs of the last phase without penalty).
        against: the contender whose differences from the others are tested.
        latency: whether it is measured.
    """

    words: list[str]
    folder: Path
    seeds: list[int]
    shares: list[float]
    contenders: list[str]
    zeros: list[float]
    penalties: list[tuple[str, list[str], int]] = field(default_factory=list)
    against: str = "ours"
    latency: bool = True

    def jobs(self) -> list[tuple[Job, Train]]:
        """All jobs and what trains them, seed by seed, so that a table is filled early."""
        return [pair for seed in self.seeds for pair in self._jobs(seed)]

    def _jobs(self, seed: int) -> list[tuple[Job, Train]]:
        def job(name: str, share: float | None, zeros: float | None, label: str = "") -> Job:
            words = tuple(self.words)
            return Job(name, words, share, zeros, seed, self.folder, label=label or name)

        found: list[tuple[Job, Train]] = [(job("dense", None, None, "none"), dense.train)]
        for share in self.shares:
            for name in self.contenders:
                if name != "dense":
                    found.append((job(f"{name} {share:g}", share, None), CONTENDERS[name]))
        for zeros in self.zeros:
            found.append((job(f"gradual {zeros:g}", None, zeros), gradual.train))
            for name, words in ours.FOR_ZEROS.items():
                train = partial(ours.train_zeros, penalty=words)
                found.append((job(f"{name} {zeros:g}", None, zeros), train))
        for name, words, refit in self.penalties:
            label = name if refit else name.split()[0]
            train = partial(penalty.train, words=words, refit=refit)
            found.append((job(name, None, None, label), train))
        return found


def read(arguments: Sequence[str]) -> Options:
    """Reads the command line.

    Raises:
        UserError: if it makes no sense.
    """
    typed = dict(word.partition("=")[::2] for word in arguments if key_of(word) in KEYS)
    given = [w.partition("=")[2] for w in arguments if key_of(w) == "penalty"]
    others = [word for word in arguments if key_of(word) not in KEYS]
    if bad := [word for word in others if "=" not in word]:
        raise UserError(f"{bad[0]}: expected key=value")
    experiment = typed.get("experiment", "digits")
    if experiment not in EXPERIMENTS:
        raise UserError(f"experiment={experiment}: expected {' or '.join(EXPERIMENTS)}")
    keys = {key_of(word) for word in others}
    words = [*(word for word in EXPERIMENTS[experiment] if key_of(word) not in keys), *others]
    contenders = [n for n in typed.get("contenders", DEFAULT).split(",") if n]
    if unknown := [name for name in contenders if name not in CONTENDERS]:
        raise UserError(f"contenders={unknown[0]}: expected some of {', '.join(CONTENDERS)}")
    refit = max(_whole("refit", typed.get("refit", "0")), default=0)
    zeros = _numbers("zeros", typed.get("zeros", ""))
    return Options(
        words=words,
        folder=Path(typed.get("folder", "outputs/budget")),
        seeds=_whole("seeds", typed.get("seeds", "0,1,2")),
        shares=_numbers("shares", typed.get("shares", "0.5,0.25,0.125")),
        contenders=contenders,
        zeros=zeros,
        penalties=[_penalty(text, refit) for text in given],
        against=typed.get("against", "ours"),
        latency=typed.get("latency", "true") == "true",
    )


DEFAULT = ",".join(name for name in CONTENDERS if name not in ("magnitude_l2", "ours"))
KEYS = (
    "experiment", "shares", "seeds", "contenders", "folder", "zeros", "refit", "penalty", "against",
    "latency",
)  # fmt: skip


def _numbers(key: str, text: str) -> list[float]:
    try:
        values = [float(number) for number in text.split(",") if number]
    except ValueError:
        raise UserError(f"{key}={text}: expected numbers, as {key}=0.5,0.25") from None
    if not all(0 <= value < 1 for value in values):
        raise UserError(f"{key}={text}: expected numbers from 0 to below 1")
    return values


def _whole(key: str, text: str) -> list[int]:
    if not re.fullmatch(r"\d*(,\d+)*", text):
        raise UserError(f"{key}={text}: expected whole numbers, such as {key}=0,1")
    return [int(number) for number in text.split(",") if number]


def _penalty(text: str, refit: int) -> tuple[str, list[str], int]:
    """Returns name, words and epochs of the last phase of a penalty, from its words.

    >>> _penalty("regularizer=l1 regularizer.alpha=3e-5", 0)
    ('l1 alpha=3e-5', ['regularizer=l1', 'regularizer.alpha=3e-5'], 0)
    """
    words = shlex.split(text)
    if not any(key_of(word) == "regularizer" for word in words):
        raise UserError(f"penalty={text}: names no regularizer=")
    words.sort(key=lambda word: key_of(word) != "regularizer")
    short = [word.removeprefix("regularizer.").removeprefix("regularizer=") for word in words]
    return " ".join([*short, f"refit={refit}"] if refit else short), words, refit
