"""What follows the common part in the names of images and masks: `_mask` in `x_mask.png`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from seg_l1.errors import UserError

SAMPLE = 20
"""Images on which a suffix is tried before all are compared."""


@dataclass(frozen=True)
class Suffixes:
    """The text after the common part of the names of images, and of masks.

    Attributes:
        note: which were found; empty where they were given, or where there are none.
        leave_derived: whether masks whose name continues that of an image are left out.
    """

    image: str = ""
    mask: str = ""
    note: str = ""
    leave_derived: bool = False

    @property
    def keys(self) -> str:
        """What to type for other suffixes."""
        return "dataset.image_suffix=<text>, dataset.mask_suffix=<text>"

    @property
    def words(self) -> str:
        """The suffixes, for a sentence about names; empty if there are none."""
        if not (self.image or self.mask):
            return ""
        return f" ({_typed(self.image, self.mask)})"

    def stems(self, names: Iterable[str], *, of_image: bool) -> tuple[dict[str, str], int]:
        """Returns common part -> name, and the number of names that do not end with the suffix."""
        suffix = self.image if of_image else self.mask
        fitting = {
            name[: len(name) - len(suffix)]: name
            for name in names
            if name.endswith(suffix) and PurePosixPath(name).name != suffix
        }
        return fitting, len([*names]) - len(fitting)


def find_suffixes(
    images: Collection[str],
    masks: Collection[str],
    image_suffix: str | None,
    mask_suffix: str | None,
) -> Suffixes:
    """Returns the suffixes that are given, and those found in place of None.

    A pair of suffixes is found if it gives every image one mask and every mask one image. Where
    none does, the one that pairs the most images is taken, so that those without partner are named.

    Args:
        images, masks: paths without .png and so on.

    Raises:
        UserError: if images have several masks, naming the keys that choose one.
    """
    if image_suffix is not None and mask_suffix is not None:
        return Suffixes(image_suffix, mask_suffix, leave_derived=not mask_suffix)
    if not (image_suffix or mask_suffix) and set(images) == set(masks):
        return Suffixes()
    given = Suffixes(image_suffix or "", mask_suffix or "", leave_derived=mask_suffix == "")
    images = {name for name in images if name.endswith(image_suffix or "")}
    masks = {name for name in masks if name.endswith(mask_suffix or "")}
    paired = {
        pair: count
        for pair in _candidates(sorted(images), masks, image_suffix, mask_suffix)
        if (count := _count(images, masks, pair)) > len(images) / 2
    }
    exact = [pair for pair, count in paired.items() if count == len(images) == len(masks)]
    full = [pair for pair, count in paired.items() if count == len(images)]
    if len(exact) != 1 and len(full) > 1:
        options = " or ".join(_typed(*pair) for pair in sorted(full)[:8])
        raise UserError(
            f"dataset.mask_suffix: the names give each image {len(full)} masks; choose one with"
            f" {options}"
        )
    best = exact or sorted(paired, key=lambda pair: (-paired[pair], pair))
    if not best or best[0] == (given.image, given.mask):
        return given
    image, mask = best[0]
    note = f"names of images and masks end differently: {_typed(image, mask)} was found"
    return Suffixes(image, mask, note, leave_derived=given.leave_derived)


def _typed(image: str, mask: str) -> str:
    """Returns the keys as they are typed in a shell."""
    given = {"image": image, "mask": mask} if image else {"mask": mask}
    plain = re.compile(r"([_.-]*[A-Za-z_][\w.-]*)?", re.ASCII)
    return " ".join(
        f"dataset.{kind}_suffix={text}"
        if plain.fullmatch(text) and text not in ("null", "true", "false")
        else f"'dataset.{kind}_suffix=\"{text}\"'"
        for kind, text in given.items()
    )


def _candidates(
    images: list[str], masks: Collection[str], image_suffix: str | None, mask_suffix: str | None
) -> set[tuple[str, str]]:
    """Returns the pairs of suffixes under which one of the first images has a mask."""
    found = {(image_suffix or "", mask_suffix or "")}
    for image in images[:3]:
        for mask in masks:
            common = _common(image, mask)
            if image_suffix is not None:
                common = image[: len(image) - len(image_suffix)]
            elif mask_suffix is not None:
                common = mask[: len(mask) - len(mask_suffix)]
            if not common or common[-1] == "/" or not image.startswith(common):
                continue
            if not mask.startswith(common):
                continue
            pair = image[len(common) :], mask[len(common) :]
            guessed = image_suffix is None and mask_suffix is None
            if "/" not in pair[0] + pair[1] and not (guessed and all(pair) and len(images) == 1):
                found.add(pair)
    sample = images[:: max(1, len(images) // SAMPLE)]
    return {pair for pair in found if _count(sample, masks, pair) > len(sample) / 3}


def _common(image: str, mask: str) -> str:
    """Returns the common beginning; a separator at its end belongs to what follows."""
    shorter = min(len(image), len(mask))
    length = next((i for i in range(shorter) if image[i] != mask[i]), shorter)
    if 0 < length < shorter and image[length - 1] in "_-. ":
        length -= 1
    return image[:length]


def _count(images: Iterable[str], masks: Collection[str], pair: tuple[str, str]) -> int:
    """Returns the number of images that have a mask under a pair of suffixes."""
    image, mask = pair
    return sum(
        name.endswith(image) and name[: len(name) - len(image)] + mask in masks for name in images
    )
