"""`experiment=own`: settings that fit a data set, as overrides with a reason each.

They follow from a few facts about the training images. The rules are in spirit those of nnU-Net
(Isensee et al., 2021): crops at the resolution of the images, as many steps whatever the number
of images, cross-entropy with Dice. The sizes are for a training of minutes on a CPU.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from seg_l1.config.check import check_overrides
from seg_l1.config.compose import plain
from seg_l1.config.words import key_of, parse_word
from seg_l1.errors import UserError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

    from seg_l1.data.split import SegmentationData

STEPS = 2000
"""The least number of optimizer steps."""

STEPS_PER_EPOCH = 100
"""The least number; validation takes place after each epoch."""

PIXELS_PER_STEP = 8 * 128**2
"""About as many; they decide the batch size, and the time of a training."""

MOST_EXAMINED = 100
"""Training images that are looked at."""

RARE = 0.05
"""Share of the labeled pixels below which a class gets a larger weight."""


@dataclass(frozen=True)
class Fingerprint:
    """Facts about the training images from which the settings follow.

    Attributes:
        images: how many.
        height, width: medians, in pixels.
        shares: of each class among the labeled pixels.
        rarest: the class that occurs with the fewest pixels.
        thickness: of its regions, in pixels: 4 times the mean distance of its pixels to the nearest
            pixel that is not of the class, which is the width of a long strip.
    """

    images: int
    height: int
    width: int
    shares: tuple[float, ...]
    rarest: str
    thickness: float


class Advice(NamedTuple):
    """An override, and why it is given."""

    word: str
    reason: str


def fingerprint(data: SegmentationData) -> Fingerprint:
    """Measures the training images, at most `MOST_EXAMINED` of them."""
    import numpy as np
    from scipy.ndimage import distance_transform_edt

    train = data.splits["train"]
    count = len(train)
    present = [index for index, share in enumerate(data.pixel_shares) if share > 0]
    rarest = min(present, key=lambda index: data.pixel_shares[index])
    sizes, distances = [], [np.zeros(0)]
    for place in range(0, count, -(-count // MOST_EXAMINED)):
        mask = train[[place]][1][0].numpy() == rarest
        sizes.append(mask.shape)
        if mask.any() and not mask.all():
            distances.append(distance_transform_edt(mask)[mask])
    pooled = np.concatenate(distances)
    return Fingerprint(
        images=count,
        height=int(median(height for height, _ in sizes)),
        width=int(median(width for _, width in sizes)),
        shares=tuple(data.pixel_shares),
        rarest=data.classes[rarest],
        thickness=4 * float(pooled.mean()) if len(pooled) else 0.0,
    )


def recipe(found: Fingerprint, *, resizable: bool = True) -> list[Advice]:
    """Returns the overrides that fit the images, each with a reason.

    Args:
        resizable: whether images may be made smaller.
    """
    height, width, advice = found.height, found.width, []
    if resizable and (factor := _reduction(found)) < 1:
        height, width = (max(32, round(factor * side / 32) * 32) for side in (height, width))
        advice.append(
            Advice(
                f"dataset.image_size=[{height},{width}]",
                f"'{found.rarest}' is {found.thickness:.0f} pixels thick in images of"
                f" {found.height}x{found.width}, so smaller images still show it",
            )
        )
    crop = [_crop(height), _crop(width)]
    batch = max(2, min(16, round(PIXELS_PER_STEP / (crop[0] * crop[1]))))
    batch = min(batch, found.images)
    repeats = -(-STEPS_PER_EPOCH * batch // found.images)
    steps = max(1, found.images * repeats // batch)
    epochs = max(10, -(-STEPS // steps))
    advice += [
        Advice(
            f"augmentation.crop=[{crop[0]},{crop[1]}]",
            f"random crops of images of {height}x{width} pixels, which keep their resolution",
        ),
        Advice(f"dataset.batch_size={batch}", f"{batch * crop[0] * crop[1]:,} pixels per step"),
        Advice(
            f"dataset.repeats={repeats}",
            f"{found.images} images, so that an epoch has {steps} steps",
        ),
        Advice(f"trainer.epochs={epochs}", f"{epochs * steps:,} optimizer steps in all"),
    ]
    if min(found.shares) < RARE and (weights := _weights(found.shares)):
        advice.append(
            Advice(
                f"dataset.class_weights=[{','.join(f'{w:.3g}' for w in weights)}]",
                f"'{found.rarest}' has {_percent(min(s for s in found.shares if s > 0))} of the"
                " pixels: 1/sqrt(share), 1 on average",
            )
        )
    if max(height, width) > 2 * max(crop):
        advice.append(
            Advice("trainer.tile=[256,256]", "validation on whole images, in overlapping tiles")
        )
    return advice


def expanded(flags: Namespace, overrides: Sequence[Override]) -> list[Override]:
    """Returns overrides, with those that `experiment=own` stands for inserted right after it.

    Keys and groups that were typed are left as they were typed. What is added is printed.

    Raises:
        UserError: if `experiment` is swept, or the data cannot be read.
    """
    chosen = [override for override in overrides if override.key_or_group == "experiment"]
    if not any("own" in str(override.input_line).partition("=")[2] for override in chosen):
        return [*overrides]
    if any(override.is_sweep_override() for override in chosen):
        raise UserError("experiment: own depends on the data; give experiment one value")
    if chosen[-1].value() != "own":
        return [*overrides]
    from seg_l1.experiments.jobs import read_data

    config = plain(check_overrides(flags, overrides))
    config["dataset"]["wrong_labels"] = 0.0  # every share of a sweep gets the same words
    found = fingerprint(read_data(config))
    typed = {override.key_or_group for override in overrides}
    advice = [
        each
        for each in recipe(found, resizable="dataset.image_size" not in typed)
        if not {key_of(each.word), key_of(each.word).partition(".")[0]} & (typed - {"dataset"})
    ]
    print(_text(found, advice), flush=True)
    place = next(i for i, override in enumerate(overrides) if override is chosen[-1]) + 1
    return [*overrides[:place], *(parse_word(a.word) for a in advice), *overrides[place:]]


def _reduction(found: Fingerprint) -> float:
    """The factor by which images may shrink so that crops show enough, and thin regions survive.

    The short side stays at 512 pixels or more, and the rarest class 16 pixels thick or more;
    images below either limit keep their size.
    """
    short = min(found.height, found.width)
    return min(1.0, max(512 / short, 16 / max(1.0, found.thickness)))


def _crop(side: int) -> int:
    """The side of a crop: from 128 to 192 pixels, a multiple of 32, and no more than the image."""
    wanted = min(side, max(128, min(192, side // 2)))
    return wanted // 32 * 32 or wanted


def _weights(shares: Sequence[float]) -> list[float]:
    """1/√share, scaled so that the mean over pixels is 1; 0 for a class without pixels."""
    mean = sum(share**0.5 for share in shares)
    return [1 / (mean * share**0.5) if share > 0 else 0.0 for share in shares]


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _text(found: Fingerprint, advice: Iterable[Advice]) -> str:
    """What is printed: the facts, and each override with its reason."""
    share = min(share for share in found.shares if share > 0)
    words = [(each.word, each.reason) for each in advice]
    width = max((len(word) for word, _ in words), default=0)
    return "\n".join(
        [
            f"experiment=own: {found.images} training images of {found.height}x{found.width}"
            f" (height x width, medians); the rarest class, '{found.rarest}', has"
            f" {_percent(share)} of the pixels and is {found.thickness:.0f} pixels thick",
            *(f"  {word:<{width}}  {reason}" for word, reason in words),
            "  (type any of these with another value, and that counts)",
        ]
    )
