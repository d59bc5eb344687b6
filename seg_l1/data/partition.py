"""Drawing splits from a listing: by a seed, optionally by whole groups, optionally stratified."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from seg_l1.errors import UserError, first_line

ORDERS = 50
"""Random orders in which groups are dealt out; the one that comes closest to the shares is used."""


def partition(
    names: Sequence[str],
    presence: np.ndarray,
    shares: dict[str, float],
    *,
    seed: int,
    group_pattern: str | None = None,
    stratify: bool = False,
) -> dict[str, list[int]]:
    """Deals the positions 0 to N - 1 out to parts; the same arguments give the same parts.

    Each image goes to the part that is farthest below its share. With `stratify` that is its share
    of the images that show the class with the fewest images left, class after class (iterative
    stratification: Sechidis, Tsoumakas & Vlahavas 2011). Groups are dealt out as a whole, in the
    best of `ORDERS` random orders and the order of size. A part that would stay empty gets one
    image or group, if there are enough. (scikit-learn's splitters stratify by one label per
    image, and draw shares of groups, not of images.)

    Args:
        names: N file names, with or without folders.
        presence: bool (N, K), the classes that each image shows; used by `stratify` only.
        shares: part -> its share of the images, in any unit; K folds are K equal shares.
        group_pattern: regular expression, searched in each file name without its folders; images
            with the same first capturing group (or match, if there is none) stay together.
        stratify: give every part its share of the images of each class.

    Returns:
        part -> its positions, in ascending order; none where the share is 0, or where there are
        fewer images or groups than parts.

    Raises:
        UserError: if `group_pattern` is no regular expression, or does not match a name.
    """
    groups = np.arange(len(names))
    if group_pattern is not None:
        groups = np.unique(group_keys(names, group_pattern), return_inverse=True)[1]
    counts = np.ones((len(names), 1))
    if stratify:
        counts = np.hstack([counts, presence])
    content = np.zeros((groups.max(initial=-1) + 1, counts.shape[1]))
    np.add.at(content, groups, counts)
    fractions = np.array(list(shares.values()), dtype=float)[:, None]
    wanted = fractions / fractions.sum() * content.sum(0)
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(content)) for _ in range(ORDERS if group_pattern else 1)]
    if group_pattern:
        orders.append(np.argsort(-content[:, 0], kind="stable"))
    _, best = min((_deal(content, wanted, order) for order in orders), key=lambda deal: deal[0])
    return {part: np.flatnonzero(best[groups] == i).tolist() for i, part in enumerate(shares)}


def draw(
    names: Sequence[str],
    presence: np.ndarray,
    fractions: Mapping[str, float | None],
    *,
    seed: int,
    group_pattern: str | None = None,
    stratify: bool = False,
) -> dict[str, list[int]]:
    """Cuts a listing into "train" and the parts that `fractions` names: see `partition`.

    Args:
        fractions: shares of all images for "val" and "test". None = no such split; 0 = no "test",
            and an error for "val".

    Raises:
        UserError: if a split is empty, naming the key; as `partition` does.
    """
    wanted = {part: share for part, share in fractions.items() if share is not None}
    shares = {"train": 1 - sum(wanted.values()), **wanted}
    if shares["train"] <= 0:
        keys = " and ".join(f"dataset.{part}_fraction={x:g}" for part, x in wanted.items() if x)
        raise UserError(f"{keys}: leaves nothing to train on; give smaller shares")
    shares = {part: share for part, share in shares.items() if share > 0 or part == "val"}
    parts = partition(
        names, presence, shares, seed=seed, group_pattern=group_pattern, stratify=stratify
    )
    for part, indices in parts.items():
        if not indices:
            key = "val" if part == "train" else part
            many = f"{len(names)} images"
            if group_pattern is not None:
                groups = len(set(group_keys(names, group_pattern)))
                many += f" in {groups} group{'s' if groups > 1 else ''}"
            raise UserError(
                f"dataset.{key}_fraction={wanted[key]:g}: leaves the split '{part}' empty ({many})"
            )
    return parts


def group_keys(names: Sequence[str], pattern: str) -> list[str]:
    """Returns the group of each file name: see `partition`."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(
            f"dataset.group_pattern: '{pattern}' is no regular expression ({first_line(error)})"
        ) from None
    files = [PurePosixPath(name).name for name in names]
    matches = [expression.search(file) for file in files]
    keys = [match[min(1, expression.groups)] if match else None for match in matches]
    without = [file for file, key in zip(files, keys, strict=True) if key is None]
    if without:
        raise UserError(
            f"dataset.group_pattern: '{pattern}' finds no group in the file name"
            f" '{without[0]}' ({len(without)} of {len(names)} in all)"
        )
    return [str(key) for key in keys]


def _deal(content: np.ndarray, wanted: np.ndarray, order: np.ndarray) -> tuple[float, np.ndarray]:
    """Deals out units (images or groups) in `order`.

    Args:
        content: (units, 1 + K), the images of each unit, and those of them that show each class.
        wanted: (parts, 1 + K), the same per part.

    Returns:
        The relative distance of the result from `wanted`, and the part of each unit.
    """
    part = np.full(len(content), -1)
    need, left = wanted.copy(), order
    while len(left):
        remaining = content[left, 1:].sum(0)
        rarest = np.where(remaining > 0, remaining, np.inf).argmin() + 1 if remaining.any() else 0
        for unit in left[content[left, rarest] > 0]:
            part[unit] = np.lexsort((need[:, 0], need[:, rarest]))[-1]
            need[part[unit]] -= content[unit]
        left = left[part[left] < 0]
    for empty in np.flatnonzero(wanted[:, 0] > 0):
        units = np.bincount(part, minlength=len(wanted))
        spare = order[units[part[order]] > 1]
        if not units[empty] and len(spare):
            moved = spare[content[spare, 0].argmin()]
            need[part[moved]] += content[moved]
            need[empty] -= content[moved]
            part[moved] = empty
    return float((np.abs(need).sum(0) / content.sum(0).clip(1)).sum()), part
