"""What data sets with official splits share: arguments, download, drawing of "val" from "train"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from seg_l1.data.assemble import assemble
from seg_l1.data.files import file_split
from seg_l1.data.masks import reading_of_ids
from seg_l1.data.partition import draw
from seg_l1.data.split import SegmentationData
from seg_l1.errors import UserError

Pairs = list[tuple[Path, Path]]
"""The files of image and mask."""
Source = TypeVar("Source")


@dataclass(frozen=True)
class Official:
    """The arguments of all loaders of `standard`, and what they do with them.

    Attributes:
        root: the folder that holds the files, as torchvision lays them out.
        image_size: (H, W) to which everything is resized; None = every image keeps its own size.
        download: fetch what is missing; files that exist are not fetched again. None where there
            is no download.
        num_classes: None, or the number of classes, which is checked.
        memory_mib: a data set up to this size is held in memory, if it has an image_size.
        val_fraction: share of the official training images that is drawn as validation.
        seed, group_pattern, stratify: how it is drawn, see `partition.partition`.
    """

    root: str
    image_size: Sequence[int] | None
    download: bool | None = False
    num_classes: int | None = None
    memory_mib: float = 2048
    val_fraction: float = 0.1
    seed: int = 0
    group_pattern: str | None = None
    stratify: bool = False

    @property
    def folder(self) -> Path:
        return Path(self.root).expanduser()

    def check_classes(self, classes: Sequence[str]) -> None:
        """Raises UserError if `num_classes` is another number than there are."""
        if self.num_classes not in (None, len(classes)):
            raise UserError(f"dataset.num_classes: got {self.num_classes}, expected {len(classes)}")

    def obtain(self, make: Callable[[bool], Source], needed: Sequence[str], how: str) -> Source:
        """Returns make(False), or make(True) where `needed` is missing and `download` is on.

        Args:
            make: builds torchvision's data set; True lets it download.
            needed: what must lie below the folder.
            how: how a person gets the files, as the end of a sentence.

        Raises:
            UserError: in place of whatever torchvision raises.
        """

        def missing() -> str:
            return ", ".join(name for name in needed if not (self.folder / name).exists())

        fetch = bool(self.download and missing())
        try:
            return make(fetch)
        except Exception as error:
            lacking, reason = missing(), " ".join(str(error).split()) or type(error).__name__
            file_is_missing = not lacking and isinstance(error, FileNotFoundError)
            problem = (
                f"{self.folder} lacks {lacking}" if lacking else f"{self.folder} cannot be read"
            )
            if not lacking or not reason.startswith(("Dataset not found", "[Errno 2]")):
                problem += f" ({reason})"
            problem = reason if file_is_missing else problem
            remedy = how if lacking or file_is_missing else f"remove what is damaged; then {how}"
            if self.download is False:
                remedy += ", or give dataset.download=true"
            key = "dataset.download: failed;" if fetch else "dataset.root:"
            raise UserError(f"{key} {problem}.\n{remedy[0].upper()}{remedy[1:]}.") from error

    def draw(self, names: Sequence[str], presence: np.ndarray) -> dict[str, list[int]]:
        """Returns the positions of "train" and "val" in the listing `names`: see `partition`."""
        return draw(
            names,
            presence,
            {"val": self.val_fraction},
            seed=self.seed,
            group_pattern=self.group_pattern,
            stratify=self.stratify,
        )

    def assemble(
        self, train: Pairs, test: Pairs, classes: list[str], class_of: Mapping[int, int]
    ) -> SegmentationData:
        """Returns the data set of these files; EXIF orientations are ignored, as in torchvision.

        Args:
            train: the files from which "train" and "val" are drawn.
            class_of: mask value -> class id.
        """
        reading = reading_of_ids(class_of)
        sources = {
            split: file_split(self.folder, pairs, self.image_size, reading, upright=False)
            for split, pairs in {"train": train, "test": test}.items()
        }
        return assemble(sources, classes, self.draw, memory_mib=self.memory_mib)


def paired(images: Sequence[str | Path], masks: Sequence[str | Path]) -> Pairs:
    """Returns the pairs of files; an interrupted download leaves lists without their files.

    Raises:
        FileNotFoundError: if a listed file does not exist.
        ValueError: if none is listed.
    """
    pairs = [(Path(image), Path(mask)) for image, mask in zip(images, masks, strict=True)]
    missing = [path for pair in pairs for path in pair if not path.is_file()]
    if missing:
        more = f" ({len(missing)} files in all)" if len(missing) > 1 else ""
        raise FileNotFoundError(f"{missing[0]} is missing{more}")
    if not pairs:
        raise ValueError("no images are listed")
    return pairs
