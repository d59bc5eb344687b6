"""The trainings that the claims compare, and where they lie."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from seg_l1.config.check import check_overrides
from seg_l1.config.compose import plain
from seg_l1.config.words import parse
from seg_l1.experiments.jobs import complete
from seg_l1.runs.directory import RunDirectory

SIZES = {"digits": (32, 128, 512), "camvid": (46, 367)}
"""Training images, up to all of them; a run takes as many steps with few as with all."""

COMMON = ("trainer.threads=1", "trainer.compact=false", "trainer.pictures_every=20")
SETTINGS = {
    "digits": ("trainer.kkt_every=null",),
    "camvid": (
        "experiment=camvid", "dataset.image_size=[96,128]", "trainer.epochs=20",
        "augmentation=none", "trainer.kkt_every=null", "trainer.precision=fp32",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Cells:
    """A part of the grid: a contender at some strengths, sizes and seeds.

    A strength is a rate of dropout and drop_connect, α of the others, as it is typed.
    """

    contender: str
    strengths: tuple[str | None, ...]
    sizes: tuple[int, ...]
    seeds: range


ALL, FIRST, REST = range(5), range(3), range(3, 5)
GRID = {
    "digits": (
        Cells("none", (None,), (32, 128, 512), ALL),
        Cells("l1", ("1e-5", "3e-5", "1e-4"), (32, 128, 512), FIRST),
        Cells("l1", ("1e-5",), (32, 512), REST),
        Cells("l1", ("3e-5",), (128,), REST),
        Cells("l2", ("1e-4", "1e-3", "1e-2"), (32, 512), FIRST),
        Cells("elastic_net", ("2e-5",), (32,), FIRST),
        Cells("group_l1", ("3e-5",), (32,), FIRST),
        Cells("mcp", ("3e-5",), (32,), FIRST),
        Cells("dropout", ("0.05", "0.1"), (32,), FIRST),
        Cells("dropout", ("0.05",), (32,), REST),
        Cells("dropout", ("0.05",), (512,), FIRST),
        Cells("drop_connect", ("0.05", "0.1"), (32,), FIRST),
        Cells("drop_connect", ("0.05",), (32,), REST),
        Cells("drop_connect", ("0.05",), (512,), FIRST),
    ),
    "camvid": (
        Cells("none", (None,), (46, 367), FIRST),
        Cells("l1", ("3e-5",), (46, 367), FIRST),
    ),
}
"""What is trained; the last seeds with the strength alone that the first ones have chosen."""

CONTENDERS = tuple(dict.fromkeys(cells.contender for part in GRID.values() for cells in part))


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        data: "digits" or "camvid".
        images: training images.
        contender: a `regularizer=`.
        strength: of it, as it is typed; None = it has none.
        seed: of the images that are drawn, of weights and order.
        variant: what else distinguishes it from other trials, as part of its name; "" = nothing.
        words: overrides of the variant.
    """

    data: str
    images: int
    contender: str
    strength: str | None
    seed: int
    variant: str = ""
    words: tuple[str, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """Name of its folder."""
        parts = (self.data, self.images, self.contender, self.strength, self.variant)
        return "_".join(str(part) for part in (*parts, f"s{self.seed}") if part)

    @property
    def overrides(self) -> list[str]:
        """The words of `train.py`, but for the folders of the data and of the run."""
        key = "alpha" if self.contender not in ("dropout", "drop_connect") else self.contender
        strength = [f"regularizer.{key}={self.strength}"] if self.strength else []
        size = [f"limit.train={self.images}", f"limit.seed={self.seed}"]
        repeats = round(SIZES[self.data][-1] / self.images)
        return [
            *SETTINGS[self.data], *COMMON, *size, f"dataset.repeats={repeats}",
            f"regularizer={self.contender}", *strength, f"seed={self.seed}", *self.words,
        ]  # fmt: skip


def grid(data: str) -> list[Trial]:
    """Returns the trials of most claims, seed by seed."""
    trials = [
        Trial(data, images, cells.contender, strength, seed)
        for cells in GRID[data]
        for images in cells.sizes
        for strength in cells.strengths
        for seed in cells.seeds
    ]
    return sorted(trials, key=lambda trial: trial.seed)


@dataclass(frozen=True)
class Study:
    """Where trials lie.

    Attributes:
        folder: of the runs.
        measured: folder of what was measured of the runs, a small file or two for each.
        camvid: the folder of CamVid; None = nothing is trained on it.
    """

    folder: Path
    measured: Path
    camvid: str | None = None

    @property
    def data(self) -> list[str]:
        """The data sets that there are runs of, or can be."""
        return [
            name for name in SIZES
            if name != "camvid" or self.camvid or any(self.measured.glob("camvid_*.json"))
        ]  # fmt: skip

    def run(self, trial: Trial) -> RunDirectory:
        """Returns where the run of a trial lies."""
        return RunDirectory(self.folder / "runs" / trial.name)

    def words(self, trial: Trial) -> list[str]:
        """Returns the words of `train.py` for a trial."""
        root = [f"dataset.root={self.camvid}"] if trial.data == "camvid" else []
        return [*trial.overrides, *root]

    def train(self, trial: Trial, before_training=lambda loop: None) -> None:
        """Trains a trial, goes on with it, or does nothing if it is finished.

        Raises:
            UserError, RunError: if it fails.
        """
        words = self.words(trial)
        config = plain(check_overrides(*parse(words)))
        complete(config, words, self.run(trial), before_training=before_training)

    @contextmanager
    def alone(self, name: str) -> Iterator[bool]:
        """Context manager: yields whether `name` is free; if so, it is locked for this process."""
        path = self.folder / "locks" / f"{name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            free = False
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                free = True
            yield free


def unique(trials: Sequence[Trial]) -> list[Trial]:
    """Returns the trials without those that occur twice, in their order."""
    return list(dict.fromkeys(trials))
